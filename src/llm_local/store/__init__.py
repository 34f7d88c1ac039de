"""Models on the shelf: how they are named, where they lie on disk, and the one door to the hub."""

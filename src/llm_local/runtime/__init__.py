"""Running models for many callers at once: the engine's thread, and what callers hold of it."""

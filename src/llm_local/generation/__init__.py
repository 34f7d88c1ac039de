"""What the generator hands out: streams of events."""

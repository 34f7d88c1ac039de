"""Low-bit weights, attention and the native step: C++ sources, their build, and the door to them from torch."""

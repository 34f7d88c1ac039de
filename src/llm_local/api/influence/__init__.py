"""Influence's routes: a text is continued at `/v1/generate`, and in pieces at `/v1/generate_stream`."""

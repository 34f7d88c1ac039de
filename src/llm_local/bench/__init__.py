"""Measuring the engine: scenarios that run it, figures made of what they saw, and reports for people and programs."""

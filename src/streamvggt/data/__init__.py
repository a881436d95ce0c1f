"""Frames with measurements, and where they come from."""

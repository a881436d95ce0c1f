"""Refine predicted cameras by bundle adjustment of point tracks."""

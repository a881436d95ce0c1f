"""Rotations, cameras and point maps. Conventions: docs/conventions.md."""

"""Rotations, cameras, similarities and point maps. Conventions: docs/conventions.md."""

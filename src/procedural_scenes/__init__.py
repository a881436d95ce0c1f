"""Procedural scenes with exact ground truth: rooms and open air, trajectories and rendered images from a seed.

The package uses of `streamvggt` only the views that it fills, cameras, and file helpers.
"""

from procedural_scenes.source import SyntheticSource
from procedural_scenes.world import SyntheticScenes

__all__ = ["SyntheticScenes", "SyntheticSource"]

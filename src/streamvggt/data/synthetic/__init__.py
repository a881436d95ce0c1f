"""The procedural world: scenes, trajectories and their pictures from a seed."""

from streamvggt.data.synthetic.source import SyntheticSource
from streamvggt.data.synthetic.world import SyntheticScenes

__all__ = ["SyntheticScenes", "SyntheticSource"]

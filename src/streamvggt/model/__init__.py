"""VGGT and StreamVGGT: network, stream memory and weights."""

"""The network: one class for VGGT and StreamVGGT, its memory, and its weights."""

"""VGGT-Omega: a teacher with an encoder, special tokens and heads of its own (facebookresearch/vggt-omega)."""

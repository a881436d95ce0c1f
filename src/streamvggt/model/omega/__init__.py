"""VGGT-Omega, supported as a teacher (facebookresearch/vggt-omega)."""

"""Attention, its memory, rotary positions, transformer blocks and the patch encoder. Only torch."""

"""Attention, KV cache, rotary positions, transformer blocks and patch encoder. Depends on PyTorch only."""

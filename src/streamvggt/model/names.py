"""Parameter names without the prefixes of wrappers."""

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Attributes in which DDP and EMA, torch.compile, FSDP and activation checkpointing store the wrapped module."""


def original_name(name: str) -> str:
    """Remove the components of a parameter name that wrappers add, for example "module." of DDP."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)

"""Names of parameters as the network defines them, whatever wraps the network."""

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Attributes under which DDP and EMA, torch.compile, FSDP and activation checkpointing hold the wrapped module."""


def original_name(name: str) -> str:
    """Remove the parts of a parameter's name that wrappers add, e.g. "module." of DDP."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)

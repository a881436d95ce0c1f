"""Create the accelerator: device, precision and distribution among processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, parse_flag_from_env


def new_accelerator(precision: str, gradient_accumulation_steps: int, *, can_skip_parameters: bool) -> Accelerator:
    """Create the accelerator.

    Args:
        precision: "no" (float32), "bf16" or "fp16".
        gradient_accumulation_steps: Micro-batches per step.
        can_skip_parameters: Whether some batches do not use all parameters.

    Raises:
        ValueError: If the requested FSDP is not available on the device, or has version 1.
    """
    accelerator = Accelerator(
        cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        mixed_precision=precision,
        gradient_accumulation_steps=gradient_accumulation_steps,
        kwargs_handlers=[
            # Gradients are views of the buckets, without a second copy of all gradients.
            DistributedDataParallelKwargs(find_unused_parameters=can_skip_parameters, gradient_as_bucket_view=True)
        ],
    )
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError(
            f"FSDP was requested but accelerate does not shard on {accelerator.device.type}: "
            "use GPUs, or leave --use_fsdp out"
        )
    check_sharding(accelerator)
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether the weights are sharded among processes (FSDP)."""
    return accelerator.distributed_type == DistributedType.FSDP


def check_sharding(accelerator: Accelerator) -> None:
    """Check the FSDP version. With version 1, each process clips by the norm of its own gradient shard.

    Raises:
        ValueError: If the accelerator uses FSDP version 1.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None and plugin.fsdp_version != 2:
        raise ValueError(
            f"FSDP version {plugin.fsdp_version} clips gradients by the norm of each shard, so the processes diverge. "
            "Use version 2 (accelerate launch --use_fsdp --fsdp_version 2)"
        )

"""Eviction policy and submaps of a run, and the session that uses them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from tqdm import tqdm

from streamvggt.cli.arguments.reconstruct import LOW_MEMORY_PRESET, TRAINED_LENGTH, TRAINED_WINDOWS
from streamvggt.model.checkpoints import find_known
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.policy import DEFAULT_POLICY, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.static_step import validate_step_mode
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, parse_submaps
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession

DEFAULTS = {"policy": DEFAULT_POLICY, "kv_cache_dtype": "auto", "dtype": "auto"}
Session = StreamSession | SubmapSession


@dataclass(frozen=True)
class MemorySettings:
    """Parsed arguments that bound the memory of a stream.

    Attributes:
        submaps: None for one stream.
        loop_closure: None without --loop-closure.
    """

    policy: EvictionPolicy
    submaps: SubmapOptions | None
    loop_closure: LoopClosureOptions | None

    @classmethod
    def parse(cls, arguments: argparse.Namespace, device: torch.device) -> MemorySettings:
        """Parse --policy, --submaps and --loop-closure.

        Raises:
            ValueError: If they are invalid, or --step-mode does not support them.
        """
        settings = cls(parse_policy(arguments.policy), *parse_submaps(arguments.submaps, arguments.loop_closure))
        if settings.submaps is None:
            validate_step_mode(arguments.step_mode, settings.policy, arguments.camera_cache, device)
        elif arguments.step_mode != "eager":
            raise ValueError("--submaps requires --step-mode eager")
        return settings

    def new_session(self, model: VGGT, arguments: argparse.Namespace) -> Session:
        options = {
            "policy": self.policy,
            "camera_cache": arguments.camera_cache,
            "kv_cache_dtype": arguments.kv_cache_dtype,
        }
        if self.submaps is None:
            return StreamSession(model, **options, step_mode=arguments.step_mode)
        return SubmapSession(model, **options, submaps=self.submaps, loop_closure=self.loop_closure)


def apply_defaults(arguments: argparse.Namespace) -> None:
    """Set missing arguments to their defaults, in place."""
    defaults = LOW_MEMORY_PRESET if arguments.low_memory else DEFAULTS
    if arguments.submaps is not None and not arguments.low_memory:
        defaults = {**DEFAULTS, "policy": "all"}  # submaps bound the memory
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def check_camera_memory(arguments: argparse.Namespace) -> None:
    """Reject, before the model is loaded, a camera cache that the reference streaming code does not have."""
    known = find_known(arguments.weights)
    if known is not None and known.exact_camera and arguments.camera_cache != "per_iteration":
        raise ValueError(
            f"--camera-cache {arguments.camera_cache}: expected per_iteration for {known.id}, whose camera head has "
            "one cache per iteration. Leave the flag out."
        )


def use_published_memory(arguments: argparse.Namespace, model: VGGT, frames: FrameSource) -> None:
    """Use the eviction policy of LingBot-Map, and submaps for streams longer than its training sequences."""
    policy = published_policy(model)
    arguments.policy = f"trajectory:{policy.anchor},{policy.recent}"
    is_long = frames.num_frames is None or frames.num_frames > TRAINED_LENGTH
    if arguments.submaps is None and arguments.step_mode == "eager" and is_long:
        arguments.submaps = TRAINED_WINDOWS
        tqdm.write(
            f"Using --submaps {TRAINED_WINDOWS}: this network was trained with up to {TRAINED_LENGTH} frames. "
            f"To keep one stream, give --policy {arguments.policy}."
        )

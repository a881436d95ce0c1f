"""The network under evaluation: the flags that choose it, and what it says of a sequence of images.

S frames · H×W pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from streamvggt.flags import whole
from streamvggt.model.device import DTYPES, resolve_device, resolve_dtype
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import file_fingerprint, load_model
from streamvggt.prediction import Prediction, cat
from streamvggt.provenance import device_name
from streamvggt.stream.policy import POLICY_USAGE, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, parse_submaps
from streamvggt.stream.submaps.options import USAGE, SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.stream.submaps.submap_graph import apply_corrections

MODELS = {"streamvggt": (True, "../ckpt/checkpoints.pth"), "vggt": (False, "../ckpt/model.pt")}
"""What a model of this name sees, and where its released weights are, from src/."""


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all evaluations share; `Evaluated.load` reads them."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights", help=f"see load_model (default: {', '.join(path for _, path in MODELS.values())})"
    )
    network.add_argument("--model_name", default="StreamVGGT", help="StreamVGGT (default) or VGGT")
    network.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    network.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="default: half precision on CUDA")
    network.add_argument(
        "--inference",
        choices=("stream", "full"),
        help="frame by frame with a memory, or all frames at once (default: stream; VGGT can only do whole)",
    )
    network.add_argument("--policy", default="all", help=f"{POLICY_USAGE}; see docs/streaming.md (default: all)")
    network.add_argument(
        "--submaps", metavar=USAGE, help="stitch overlapping windows, see docs/streaming.md (default: one stream)"
    )
    network.add_argument(
        "--loop_closure", action="store_true", help="with --submaps: close loops, and correct each sequence at its end"
    )
    network.add_argument(
        "--camera_cache", choices=("per_iteration", "shared"), default="per_iteration", help="see docs/streaming.md"
    )
    network.add_argument(
        "--size", type=whole(1, 16_384), help="longer side the network sees (default: what it was made for, 518)"
    )


def weights_name(arguments: argparse.Namespace) -> str:
    """A short name for the weights that the flags choose, for folders: "checkpoints" of ../ckpt/checkpoints.pth."""
    if arguments.weights:
        return Path(arguments.weights).stem.replace(":", "-")
    return Path(MODELS.get(arguments.model_name.lower(), ("", "released"))[1]).stem


@dataclass(frozen=True)
class ModelRunner:
    """A network and how it is run.

    heads: those that run.
    size: longer side of its images.
    settings: what decides its predictions; goes into the run record and must not change within a result.
    about: what else one wants to know of it.
    """

    model: VGGT
    heads: tuple[str, ...]
    size: int
    inference: str
    policy: str
    camera_cache: str
    submaps: SubmapOptions | None
    loop_closure: LoopClosureOptions | None
    settings: dict[str, Any]
    metadata: dict[str, Any]

    @classmethod
    def load(cls, arguments: argparse.Namespace, heads: Sequence[str]) -> ModelRunner:
        """The network that the flags choose, with the heads that the protocol needs.

        Raises:
            ValueError, FileNotFoundError: a flag is wrong, or there are no such weights.
        """
        if arguments.model_name.lower() not in MODELS:
            raise ValueError(f"--model_name {arguments.model_name} is unknown; choose StreamVGGT or VGGT")
        causal, released = MODELS[arguments.model_name.lower()]
        inference = arguments.inference or ("stream" if causal else "full")
        if inference == "stream" and not causal:
            raise ValueError("VGGT sees all frames at once and cannot stream: leave out --inference stream")
        parse_policy(arguments.policy)
        submaps, loop_closure = parse_submaps(arguments.submaps, arguments.loop_closure)
        if submaps:
            heads = tuple(dict.fromkeys((*heads, "camera", "depth")))  # by which windows are joined
        if inference == "full" and (arguments.policy, arguments.camera_cache, submaps) != (
            False,
            "per_iteration",
            None,
        ):
            raise ValueError(
                "--policy, --submaps and --camera_cache are of streams; leave them out with whole sequences"
            )
        device = resolve_device(arguments.device)
        dtype = resolve_dtype(arguments.dtype, device)
        weights = arguments.weights or released
        model = load_model(weights, causal=causal, heads=tuple(heads), device=device, dtype=dtype)
        if str(weights).startswith("random:"):
            tqdm.write(f"!!! {weights}: random weights; the numbers MEAN NOTHING", file=sys.stderr)
        size = model.config["image_size"] if arguments.size is None else arguments.size
        if size < model.patch_size:
            raise ValueError(f"--size {size} is below one patch of the network, {model.patch_size} pixels")
        settings = {
            "model": "StreamVGGT" if causal else "VGGT",
            "weights_fingerprint": file_fingerprint(weights),
            "heads": list(heads),
            "inference": inference,
            "policy": arguments.policy if inference == "stream" else None,
            "camera_cache": arguments.camera_cache if inference == "stream" and "camera" in heads else None,
            "submaps": arguments.submaps,
            "loop_closure": arguments.loop_closure or None,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device.type,
            "size": size,
        }
        about = {"weights": str(weights), "machine": device_name(device)}
        how = (inference, arguments.policy, arguments.camera_cache, submaps, loop_closure)
        return cls(model, tuple(heads), size, *how, settings, about)

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """What the network says of each frame of one sequence, S = 1, on the host, without refinement stages.

        Args:
            images: RGB in [0, 1], all of one size. (3, H, W) each
        """
        if self.inference == "full":
            device = next(self.model.parameters()).device
            stacked = torch.stack(list(images))[None].to(device)  # (1, S, 3, H, W)
            with torch.no_grad():
                whole = self.model(stacked, heads=self.heads).without_stages().to("cpu")
        else:
            session = self._new_session()
            answers = (session.push(image).without_stages().to("cpu") for image in images)
            if self.loop_closure is None:
                yield from answers
                return
            # All frames are held until the last one has come, for loops move them.
            whole = cat(list(answers))
            session.finish()
            whole = apply_corrections(whole, session.corrections())
        for index in range(whole.num_frames):
            yield whole.select_frame(index)

    def _new_session(self) -> StreamSession | SubmapSession:
        options = {"policy": parse_policy(self.policy), "camera_cache": self.camera_cache, "heads": self.heads}
        if self.submaps is None:
            return StreamSession(self.model, **options)
        return SubmapSession(self.model, submaps=self.submaps, loop_closure=self.loop_closure, **options)

    def predict_sequence(self, images: Iterable[Tensor]) -> Prediction:
        """What the network says of one sequence, on the host."""
        return cat(list(self.predict(images)))

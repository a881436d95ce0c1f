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
from streamvggt.model.device import DTYPES, choose_device, choose_dtype
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import file_fingerprint, load_model
from streamvggt.prediction import Prediction, concatenate
from streamvggt.provenance import device_name
from streamvggt.stream.policy import MEMORIES, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, parse_submaps
from streamvggt.stream.submaps.options import USAGE, SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.stream.submaps.submap_graph import apply_corrections

MODELS = {"streamvggt": ("past", "../ckpt/checkpoints.pth"), "vggt": ("all", "../ckpt/model.pt")}
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
        choices=("stream", "whole"),
        help="frame by frame with a memory, or all frames at once (default: stream; VGGT can only do whole)",
    )
    network.add_argument("--memory", default="all", help=f"{MEMORIES}; see docs/streaming.md (default: all)")
    network.add_argument(
        "--windows", metavar=USAGE, help="stitch overlapping windows, see docs/streaming.md (default: one stream)"
    )
    network.add_argument(
        "--loops", action="store_true", help="with --windows: close loops, and correct each sequence at its end"
    )
    network.add_argument(
        "--camera_memory", choices=("exact", "released"), default="exact", help="see docs/streaming.md"
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
class Evaluated:
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
    memory: str
    camera_memory: str
    windows: SubmapOptions | None
    loops: LoopClosureOptions | None
    settings: dict[str, Any]
    about: dict[str, Any]

    @classmethod
    def load(cls, arguments: argparse.Namespace, heads: Sequence[str]) -> Evaluated:
        """The network that the flags choose, with the heads that the protocol needs.

        Raises:
            ValueError, FileNotFoundError: a flag is wrong, or there are no such weights.
        """
        if arguments.model_name.lower() not in MODELS:
            raise ValueError(f"--model_name {arguments.model_name} is unknown; choose StreamVGGT or VGGT")
        sees, released = MODELS[arguments.model_name.lower()]
        inference = arguments.inference or ("stream" if sees == "past" else "whole")
        if inference == "stream" and sees == "all":
            raise ValueError("VGGT sees all frames at once and cannot stream: leave out --inference stream")
        parse_policy(arguments.memory)
        windows, loops = parse_submaps(arguments.windows, arguments.loops)
        if windows:
            heads = tuple(dict.fromkeys((*heads, "camera", "depth")))  # by which windows are joined
        if inference == "whole" and (arguments.memory, arguments.camera_memory, windows) != ("all", "exact", None):
            raise ValueError(
                "--memory, --windows and --camera_memory are of streams; leave them out with whole sequences"
            )
        device = choose_device(arguments.device)
        dtype = choose_dtype(arguments.dtype, device)
        weights = arguments.weights or released
        model = load_model(weights, sees=sees, heads=tuple(heads), device=device, dtype=dtype)
        if str(weights).startswith("random:"):
            tqdm.write(f"!!! {weights}: random weights; the numbers MEAN NOTHING", file=sys.stderr)
        size = model.config["image_size"] if arguments.size is None else arguments.size
        if size < model.patch_size:
            raise ValueError(f"--size {size} is below one patch of the network, {model.patch_size} pixels")
        settings = {
            "model": {"past": "StreamVGGT", "all": "VGGT"}[sees],
            "weights_fingerprint": file_fingerprint(weights),
            "heads": list(heads),
            "inference": inference,
            "memory": arguments.memory if inference == "stream" else None,
            "camera_memory": arguments.camera_memory if inference == "stream" and "camera" in heads else None,
            "windows": arguments.windows,
            "loops": arguments.loops or None,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device.type,
            "size": size,
        }
        about = {"weights": str(weights), "machine": device_name(device)}
        how = (inference, arguments.memory, arguments.camera_memory, windows, loops)
        return cls(model, tuple(heads), size, *how, settings, about)

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """What the network says of each frame of one sequence, S = 1, on the host, without refinement stages.

        Args:
            images: RGB in [0, 1], all of one size. (3, H, W) each
        """
        if self.inference == "whole":
            device = next(self.model.parameters()).device
            stacked = torch.stack(list(images))[None].to(device)  # (1, S, 3, H, W)
            with torch.no_grad():
                whole = self.model(stacked, heads=self.heads).without_stages().to("cpu")
        else:
            session = self._new_session()
            answers = (session.push(image).without_stages().to("cpu") for image in images)
            if self.loops is None:
                yield from answers
                return
            # All frames are held until the last one has come, for loops move them.
            whole = concatenate(list(answers))
            session.finish()
            whole = apply_corrections(whole, session.corrections())
        for index in range(whole.num_frames):
            yield whole.frame(index)

    def _new_session(self) -> StreamSession | SubmapSession:
        options = {"policy": parse_policy(self.memory), "camera": self.camera_memory, "heads": self.heads}
        if self.windows is None:
            return StreamSession(self.model, **options)
        return SubmapSession(self.model, submaps=self.windows, loop_closure=self.loops, **options)

    def predict_sequence(self, images: Iterable[Tensor]) -> Prediction:
        """What the network says of one sequence, on the host."""
        return concatenate(list(self.predict(images)))

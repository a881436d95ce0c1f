"""The evaluated model: its flags and its predictions for a sequence of images.

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

from streamvggt.evaluation.arguments import MODELS
from streamvggt.model.device import resolve_device, resolve_dtype
from streamvggt.model.fingerprint import file_fingerprint
from streamvggt.model.random_networks import is_random
from streamvggt.model.threads import set_threads
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model
from streamvggt.prediction import Prediction, cat
from streamvggt.provenance import device_name
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, parse_submaps
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.stream.submaps.submap_graph import apply_corrections
from streamvggt.stream.weights_note import RANDOM_WEIGHTS_NOTE


def weights_name(arguments: argparse.Namespace) -> str:
    """Return a short name of the selected weights for folder names: "checkpoints" for ../ckpt/checkpoints.pth."""
    if arguments.weights:
        return Path(arguments.weights).stem.replace(":", "-")
    return Path(MODELS.get(arguments.model_name.lower(), ("", "released"))[1]).stem


@dataclass(frozen=True)
class ModelRunner:
    """A model and its inference settings.

    Attributes:
        heads: Heads to run.
        size: Longer side of the images in pixels.
        settings: Settings that determine the predictions, stored in the run record. Constant within a result.
        metadata: Additional information.
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
        """Load the model selected by the flags with the heads of the protocol.

        Raises:
            ValueError: If a flag is invalid.
            FileNotFoundError: If the weights do not exist.
        """
        if arguments.model_name.lower() not in MODELS:
            raise ValueError(f"--model_name {arguments.model_name} is unknown; choose StreamVGGT or VGGT")
        causal, released = MODELS[arguments.model_name.lower()]
        inference = arguments.inference or ("stream" if causal else "full")
        if inference == "stream" and not causal:
            raise ValueError("VGGT is bidirectional and cannot stream. Remove --inference stream")
        parse_policy(arguments.policy)
        submaps, loop_closure = parse_submaps(arguments.submaps, arguments.loop_closure)
        if submaps:
            heads = tuple(dict.fromkeys((*heads, "camera", "depth")))  # used for the alignment of submaps
        if inference == "full" and (arguments.policy, arguments.camera_cache, submaps) != (
            "all",
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
        set_threads(model.config.embed_dim)
        if is_random(str(weights)):
            tqdm.write(f"Warning: {RANDOM_WEIGHTS_NOTE}", file=sys.stderr)
        size = model.config.image_size if arguments.size is None else arguments.size
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
        """Yield the prediction of each frame of one sequence, S = 1, on the CPU, without intermediate iterations.

        Args:
            images: RGB in [0, 1], all of equal size. (3, H, W) each
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
            # Keep all frames until the end, because loop closure moves them.
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
        """Return the prediction of one sequence on the CPU."""
        return cat(list(self.predict(images)))

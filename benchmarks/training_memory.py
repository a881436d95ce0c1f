"""Peak memory of a training step of the full network, counted without running it.

    python benchmarks/training_memory.py --out benchmarks/training-memory.md

The step runs on fake tensors (shapes only, no arithmetic) at 518×392 under bfloat16 autocast, with the freezing and the
adapters of the configuration and a teacher if it has one. Every tensor that the step creates is counted while it lives:
weights, gradients, Adam's moments, activations, temporaries. Not counted: the CUDA context and workspaces (about 1 GB),
fragmentation, the temporaries of the losses.
"""

import argparse
import weakref
from pathlib import Path
from unittest.mock import patch

import hydra
import torch
from environment_info import output_path, publish
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from streamvggt.model.vggt import VGGT
from streamvggt.training.optim import freeze_parameters

CONFIG = str(Path(__file__).parent.parent / "config")
HEIGHT, WIDTH, TRACKS = 392, 518, 64
ADAPTERS_ONLY = ["trainer.optim.freeze=['*']", "~trainer.optim.lr_multipliers"]
FAKE = FakeTensorMode()
"""One for all rows, because tables of positions are cached between networks."""
ROWS = [
    ("finetune_own", "adapters and heads", [], 10),
    ("finetune_own", "adapters only", ADAPTERS_ONLY, 10),
    ("finetune_own", "heads only", ["~adapters"], 10),
    ("finetune", "all but the patch encoder", [], 10),
    ("train_own", "adapters and heads", [], 6),
    ("train_own", "adapters only", ADAPTERS_ONLY, 6),
    ("train_own", "heads only", ["~adapters"], 6),
    ("train", "all but the patch encoder", [], 10),
]


class Live(TorchDispatchMode):
    """Bytes of live storages, and their maximum."""

    def __init__(self):
        super().__init__()
        self.seen = weakref.WeakSet()
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            self.change(storage.nbytes())
            weakref.finalize(storage, self.change, -storage.nbytes())

    def change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


def measure(name: str, overrides: list[str], num_frames: int) -> tuple[int, float]:
    """Return the number of trainable parameters, and the peak in bytes of the second step."""
    with hydra.initialize_config_dir(CONFIG, version_base=None):
        config = hydra.compose(name, [*overrides, *(["data.path=."] if name.endswith("_own") else [])])
    settings = config.trainer
    optim = hydra.utils.instantiate(settings.optim, _convert_="all")
    adapters = hydra.utils.instantiate(settings.get("adapters"), _convert_="all")
    is_distilled = "Teacher" in config.supervision._target_
    heads = [head for head in ("camera", "depth", "points", "track") if config.loss[head].weight]
    with FAKE:
        model = VGGT(causal=config.model.causal, activation_checkpointing=True).train()
        teacher = VGGT().eval().requires_grad_(False) if is_distilled else None
        unused = {"camera": "camera_head.*", "depth": "depth_head.*", "points": "point_head.*", "track": "track_head.*"}
        freeze_parameters(model, [*(unused[head] for head in unused if head not in heads), *optim.freeze])
        if adapters is not None:
            with patch.object(nn.Module, "to", lambda module, *args, **kwargs: module):  # fake tensors cannot move
                adapters.add(model)
        learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        optimizer = optim.build(model)
        live = Live()
        for network in filter(None, (model, teacher)):
            for tensor in (*network.parameters(), *network.buffers()):
                live.add(tensor)
        with live:
            for _ in range(2):
                step(model, teacher, optimizer, heads, num_frames)
    return learning, live.peak


def step(model: VGGT, teacher: VGGT | None, optimizer, heads: list[str], num_frames: int) -> None:
    images = torch.rand(1, num_frames, 3, HEIGHT, WIDTH)
    inputs = {"heads": heads, "query_points": torch.rand(1, TRACKS, 2) if "track" in heads else None}
    with torch.autocast("cpu", torch.bfloat16):
        if teacher is not None:
            with torch.no_grad():
                target = teacher(images, **inputs)  # kept until the end of the step, as in training
        prediction = model(images, **inputs)
    outputs = [*prediction._tensors().values(), *prediction.pose_enc_list, *prediction.tracks_list]
    sum(output.float().mean() for output in outputs).backward()
    optimizer.step()
    optimizer.zero_grad()
    if teacher is not None:
        del target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    lines = [
        "# Memory of a training step, counted",
        "",
        f"Full network, one process, one sample, {WIDTH}×{HEIGHT} pixels, bfloat16 autocast, activation checkpointing.",
        "Counted on fake tensors, not measured on a GPU: add about 1 GB for CUDA, and room for fragmentation.",
        "",
        "| config | learns | images | trainable parameters | peak |",
        "|---|---|---|---|---|",
    ]
    for name, learns, overrides, num_frames in ROWS:
        learning, peak = measure(name, overrides, num_frames)
        lines.append(f"| `{name}` | {learns} | {num_frames} | {learning / 1e6:.1f} M | {peak / 1e9:.1f} GB |")
        print(lines[-1], flush=True)
    publish(lines, arguments.out, torch.device("cpu"))


if __name__ == "__main__":
    main()

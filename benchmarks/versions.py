"""Time one streaming step or one training step of this version beside another version, in pairs.

    git worktree add ../old 68b3f3f
    taskset -c 0 python benchmarks/versions.py ../old --case small tiny train --out benchmarks/versions.md

Each version runs in a process of its own with the same weights and images. The processes take turns, round by round.
Times are processor times of the process, so that other programs on the machine do not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

NAMES = {  # earlier names of options and policies
    "frame-diversity:9": "blocks:9",
}
SMALL = {
    "image_size": 224,
    "embed_dim": 384,
    "depth": 6,
    "num_heads": 6,
    "encoder_depth": 6,
    "encoder_num_heads": 6,
    "camera_num_heads": 12,
    "dpt_layers": (2, 3, 4, 5),
    "dpt_features": 64,
    "dpt_channels": (48, 96, 192, 384),
    "heads": ("camera", "depth", "points"),
}
TINY = {
    "image_size": 112,
    "embed_dim": 192,
    "depth": 4,
    "num_heads": 6,
    "encoder_depth": 4,
    "encoder_num_heads": 6,
    "camera_trunk_depth": 2,
    "camera_num_heads": 6,
    "dpt_layers": (0, 1, 2, 3),
    "dpt_features": 32,
    "dpt_channels": (32, 64, 96, 96),
    "heads": ("camera", "depth", "points"),
}


@dataclass(frozen=True)
class Case:
    """A timed case.

    Attributes:
        title: Row of the report.
        sizes: Arguments of the network.
        shape: Height and width in pixels.
        num_frames: Frames per training step. 0: streaming steps with a full memory.
        steps: Steps per round.
        dtype: Number format of this version. The other version runs in float32.
    """

    title: str
    sizes: dict
    shape: tuple[int, int]
    num_frames: int
    steps: int
    dtype: str = "float32"


CASES = {
    "small": Case("streaming step, embed_dim 384, 6 + 6 blocks, 224×168", SMALL, (168, 224), 0, 4),
    "tiny": Case("streaming step, embed_dim 192, 4 + 4 blocks, 112×84", TINY, (84, 112), 0, 20),
    "small-bfloat16": Case(
        "streaming step, embed_dim 384, 6 + 6 blocks, 224×168, bfloat16", SMALL, (168, 224), 0, 4, "bfloat16"
    ),
    "train": Case("training step, embed_dim 384, 6 + 6 blocks, 10 frames of 154×112", SMALL, (112, 154), 10, 1),
    "train-tiny": Case("training step, embed_dim 192, 4 + 4 blocks, 10 frames of 112×84", TINY, (84, 112), 10, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="checkout of the other version")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(CASES[arguments.worker], Path(arguments.weights), arguments.dtype)
    rows = [compare(name, arguments.other, arguments.rounds) for name in arguments.case]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report(rows), encoding="utf-8")


def compare(name: str, other: Path, rounds: int) -> str:
    """Run both versions in turns. Return a row of the report."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        here = Path(__file__).resolve().parents[1]
        workers = [Worker(name, other.resolve(), weights, "float32"), Worker(name, here, weights, CASES[name].dtype)]
        pairs = [[worker.ask() for worker in workers] for _ in range(rounds)]
        for worker in workers:
            worker.end()
    ratio = statistics.median(before["ms"] / after["ms"] for before, after in pairs)
    before, after = (statistics.median(pair[side]["ms"] for pair in pairs) for side in (0, 1))
    memory = [max(pair[side]["mb"] for pair in pairs) for side in (0, 1)]
    difference = max(
        abs(a - b) / max(abs(a), 1e-9)
        for first, second in pairs
        for a, b in zip(first["values"], second["values"], strict=True)
    )
    row = (
        f"| {CASES[name].title} | {before:.1f} | {after:.1f} | {ratio:.2f} | {memory[0]:.0f} | {memory[1]:.0f} "
        f"| {difference:.1e} |"
    )
    print(row, flush=True)
    return row


class Worker:
    """Process with one version of the package."""

    def __init__(self, name: str, checkout: Path, weights: Path, dtype: str):
        command = [sys.executable, __file__, ".", "--worker", name, "--weights", str(weights), "--dtype", dtype]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def ask(self) -> dict:
        print("round", file=self._process.stdin, flush=True)
        return self._read()

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args}: expected a result, the process ended. See its messages above.")
        return json.loads(line)


def work(case: Case, weights: Path, dtype: str) -> None:
    """Answer every line of the input with the time of a round."""
    import torch

    torch.set_num_threads(1)
    model = load(case, weights, getattr(torch, dtype))
    step = training_step(model, case) if case.num_frames else streaming_step(model, case)
    step()
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        begun = time.process_time()
        for _ in range(case.steps):
            values = step()
        ms = (time.process_time() - begun) / case.steps * 1e3
        print(json.dumps({"ms": ms, "mb": peak_mb(), "values": values}), flush=True)


def load(case: Case, weights: Path, dtype):
    """Load the network as users do, with the weights of the version that comes first."""
    import torch

    from streamvggt import StreamVGGT, load_model

    torch.manual_seed(0)
    model = StreamVGGT(**case.sizes, layer_scale=0.5)
    if weights.exists():
        model.load_state_dict(torch.load(weights))
    else:
        torch.save(model.state_dict(), weights)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_model(folder, dtype=dtype)


def streaming_step(model, case: Case):
    """Return a function that pushes the next frame of a stream with a full memory."""
    import torch

    from streamvggt import StreamSession
    from streamvggt.stream.policy import parse_policy

    policy = "frame-diversity:9"
    try:
        session = StreamSession(model, policy=parse_policy(policy))
    except ValueError:
        session = StreamSession(model, policy=parse_policy(NAMES[policy]))
    images = torch.rand(16, 3, *case.shape, generator=torch.Generator().manual_seed(1))
    frames = iter(range(10**9))

    def step() -> list[float]:
        prediction = session.push(images[next(frames) % len(images)])
        return [prediction.depth.mean().item(), prediction.pose_enc.abs().sum().item()]

    for _ in range(12):
        step()
    return step


def training_step(model, case: Case):
    """Return a function that distills one batch: forward, loss, backward, clipping, AdamW."""
    import hydra
    import torch
    from omegaconf import OmegaConf

    from streamvggt.losses.target import Target

    images = torch.rand(1, case.num_frames, 3, *case.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        known = model(images).map(lambda x: x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    settings = OmegaConf.load("config/loss/distill.yaml")
    settings.track.weight = 0.0
    criterion = hydra.utils.instantiate(settings)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> list[float]:
        result = criterion(model(images, heads=criterion.heads), Target(known))
        result.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return [result.total.item(), norm.item()]

    return step


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def report(rows: list[str]) -> str:
    import torch
    from environment_info import signed

    return signed(
        [
            "# This version beside an earlier version",
            "",
            "Medians of processor time per step, one thread. The ratio is the median over pairs of rounds.",
            "",
            "| step | before, ms | now, ms | before / now | peak before, MB | peak now, MB | relative difference |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ],
        torch.device("cpu"),
    )


if __name__ == "__main__":
    main()

"""Common parts of the sections of benchmarks/gpu.py: sizes, clock, checks, and a report written line by line."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from environment_info import signed
from roofline import synchronize

from streamvggt import VGGT, StreamSession, load_model
from streamvggt.provenance import describe_machine
from streamvggt.stream import static_step

HEADS = ("camera", "depth", "points")
TOY = {  # of "random:small", so that every section takes a second on a CPU
    "image_size": 56,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "encoder_depth": 1,
    "encoder_num_heads": 3,
    "camera_trunk_depth": 1,
    "camera_num_heads": 3,
    "camera_iterations": 2,
    "dpt_layers": (0, 0, 1, 1),
    "dpt_features": 8,
    "dpt_channels": (8, 8, 8, 8),
    "track_features": 16,
    "track_levels": 2,
    "track_dim": 16,
    "track_depth": 1,
    "track_virtual": 4,
    "track_num_heads": 2,
    "track_iterations": 1,
}


@dataclass
class Bench:
    """A run on one device.

    Attributes:
        rates: Measured FLOPs and bytes per second, after the first section.
        failures: Names of the failed checks.
    """

    device: torch.device
    file: TextIO
    rehearse: bool = False
    compiled: bool = False
    failures: list[str] = field(default_factory=list)
    rates: Any = None
    started: float = 0.0
    _limit: float = 0.0

    @classmethod
    @contextmanager
    def writing_to(cls, out: Path, device: torch.device, **options) -> Iterator["Bench"]:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", encoding="utf-8") as file:
            bench = cls(device, file, **options)
            bench.write("# Rehearsal with toy sizes" if bench.rehearse else "# Ten minutes on a GPU")
            bench.write(f"\n{describe_machine(device)}")
            steps = static_step.STEP_BUILDERS["compile"]
            if bench.rehearse and device.type == "cpu":  # a step that is recorded is computed as it stands
                static_step.STEP_BUILDERS["compile"] = lambda step: step
            try:
                yield bench
            finally:
                static_step.STEP_BUILDERS["compile"] = steps
                bench.write(signed([], device))

    def write(self, line: str) -> None:
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()

    def check(self, what: str, holds: bool, found: str = "") -> None:
        """Write whether a condition holds. The run fails if it does not."""
        self.write(f"- {'ok' if holds else '**FAILED**'}: {what}{f' ({found})' if found else ''}")
        if not holds:
            self.failures.append(what)

    def begin(self, seconds: float) -> None:
        self.started, self._limit = time.perf_counter(), seconds

    @property
    def is_over(self) -> bool:
        """Return whether the time limit of this section has passed. A rehearsal has no limits."""
        return not self.rehearse and time.perf_counter() - self.started > self._limit

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def recorded(self) -> str:
        """Return the name of the captured step mode. On a CPU, the step is prepared but not captured."""
        return "cuda_graph" if self.on_cuda else "compile"

    def network(
        self, dtype: torch.dtype = torch.bfloat16, heads=HEADS, weights: str = "random:full", **options
    ) -> VGGT:
        """Return a network of the released size, or a toy network."""
        if self.rehearse:
            weights, options = "random:small", {**TOY, **options}
        return load_model(weights, heads=heads, dtype=dtype, device=options.pop("device", self.device), **options)

    def images(self, number: int, height: int = 392, width: int = 518) -> list[torch.Tensor]:
        """Return random images on the device. (3, H, W) each"""
        if self.rehearse:
            height, width = 28, 42
        generator = torch.Generator().manual_seed(0)
        return [torch.rand(3, height, width, generator=generator).to(self.device) for _ in range(number)]

    def milliseconds(self, call: Callable[[], object], times: int = 10, warm: bool = True) -> float:
        """Return the median time of calls, each with a synchronization. Warm calls exclude the first one."""
        spent = []
        if warm:
            call()
        for _ in range(min(times, 2) if self.rehearse else times):
            synchronize(self.device)
            begun = time.perf_counter()
            call()
            synchronize(self.device)
            spent.append(time.perf_counter() - begun)
        return statistics.median(spent) * 1e3

    def allocated(self) -> tuple[float, float]:
        """Return the GB allocated and reserved on the device."""
        if not self.on_cuda:
            return 0.0, 0.0
        return torch.cuda.memory_allocated(self.device) / 1e9, torch.cuda.memory_reserved(self.device) / 1e9

    def peak(self) -> tuple[float, float]:
        """Return the maximum GB allocated and reserved since `forget_peak`."""
        if not self.on_cuda:
            return 0.0, 0.0
        return torch.cuda.max_memory_allocated(self.device) / 1e9, torch.cuda.max_memory_reserved(self.device) / 1e9

    def forget_peak(self) -> None:
        self.free()
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def free(self) -> None:
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()


def frame_times(session: StreamSession, number: int) -> tuple[float, float]:
    """Return median and 95th percentile of the latest frames in milliseconds, by the clock of the device."""
    times = sorted(timer.milliseconds() for timer in list(session.times)[-number:])
    return statistics.median(times), times[min(round(0.95 * len(times)), len(times) - 1)]

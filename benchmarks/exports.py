"""Time of each export of a result, in milliseconds per frame.

    python benchmarks/exports.py --frames 100 --out out/exports.md
    python benchmarks/exports.py --frames 100 --threads 4    # on free cores

The result has frames of 518×294 with smooth surfaces, steps and noise, and original images of 1080p. Each export reads
the result again, as `streamvggt export --formats NAME` does. Exports that share the point cloud cost less together.
"""

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from environment_info import output_path, publish
from pipeline import HEIGHT, SIZE, WIDTH, write_inputs

from streamvggt.export import EXPORTERS, ExportOptions, ReconstructionResult, ResultWriter, merged_points
from streamvggt.export.points import confidence_threshold
from streamvggt.export.video import color_ranges
from streamvggt.flags import whole
from streamvggt.prediction import Prediction
from streamvggt.stream.frames import load_frames
from streamvggt.stream.preprocess import compute_placement
from streamvggt.stream.read_ahead import read_ahead
from streamvggt.words import counted

DEFAULT = ("glb", "ply", "tum", "depth", "video")  # of `streamvggt reconstruct`
OTHERS = ("colmap", "nerfstudio", "rerun", "mesh")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole(), default=100, help="number of frames (default: 100)")
    parser.add_argument("--threads", type=whole(), default=1, help="threads of the exports (default: 1)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    width, height = compute_placement((WIDTH, HEIGHT), size=SIZE).canvas_size
    with tempfile.TemporaryDirectory() as folder:
        write_result(Path(folder), arguments.frames)
        options = ExportOptions()
        torch.set_num_threads(1)
        threads = {"run_tasks": partial(read_ahead, num_threads=arguments.threads)} if arguments.threads > 1 else {}
        parts: dict[str, Callable[[ReconstructionResult], object]] = {
            "reading of all frames": lambda result: [len(frame.image) for frame in result],
            "confidence threshold": partial(confidence_threshold, options=options),
            "color ranges of the video": color_ranges,
            "point cloud": partial(merged_points, options=options),
        }
        for name in (*DEFAULT, *OTHERS):
            parts[f"`{name}`"] = partial(export, [name], folder=Path(folder) / name, options=options)
        everything = partial(export, DEFAULT, folder=Path(folder) / "default", options=options)
        parts[f"`{','.join(DEFAULT)}` (default of `reconstruct`)"] = everything
        first = replace(options, frames=(0, 2, None))
        export([*DEFAULT, *OTHERS], ReconstructionResult(folder), Path(folder) / "imports", first)  # imports packages
        lines = [
            "# Exports",
            "",
            f"Exports of {arguments.frames} frames of {width}×{height}, originals of {WIDTH}×{HEIGHT}, in "
            f"{counted(arguments.threads, 'thread')}. Milliseconds per frame.",
            "",
            "| export | CPU | wall |",
            "|---|---|---|",
        ]
        for name, part in parts.items():
            cpu, wall = seconds(part, ReconstructionResult(folder, **threads))
            lines.append(f"| {name} | {cpu / arguments.frames * 1e3:.1f} | {wall / arguments.frames * 1e3:.1f} |")
    publish(lines, arguments.out, torch.device("cpu"))


def write_result(folder: Path, number: int) -> None:
    """Write a result of many frames from ten images."""
    (folder / "inputs").mkdir()
    photos = write_inputs(folder / "inputs", 10, 1)["1080p JPEG folder"]
    frames = list(load_frames(photos, size=SIZE))
    height, width = frames[0].image.shape[1:]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    noise = torch.rand(height, width, generator=torch.Generator().manual_seed(0))
    surface = 2 + y + 0.5 * torch.sin(6 * x) + (torch.sin(20 * x) > 0.8) + 0.003 * noise
    conf = 1 + torch.sin(math.pi * x) + 0.1 * noise
    writer = ResultWriter(folder, durable=False)
    for k in range(number):
        pose = torch.tensor([[[0.01 * k, 0, 0, 0, 0, 0, 1, 1.0, 1]]])
        depth = surface.roll(2 * k, 1)[None, None, ..., None]
        frame = replace(frames[k % 10], index=k, name=f"{k:04d}")
        writer.add(frame, Prediction((height, width), pose_enc=pose, depth=depth, depth_conf=conf[None, None]))


def export(names: list[str], result: ReconstructionResult, folder: Path, options: ExportOptions) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        EXPORTERS[name](result, folder, options)


def seconds(part: Callable[[ReconstructionResult], object], result: ReconstructionResult) -> tuple[float, float]:
    """Return processor and wall time. The result is new, so that no cloud is kept of it."""
    begun = time.process_time(), time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # no progress bars
        part(result)
    return time.process_time() - begun[0], time.perf_counter() - begun[1]


if __name__ == "__main__":
    main()

"""Speed of `streamvggt reconstruct` around the network: reading, preparing and writing with an instant network.

    git worktree add ../before 907cfed
    python benchmarks/pipeline.py --before ../before --cores 0 --out benchmarks/pipeline.md

The network returns a stored prediction at once, so the frame rate is the upper limit for any network. The inputs are a
folder of 1080p JPEG images and a 1080p H.264 video of the bundled clip. Frames and images are written, other exports
are not. Every run is a process of its own. The runs of both versions alternate.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
import torch
from environment_info import output_path, publish
from PIL import Image

from streamvggt.flags import some_path, whole

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, SIZE = 1920, 1080, 518


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=some_path, help="working tree of an earlier commit to compare with")
    parser.add_argument("--cores", default="0", help="processor cores to run on, such as 0,1 (default: 0)")
    parser.add_argument("--photos", type=whole(), default=100, help="number of JPEG images (default: 100)")
    parser.add_argument("--video", type=whole(), default=150, help="number of video frames (default: 150)")
    parser.add_argument("--rounds", type=whole(), default=3, help="runs of each version (default: 3)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    versions = {"before": (arguments.before, [])} if arguments.before else {}
    versions |= {"after": (ROOT, []), "after, `--fast-resize`": (ROOT, ["--fast-resize"])}
    cores = [int(core) for core in arguments.cores.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), arguments.photos, arguments.video)
        found = defaultdict(list)
        for name, path in inputs.items():
            for _ in range(arguments.rounds):
                for version, (tree, flags) in versions.items():
                    found[name, version].append(measure(tree, path, cores, flags))
    lines = [
        "# Pipeline around the network",
        "",
        f"`streamvggt reconstruct` with an instant network, {WIDTH}×{HEIGHT} to {SIZE}×294, on the cores "
        f"{arguments.cores}. Medians of {arguments.rounds} runs.",
        "",
        "| input | version | frames/s | CPU ms per frame | reading and preparing, CPU ms | writing, CPU ms |",
        "|---|---|---|---|---|---|",
    ]
    for (name, version), runs in found.items():
        values = [median(run[key] for run in runs) for key in ("fps", "cpu_ms", "read_ms", "write_ms")]
        lines.append(f"| {name} | {version} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    publish(lines, arguments.out, torch.device("cpu"))


def write_inputs(folder: Path, num_photos: int, num_frames: int) -> dict[str, Path]:
    """Write the clip, enlarged and with sensor noise, as JPEG images and as H.264 video."""
    with av.open(str(ROOT / "assets" / "clip.mp4")) as clip:
        small = [picture.to_ndarray(format="rgb24") for picture in islice(clip.decode(video=0), 40)]
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3))
    large = [cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for image in small]
    large = [(image + np.roll(noise, 100 * k, 1)).clip(0, 255).astype(np.uint8) for k, image in enumerate(large)]
    photos, video = folder / "photos", folder / "clip.mp4"
    photos.mkdir()
    for number, image in enumerate(islice(cycle(large), num_photos)):
        Image.fromarray(image).save(photos / f"{number:04d}.jpg", quality=90)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in islice(cycle(large), num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return {"1080p JPEG folder": photos, "1080p H.264 video": video}


def measure(tree: Path, source: Path, cores: list[int], flags: list[str]) -> dict[str, float]:
    """Run the worker with the package of a working tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--worker", str(source), ",".join(map(str, cores)), *flags]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def worker(source: str, cores: str, *flags: str) -> None:
    """Measure the whole command, reading alone and writing alone, and print the numbers as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    from streamvggt.cli import main as command
    from streamvggt.cli import reconstruct
    from streamvggt.export import ResultWriter
    from streamvggt.prediction import Prediction
    from streamvggt.stream.frames import load_frames
    from streamvggt.stream.session import StreamSession

    torch.manual_seed(0)
    depth = torch.rand(1, 1, 294, SIZE, 1) + 1
    pose = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1.0, 1]]])
    answer = Prediction((294, SIZE), pose_enc=pose, depth=depth, depth_conf=depth[..., 0] + 1)
    StreamSession.push = lambda *_, **__: answer
    clocks, run_stream = [], reconstruct.run_stream

    def timed(*arguments):
        clocks.append((time.perf_counter(), time.process_time()))
        ended = run_stream(*arguments)
        clocks.append((time.perf_counter(), time.process_time()))
        return ended

    reconstruct.run_stream = timed
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = ["--weights", "random:small", "--device", "cpu", "--size", str(SIZE), "--formats", "none", *flags]
        if command(["reconstruct", source, "--out", str(out), *words]):
            raise SystemExit(1)
        count = len(list((out / "frames").glob("*.npz")))

        some = min(count, 40)
        source_of_all = partial(load_frames, source, size=SIZE, **{flag[2:].replace("-", "_"): True for flag in flags})
        frames = list(source_of_all(max_frames=8))
        begun = time.process_time()
        for _ in source_of_all(max_frames=some):
            pass
        reading = time.process_time() - begun
        writer = ResultWriter(Path(folder) / "again")
        begun = time.process_time()
        for frame in frames:
            writer.add(frame, answer)
        writing = time.process_time() - begun
    (wall, cpu), (wall_end, cpu_end) = clocks
    found = {
        "fps": count / (wall_end - wall),
        "cpu_ms": (cpu_end - cpu) / count * 1000,
        "read_ms": reading / some * 1000,
        "write_ms": writing / len(frames) * 1000,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()

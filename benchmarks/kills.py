"""Results of programs that are killed repeatedly.

    python benchmarks/kills.py --kills 20 --out benchmarks/kills.md

Each program runs once undisturbed. Then it is started in another folder, killed at a random time (SIGKILL, all of
its processes) and restarted as documented, until all kills are done. If it finishes earlier, it starts again in a new
folder. Every result file must equal that of the undisturbed run: the bytes of files, and the tensors of training
states.

Small networks with random weights, on a CPU.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from endurance_stream import NETWORK
from environment_info import output_path, publish
from PIL import Image
from tqdm import tqdm

from procedural_scenes.fixture_clips import world_clips
from streamvggt import VGGT, StreamVGGT
from streamvggt.datasets import get_module
from streamvggt.flags import whole

SOURCE = Path(__file__).parents[1] / "src"
TRACKER = {"track_features": 16, "track_levels": 2, "track_dim": 32, "track_depth": 1, "track_virtual": 4}
NO_RESULT = {"run.json", "inputs.json", "log.jsonl", "config.yaml", "tensorboard"}  # contain times and commands
STREAM = """
import streamvggt.cli.saved_state as program
from streamvggt.cli import main
program.SAVE_INTERVAL, program.MAX_SAVE_TIME_RATIO = 0.05, 0.5
raise SystemExit(main())
"""
TRAINING = [
    "./train.py", "--config-name", "train", "model=tiny_streamvggt", "data=synthetic", "size=28", "num_frames=[2,2]",
    "max_images_per_process=2", "trainer.optim.steps=24", "trainer.optim.warmup_steps=1", "trainer.precision=no",
    "trainer.num_workers=0", "trainer.num_validation_batches=2", "trainer.validate_every=8", "trainer.save_every=2",
]  # fmt: skip
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "26977"]


def programs(work: Path) -> dict[str, Callable[[Path], list]]:
    """Return the commands that start and resume each program in a folder."""
    stream = ["-c", STREAM, "reconstruct", work / "photos", "--weights", work / "student", "--device", "cpu"]
    stream += ["--resume", "--formats", "tum,depth", "--out"]
    training = [*TRAINING, f"teacher_weights={work / 'teacher'}"]
    evaluation = ["eval/video_depth/launch.py", "--weights", work / "student", "--data_root", work / "sets"]
    evaluation += ["--eval_dataset", "bonn", "--device", "cpu", "--output_dir"]
    return {
        "reconstruct": lambda out: [*stream, out],
        "reconstruct --submaps 6,3 --loop-closure": lambda out: [*stream, out, "--submaps", "6,3", "--loop-closure"],
        "train.py": lambda out: [*training, f"output_dir={out}"],
        "train.py, two processes": lambda out: [*TWO, *training, f"output_dir={out}"],
        "video_depth/launch.py": lambda out: [*evaluation, f"{out}/{{data}}"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=whole(), default=20, help="number of kills per program (default: 20)")
    parser.add_argument(
        "--only", nargs="+", type=whole(0, 4), default=range(5), metavar="N", help="indices of programs, from 0"
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        chosen = [list(programs(work).items())[number] for number in arguments.only]
        for number, (name, words) in enumerate(chosen):
            whole_run, killed = work / f"{number}-whole", work / f"{number}-killed"
            began = time.monotonic()
            run(words(whole_run))
            seconds = time.monotonic() - began
            folders = kill_often(words, killed, arguments.kills, seconds, dice, name)
            run(words(folders[-1]))
            compared, different = 0, []
            for folder in folders:
                num_files, found = compare(whole_run, folder)
                compared, different = compared + num_files, different + found
            counts = f"{arguments.kills} | {len(folders)} | {compared} | {len(different)}"
            rows.append(f"| `{name}` | {counts} | {seconds:.0f} |")
            if different:
                print(f"{name}: {', '.join(different[:10])}", file=sys.stderr)
    lines = [
        "# Killed programs",
        "",
        "Killed at any moment of their work, started again until they finish, and compared with an undisturbed run.",
        "",
        "| program | kills | runs | files compared | different | s, undisturbed |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    publish(lines, arguments.out, torch.device("cpu"))
    raise SystemExit(any(row.split("|")[5].strip() != "0" for row in rows))


def prepare(work: Path) -> None:
    """Write networks, photos and a test set."""
    torch.manual_seed(0)
    StreamVGGT(**NETWORK).save_pretrained(work / "student")
    every_head = {name: value for name, value in NETWORK.items() if name != "heads"}
    VGGT(**every_head, **TRACKER).save_pretrained(work / "teacher")
    random_numbers = np.random.default_rng(0)
    (work / "photos").mkdir()
    scene = random_numbers.integers(0, 256, (42, 200, 3), np.uint8)
    for number in range(72):
        left = abs(number % 48 - 24) * 4  # forward and back, so that there are loops
        Image.fromarray(scene[:, left : left + 56]).save(work / "photos" / f"{number:03d}.png")
    get_module("bonn").write(work / "sets", world_clips(5, 6, 42, 56))


def run(words: list) -> None:
    done = subprocess.run([sys.executable, *map(str, words)], **surroundings(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr[-3000:]}")


def kill_often(
    words: Callable[[Path], list], out: Path, num_kills: int, seconds: float, dice: random.Random, name: str
) -> list[Path]:
    """Start and kill a program until all kills are done. Return the result folders."""
    folders, kills = [out], 0
    with tqdm(total=num_kills, desc=name, unit="kill", dynamic_ncols=True) as bar:
        while kills < num_kills:
            folder = folders[-1]
            before = snapshot(folder)
            process = subprocess.Popen(
                [sys.executable, *map(str, words(folder))],
                **surroundings(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None and snapshot(folder) == before:
                time.sleep(0.01)  # while it loads
            time.sleep(dice.uniform(0, seconds / 8))
            for each in [psutil.Process(process.pid), *children(process.pid)] if process.poll() is None else []:
                each.kill()
            status = process.wait()
            if status == -9:
                kills += 1
                bar.update()
            elif status == 0:
                folders.append(out.with_name(f"{out.name}-{len(folders)}"))
            else:
                raise RuntimeError(f"{words(folder)}: exit status {status} after {kills} kills")
    return folders


def children(number: int) -> list[psutil.Process]:
    return psutil.Process(number).children(recursive=True)


def snapshot(folder: Path) -> dict[Path, int]:
    """Return the modification time of each file of a folder."""
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.name != ".lock":
                found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # renamed between the listing and this call
            continue
    return found


def surroundings() -> dict:
    return {"cwd": SOURCE, "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}}


def compare(whole_run: Path, killed: Path) -> tuple[int, list[str]]:
    """Return the number of result files, and the files that differ or exist on one side only."""
    names = [
        {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and not NO_RESULT & set(path.relative_to(folder).parts)
        }
        for folder in (whole_run, killed)
    ]
    different = names[0] ^ names[1]
    for name in names[0] & names[1]:
        if not same(whole_run / name, killed / name):
            different.add(name)
    return len(names[0] | names[1]), sorted(different)


def same(one: Path, other: Path) -> bool:
    if one.suffix == ".pt":
        return equal(*(torch.load(path, weights_only=True) for path in (one, other)))
    if one.suffix == ".npz":  # the archive also contains the time of writing
        arrays = [{name: (a.dtype, a.shape, a.tobytes()) for name, a in np.load(path).items()} for path in (one, other)]
        return arrays[0] == arrays[1]
    return one.read_bytes() == other.read_bytes()


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


if __name__ == "__main__":
    main()

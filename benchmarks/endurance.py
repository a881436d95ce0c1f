"""Stream 50,000 frames in one process, and again in a process that is killed repeatedly.

    python benchmarks/endurance.py --out benchmarks/endurance.md

A small network streams in a child process, which records its resources every 500 frames: CPU time, memory, open files,
threads, Python objects. A second child streams the same frames and is killed (SIGKILL) at random times, also while it
saves its state. The next child continues from the last state on disk. All predictions must be bit-exact to those of the
uninterrupted process.

`pool` is four streams in one pool that are saved together. Child process: endurance_stream.py.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from endurance_stream import IMAGE_SIZE, NOTE_EVERY, POOL, POOL_POLICIES, RECORD
from environment_info import output_path, publish
from tqdm import tqdm

from streamvggt.flags import some_path, whole

NUM_STREAMS = len(POOL_POLICIES)
CHILD = Path(__file__).with_name("endurance_stream.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", nargs="+", default=["window:1,8", "saliency:5,4", POOL], help="policies, or pool")
    parser.add_argument(
        "--frames",
        type=whole(NUM_STREAMS * NOTE_EVERY),
        default=50_000,
        help="number of frames of one stream, or of all streams of a pool",
    )
    parser.add_argument("--killed-frames", type=whole(), default=2_000, help="number of frames of the killed stream")
    parser.add_argument("--kills", type=whole(0), default=6)
    parser.add_argument("--save-every", type=whole(NUM_STREAMS), default=500, help="frames")
    parser.add_argument("--work", type=some_path, help="folder for states and measurements; finished parts are kept")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    if arguments.killed_frames > arguments.frames:
        parser.error(f"--killed-frames: expected at most --frames={arguments.frames}, got {arguments.killed_frames}")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        rows, notes = [], {}
        for memory in arguments.policy:
            share = NUM_STREAMS if memory == POOL else 1
            whole_run, killed = work / memory / "whole", work / memory / "killed"
            save_every = arguments.save_every // share
            run_until(whole_run, memory, arguments.frames // share, save_every)
            notes[memory] = [
                json.loads(line) for line in (whole_run / "notes.txt").read_text(encoding="utf-8").splitlines()
            ]
            if not (killed / "kills.json").exists():
                kills = run_killed(killed, memory, arguments.killed_frames // share, save_every, arguments.kills)
                (killed / "kills.json").write_text(json.dumps(kills), encoding="utf-8")
            kills = json.loads((killed / "kills.json").read_text(encoding="utf-8"))
            rows.append(row(memory, notes[memory], share, kills, compare(whole_run, killed)))
        report(rows, notes, arguments)


def start(folder: Path, memory: str, num_frames: int, save_every: int, *more: str) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, CHILD, memory, "--frames", str(num_frames), *more]
    return subprocess.Popen([*command, "--save-every", str(save_every), "--work", str(folder)])


def run_until(folder: Path, memory: str, num_frames: int, save_every: int) -> None:
    child = start(folder, memory, num_frames, save_every)
    path = folder / "notes.txt"
    with tqdm(total=num_frames, desc=f"{memory}, to the end", unit="frame", dynamic_ncols=True) as bar:
        while child.poll() is None:
            time.sleep(1)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            bar.update((json.loads(lines[-1])["frame"] if lines else 0) - bar.n)
    assert child.returncode == 0


def run_killed(folder: Path, memory: str, num_frames: int, save_every: int, num_kills: int) -> dict[str, int]:
    """Kill the child repeatedly, then let it finish. Return the number of kills by kind."""
    dice = random.Random(0)
    kills = {"at any moment": 0, "while saving": 0}
    answers = folder / "answers.bin"
    for number in tqdm(range(num_kills), desc=f"{memory}, killed", unit="kill", dynamic_ncols=True):
        if number % 2:  # during its second save
            how, file = "while saving", "7" if memory == POOL else "2"
            child = start(folder, memory, num_frames, save_every, "--dies-while-saving", file)
        else:
            how = "at any moment"
            child = start(folder, memory, num_frames, save_every)
            size = answers.stat().st_size if answers.exists() else 0
            while child.poll() is None and (answers.stat().st_size if answers.exists() else 0) <= size:
                time.sleep(0.01)  # while it loads
            time.sleep(dice.uniform(0.2, 4))
            child.send_signal(signal.SIGKILL)
        if child.wait() != -signal.SIGKILL:
            break  # the process has ended
        kills[how] += 1
    run_until(folder, memory, num_frames, save_every)
    return kills


def compare(whole: Path, killed: Path) -> dict[str, int]:
    """Compare all predictions of the killed processes with those of the uninterrupted one."""
    expected = dict(records(whole))
    found = list(records(killed))
    frames = {frame for frame, _ in found}
    assert frames == set(range(len(frames)))
    return {
        "frames": len(frames),
        "again": len(found) - len(frames),
        "different": sum(expected[frame] != digest for frame, digest in found),
    }


def records(folder: Path) -> list[tuple[int, bytes]]:
    data = (folder / "answers.bin").read_bytes()
    return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))


def row(memory: str, notes: list[dict], share: int, kills: dict[str, int], compared: dict[str, int]) -> str:
    settled = notes[len(notes) // 10 :]

    def span(what: str, scale: float = 1, digits: int = 0) -> str:
        values = [note[what] / scale for note in settled]
        low, high = min(values), max(values)
        return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"

    tenths = np.array_split([note["ms"] for note in notes], 10)
    times = [float(np.median(tenth)) for tenth in tenths if len(tenth)]
    times = times[1:] or times
    cells = [
        f"`{memory}`",
        f"{notes[-1]['frame'] * share:,}",
        f"{min(times):.2f} to {max(times):.2f} (±{(max(times) - min(times)) / (max(times) + min(times)) * 100:.1f} %)",
        span("rss", 1e6, 1),
        span("files"),
        span("threads"),
        span("objects"),
        span("memory", 1e3, 1),
        f"{kills['at any moment']} + {kills['while saving']}",
        f"{compared['frames'] * share:,} + {compared['again'] * share:,}",
        str(compared["different"]),
    ]
    return "| " + " | ".join(cells) + " |"


def report(rows: Sequence[str], notes: dict[str, list[dict]], arguments) -> None:
    lines = [
        f"# Endurance: {arguments.frames:,} frames, and killed processes",
        "",
        f"One process streams images of {IMAGE_SIZE[1]}×{IMAGE_SIZE[0]} pixels with a network of 2 layers and saves "
        f"its state every {arguments.save_every} frames. Minimum and maximum, without the first tenth of the run. ms: "
        "processor time per step without saving, medians of tenths of the run. `pool`: four streams, one step for all, "
        "with " + ", ".join(f"`{policy}`" for policy in POOL_POLICIES) + ".",
        "",
        "A second process streams the same images and is killed and restarted. Kills: at a random time + while it "
        "saves. Its predictions (+ those computed again after a kill) are compared bit-exactly with the first process.",
        "",
        "| policy | frames | ms | process, MB | open files | threads | Python objects | memory of the stream, kB "
        "| kills | compared predictions | different |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    if arguments.out:
        draw(notes, arguments.out.with_suffix(".png"))
        lines += ["", f"![curves]({arguments.out.stem}.png)"]
    publish(lines, arguments.out, torch.device("cpu"))


def draw(notes: dict[str, list[dict]], path: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.5), layout="constrained")
    shown = (("ms", 1, "processor ms per step"), ("rss", 1e6, "process, MB"), ("files", 1, "open files"))
    for axis, (what, scale, title) in zip(axes, (*shown, ("objects", 1, "Python objects")), strict=True):
        for memory, of_memory in notes.items():
            frames = [note["frame"] for note in of_memory]
            axis.plot(frames, [note[what] / scale for note in of_memory], lw=1, label=memory)
        axis.set(xlabel="frame of each stream", title=title)
        axis.set_ylim(0, None)
    axes[0].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()

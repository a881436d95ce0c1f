"""Measure the cost of file sync and checksums.

    python benchmarks/saving.py --out benchmarks/saving.md

Files of the size of stream and training states are written plainly, synced to disk (file and folder), and synced with a
checksum, then verified. The order within a round is random, so that other load affects all equally.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from environment_info import output_path, publish

from streamvggt import files
from streamvggt.files import atomic_write, check_seal
from streamvggt.flags import some_path, whole

SIZES = {"a frame of a result": 1 << 20, "a stream's state": 64 << 20, "a training's state": 512 << 20}
KINDS = ((False, False), (False, True), (True, True))
"""Whether a file is sealed and synced."""
WAYS = ("as it is", "synced", "synced, sealed", "checked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=whole(), default=7)
    parser.add_argument(
        "--folder", type=some_path, help="folder on the disk to measure (default: the temporary folder)"
    )
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, size in SIZES.items():
            state = {"numbers": torch.randint(256, (size,), dtype=torch.uint8)}
            rounds = [round_of(Path(folder) / "state.pt", state) for _ in range(arguments.rounds)]
            median = np.median(rounds, 0)
            rows.append(
                f"| {name} | {size / 1e6:,.0f} MB | " + " | ".join(f"{one * 1e3:,.1f}" for one in median) + " |"
            )
        disk = next(
            (part.fstype for part in psutil.disk_partitions(all=True) if part.mountpoint == mount_of(folder)), "unknown"
        )
    lines = [
        "# Saving: synced and sealed",
        "",
        f"Milliseconds to write with `torch.save` and to check, medians of {arguments.rounds} rounds. File system: "
        f"{disk}. Other load: {load:.1f} processes at the beginning, on {os.cpu_count()} cores.",
        "",
        "| what | size | " + " | ".join(WAYS) + " |",
        "|---" * (2 + len(WAYS)) + "|",
        *rows,
    ]
    publish(lines, arguments.out, torch.device("cpu"))


def round_of(path: Path, state: dict) -> list[float]:
    """Return the seconds of each method."""
    seconds = [0.0] * len(KINDS)
    for place in np.random.default_rng().permutation(len(KINDS)):
        sealed, synced = KINDS[place]
        sync = files.sync
        files.sync = sync if synced else lambda path: None
        began = time.perf_counter()
        with atomic_write(path, sealed=sealed) as unfinished:
            torch.save(state, unfinished)
        seconds[place] = time.perf_counter() - began
        files.sync = sync
        sync(path)  # finish pending writes before the next measurement
    with atomic_write(path, sealed=True) as unfinished:
        torch.save(state, unfinished)
    began = time.perf_counter()
    check_seal(path)
    return [*seconds, time.perf_counter() - began]


def mount_of(folder: str) -> str:
    path = Path(folder).resolve()
    return str(next(parent for parent in (path, *path.parents) if parent.is_mount()))


if __name__ == "__main__":
    main()

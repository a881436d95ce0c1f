"""Measure the processor time from the start of a command to its end.

python benchmarks/cold_start.py --repeats 5
python benchmarks/cold_start.py --repeats 5 --src /path/to/another/checkout/src
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch
from environment_info import output_path, publish

from streamvggt.flags import some_path, whole

SRC = Path(__file__).parents[1] / "src"
COMMANDS = {
    "`import streamvggt`": ["-c", "import streamvggt"],
    "`streamvggt --help`": ["-m", "streamvggt", "--help"],
    "`streamvggt reconstruct --help`": ["-m", "streamvggt", "reconstruct", "--help"],
    "`streamvggt export --help`": ["-m", "streamvggt", "export", "--help"],
    "`streamvggt view --help`": ["-m", "streamvggt", "view", "--help"],
    "`streamvggt demo --help`": ["-m", "streamvggt", "demo", "--help"],
    "`streamvggt data --help`": ["-m", "streamvggt", "data", "--help"],
    "`streamvggt data check --help`": ["-m", "streamvggt", "data", "check", "--help"],
    "`streamvggt evaluate --help`": ["-m", "streamvggt", "evaluate", "--help"],
    "`streamvggt evaluate video_depth --help`": ["-m", "streamvggt", "evaluate", "video_depth", "--help"],
    "`streamvggt train --help`": ["-m", "streamvggt", "train", "--help"],
    "`from streamvggt import load_model`": ["-c", "from streamvggt import load_model"],
    "`load_model('tiny')`": ["-c", "from streamvggt import load_model; load_model('tiny')"],
    "`import torch` (for comparison)": ["-c", "import torch"],
}


def cpu_seconds(words: list[str], src: Path) -> float:
    """Run Python once and return user and system time in seconds."""
    environment = {**os.environ, "PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=whole(), default=5, help="runs per command; the table has the best (default: 5)"
    )
    parser.add_argument("--src", type=some_path, default=SRC, help="source folder to measure (default: this checkout)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    lines = [
        "# Cold start",
        "",
        f"Processor time of a new process in seconds, minimum of {arguments.repeats} runs.",
        "",
        "| command | CPU seconds |",
        "|---|---|",
    ]
    for name, words in COMMANDS.items():
        seconds = min(cpu_seconds(words, arguments.src) for _ in range(arguments.repeats))
        lines.append(f"| {name} | {seconds:.2f} |")
        print(lines[-1], flush=True)
    publish(lines, arguments.out, torch.device("cpu"))


if __name__ == "__main__":
    main()

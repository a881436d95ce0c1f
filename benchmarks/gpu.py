"""Check and measure a GPU in ten minutes: results, synchronizations, time against the lower bound.

    python benchmarks/gpu.py --out benchmarks/gpu-h200.md
    python benchmarks/gpu.py --rehearse --out out/gpu.md    # every section on a CPU, with toy sizes

Each line is written when it is known, so that an interrupted run keeps its results. Exit status 1: a check failed or a
section raised an error. Targets are reported as met or missed and do not change the status.
"""

import argparse
import sys
import time

import torch
from environment_info import output_path
from gpu_bench import Bench
from gpu_correct import agreement, card, waits
from gpu_end import end_to_end, training
from gpu_speed import attention, endurance, peaks, targets

SECTIONS = {  # and the time limit of each section in seconds
    card: 20,
    agreement: 90,
    waits: 30,
    targets: 110,
    attention: 50,
    endurance: 100,
    peaks: 60,
    end_to_end: 60,
    training: 120,
}
WHOLE = 540.0
"""Seconds for all sections; one that is not begun by then is skipped."""


def run(bench: Bench, chosen: list[str]) -> None:
    """Run the sections. An error in one section does not stop the others."""
    started = time.perf_counter()
    for section, seconds in SECTIONS.items():
        if section.__name__ not in chosen:
            continue
        left = WHOLE - (time.perf_counter() - started)
        bench.write(f"\n## {section.__doc__.splitlines()[0].rstrip('.')}\n")
        if left <= 0 and not bench.rehearse:
            bench.write("Skipped: time limit reached.")
            continue
        bench.begin(min(seconds, left))
        try:
            for line in section(bench):
                bench.write(line)
        except Exception as error:
            bench.check(f"section {section.__name__}", False, f"{type(error).__name__}: {error}".splitlines()[0])
        bench.free()
        bench.write(f"\n({time.perf_counter() - bench.started:.0f} s)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=output_path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, on a CPU where there is no GPU")
    parser.add_argument("--only", nargs="*", choices=[section.__name__ for section in SECTIONS], help="sections to run")
    parser.add_argument("--compiled", action="store_true", help="time torch.compile, too, which takes minutes")
    arguments = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.rehearse:
        parser.error("PyTorch sees no CUDA device here; --rehearse runs all sections on a CPU with toy sizes")
    with Bench.writing_to(arguments.out, device, rehearse=arguments.rehearse, compiled=arguments.compiled) as bench:
        run(bench, arguments.only or [section.__name__ for section in SECTIONS])
        bench.write(f"\nFailed: {', '.join(bench.failures) or 'nothing'}.")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())

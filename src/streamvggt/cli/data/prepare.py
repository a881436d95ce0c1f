"""Convert the download of a data set to its prepared folder. Interrupted conversions resume."""

from __future__ import annotations

import argparse

from streamvggt.datasets import get_module, prepare


def run(arguments: argparse.Namespace) -> int:
    if arguments.raw is None:
        print(get_module(arguments.name).__doc__)
        return 0
    if arguments.root is None:
        raise ValueError(f"name ROOT, too: streamvggt data prepare {arguments.name} {arguments.raw} ROOT")
    report = prepare(
        arguments.name, arguments.raw, arguments.root, workers=arguments.workers, only=arguments.scene_pattern
    )
    for scene, reason in report.skipped.items():
        print(f"skipped: {scene}: {reason}")
    print(report)
    if report.failed:
        print("The same command tries the failed ones again.")
    return 1 if report.failed else 0

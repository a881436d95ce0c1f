"""Draw training batches and measure their loading time.

streamvggt data preview train data_root=../data/train
streamvggt data preview finetune_tiny --batches 4 --out rooms.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamvggt.flags import image_path, some_path, whole, word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=word, help="name of a training configuration: train, finetune, …")
    parser.add_argument(
        "overrides", type=word, nargs="*", metavar="NAME=VALUE", help="configuration overrides, as for training"
    )
    parser.add_argument(
        "--config-dir", type=some_path, help="configuration folder (default: config/, ../config/, or the bundled one)"
    )
    parser.add_argument("--samples", type=whole(), default=2, metavar="N", help="samples per data set (default: 2)")
    parser.add_argument(
        "--batches", type=whole(), metavar="N", help="draw the first N training batches instead of --samples"
    )
    parser.add_argument(
        "--out", type=image_path, default=Path("data_preview.png"), help="output image (default: data_preview.png)"
    )

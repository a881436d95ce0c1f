"""Processor time of decoding a 1080p H.264 video and of resizing its frames, and how far other filters are from ours.

    python benchmarks/decoding.py --out out/decoding.md

The network sees frames that Pillow resizes from RGB of the original size. The table compares the same frames from
FFmpeg's swscale, straight from the decoder's YUV to the size of the network, and from `--fast-resize`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from environment_info import output_path, publish
from PIL import Image
from pipeline import HEIGHT, SIZE, WIDTH, write_inputs

from streamvggt.export.writer import encode_jpeg
from streamvggt.flags import whole
from streamvggt.stream.preprocess import compute_placement

FILTERS = ("FAST_BILINEAR", "BILINEAR", "BICUBIC", "AREA")  # of swscale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole(), default=24, help="number of frames (default: 24)")
    parser.add_argument(
        "--rounds", type=whole(), default=3, help="repetitions, of which the fastest counts (default: 3)"
    )
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        video = write_inputs(Path(folder), 1, arguments.frames)["1080p H.264 video"]

        def measure(work: Callable[[], list]) -> tuple[float, list]:
            """Return the milliseconds per frame and the frames."""
            spent = []
            for _ in range(arguments.rounds):
                begun = time.process_time()
                made = work()
                spent.append(time.process_time() - begun)
            return min(spent) / arguments.frames * 1e3, made

        rows = [("decode H.264", *measure(lambda: decoded(video, arguments.frames)))]
        pictures = rows[0][2]
        rows.append(("YUV to RGB", *measure(lambda: [picture.to_ndarray(format="rgb24") for picture in pictures])))
        originals = rows[1][2]
        placement = compute_placement((WIDTH, HEIGHT), size=SIZE)
        size = placement.canvas_size
        images = [Image.fromarray(original) for original in originals]
        ours = measure(lambda: [placement.render(image) for image in images])
        rows.append(("RGB to the input of the network (Pillow, bicubic)", *ours))
        fast = measure(lambda: [placement.render_fast(original) for original in originals])
        rows.append(("the same with `--fast-resize`", *fast))
        for name in FILTERS:
            scaler = VideoReformatter()
            scaled = measure(lambda name=name, scaler=scaler: [resized(scaler, p, size, name) for p in pictures])
            rows.append((f"YUV to the input of the network (swscale, {name})", *scaled))
        rows.append(("original image to JPEG", *measure(lambda: [encode_jpeg(original) for original in originals])))
    lines = [
        "# Decoding",
        "",
        f"{arguments.frames} frames of {WIDTH}×{HEIGHT} to {size[0]}×{size[1]}, one thread. Minimum of "
        f"{arguments.rounds} repetitions.",
        "",
        "| stage | CPU ms per frame | mean difference | largest | values changed |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {ms:.1f} | {difference(made, ours[1])} |" for name, ms, made in rows]
    publish(lines, arguments.out, torch.device("cpu"))


def decoded(video: Path, number: int) -> list[av.VideoFrame]:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return list(islice(container.decode(stream), number))


def resized(scaler: VideoReformatter, picture: av.VideoFrame, size: tuple[int, int], name: str) -> np.ndarray:
    width, height = size
    return scaler.reformat(picture, width=width, height=height, format="rgb24", interpolation=name).to_ndarray()


def difference(made: list, expected: list[np.ndarray]) -> str:
    """Return the cells of a table: how far images are from the expected ones, in levels of 255."""
    if not isinstance(made[0], np.ndarray) or made[0].shape != expected[0].shape:
        return " | | "
    apart = np.abs(np.stack(made).astype(np.int16) - np.stack(expected))
    return f"{apart.mean():.3f} | {apart.max()} | {(apart > 0).mean():.2%}"


if __name__ == "__main__":
    main()

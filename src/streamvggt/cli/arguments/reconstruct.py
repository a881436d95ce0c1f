"""Arguments of `streamvggt reconstruct`."""

from __future__ import annotations

import argparse
from typing import get_args

from streamvggt.choices import DtypeName, KVCacheDtype, StepMode
from streamvggt.cli.arguments.exports import add_export_arguments
from streamvggt.flags import real, some_path, whole, word
from streamvggt.model.checkpoints import MODEL_IDS
from streamvggt.stream.policy import DEFAULT_POLICY
from streamvggt.stream.run_flags import add_device, add_policy, add_submaps

LOW_MEMORY_PRESET = {"policy": "window:1,8", "kv_cache_dtype": "int8", "dtype": "half"}
TRAINED_LENGTH = 320
"""Maximum number of frames per training sequence of LingBot-Map."""
TRAINED_WINDOWS = "320,16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s INPUT [options]"
    parser.epilog = "example: streamvggt reconstruct clip.mp4 --weights lch01/StreamVGGT"
    parser.add_argument(
        "input", metavar="INPUT", type=word, help="image folder, glob pattern, video file, webcam number or URL"
    )
    parser.add_argument("--out", type=some_path, help="output folder (default: results/ and the name of the input)")
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run in --out")
    parser.add_argument(
        "--clips",
        action="store_true",
        help="reconstruct all clips of a folder or of a .txt file to folders in --out, split over the processes of "
        "`accelerate launch`",
    )
    add_network_arguments(parser.add_argument_group("network"))
    add_frame_arguments(parser.add_argument_group("frames"))
    add_export_arguments(parser, default="glb,ply,tum,depth,video")


def add_network_arguments(network: argparse._ArgumentGroup) -> None:
    """Add the flags of the network and its memory."""
    network.add_argument(
        "--weights",
        type=word,
        default="tiny",
        help=f"file, folder, Hugging Face id ({', '.join(MODEL_IDS)}; docs/checkpoints.md), or tiny, the bundled "
        "small model (default: tiny)",
    )
    network.add_argument(
        "--heads", type=word, default="camera,depth", help="heads to run: camera,depth,points (default: camera,depth)"
    )
    add_policy(network, None, f"{DEFAULT_POLICY}; all with --submaps; LingBot-Map: its own")
    network.add_argument(
        "--kv-cache-dtype",
        choices=get_args(KVCacheDtype),
        help="number format of the KV cache; int8 halves its size (default: auto)",
    )
    network.add_argument(
        "--low-memory",
        action="store_true",
        help="preset for small GPUs: {policy} {kv_cache_dtype}, and half precision if the device "
        "supports it; other flags take precedence".format(
            policy=f"--policy {LOW_MEMORY_PRESET['policy']}",
            kv_cache_dtype=f"--kv-cache-dtype {LOW_MEMORY_PRESET['kv_cache_dtype']}",
        ),
    )
    network.add_argument(
        "--step-mode",
        choices=get_args(StepMode),
        default="eager",
        help="execution once the memory is full; compile needs minutes for the first frame (default: eager)",
    )
    add_submaps(network, f"one stream; LingBot-Map: {TRAINED_WINDOWS} for more than {TRAINED_LENGTH} frames")
    add_device(network)
    network.add_argument(
        "--dtype",
        choices=("auto", *get_args(DtypeName)),
        help="computation dtype (default: bfloat16 on CUDA and for large networks on CPUs with AVX512-BF16 or AMX, "
        "else float32)",
    )
    network.add_argument(
        "--attention",
        choices=("sdpa", "flash"),
        default="sdpa",
        help="attention kernel: of PyTorch, or of the package flash-attn (default: sdpa)",
    )


def add_frame_arguments(frames: argparse._ArgumentGroup) -> None:
    """Add the flags that select and resize frames."""
    frames.add_argument("--fps", type=real(1e-3, 1e3), help="frames per second of a video or camera (default: all)")
    frames.add_argument("--stride", type=whole(), default=1, help="take every n-th frame (default: 1)")
    frames.add_argument("--max-frames", type=whole(), help="maximum number of frames (default: all)")
    frames.add_argument(
        "--size", type=whole(1, 16_384), help="model input width in pixels (default: training resolution)"
    )
    frames.add_argument(
        "--resize-mode", choices=("crop", "pad"), default="crop", help="how to fit images to --size (default: crop)"
    )
    frames.add_argument(
        "--fast-resize",
        action="store_true",
        help="resize in a fifth of the time; single pixels differ by 1/255 from the reference implementation",
    )
    frames.add_argument("--strict", action="store_true", help="stop at unreadable frames instead of skipping them")

"""Arguments of the evaluation programs.

This module imports neither PyTorch nor the programs, so that `streamvggt evaluate PROTOCOL --help` is fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from streamvggt.choices import CO3D_CATEGORIES, DEPTH_ALIGNMENTS, SCENE_TYPES, DtypeName
from streamvggt.flags import real, some_path, whole, word
from streamvggt.stream.policy import POLICY_NAMES
from streamvggt.stream.run_flags import add_device, add_policy, add_submaps

MODELS = {"streamvggt": (True, "../ckpt/checkpoints.pth"), "vggt": (False, "../ckpt/model.pt")}
"""Attention of each model, and path of its released weights relative to src/."""

VIDEO_ALIGNMENTS = ("scale", "scale&shift", "metric", "scale_exact", "scale&shift_exact")


@dataclass(frozen=True)
class ProtocolArguments:
    """Arguments of an evaluation protocol.

    Args:
        title: First words of --help.
        add: Adds the flags of the protocol. Arguments: parser, whether to predict, whether to score.
    """

    title: str
    add: Callable[[argparse.ArgumentParser, bool, bool], None]

    def parser(self, predict: bool = True, score: bool = True) -> argparse.ArgumentParser:
        """Return the parser of a program that predicts, scores from files, or both."""
        stages = {(True, False): ": predict; resumes an interrupted run", (False, True): ": score what is predicted"}
        parser = argparse.ArgumentParser(description=self.title + stages.get((predict, score), ""))
        self.add(parser, predict, score)
        if predict and score:
            parser.add_argument(
                "--score_only", action="store_true", help="score existing predictions without the model"
            )
        if predict:
            add_network_arguments(parser)
        else:
            parser.add_argument(
                "--model_name", type=word, default="StreamVGGT", help="model name in --output_dir (default: StreamVGGT)"
            )
        parser.set_defaults(score_only=False)
        return parser


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags shared by all evaluations. `ModelRunner.load` reads them."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        type=word,
        help=f"weights, see load_model (default: {', '.join(path for _, path in MODELS.values())})",
    )
    network.add_argument(
        "--model_name", type=word, default="StreamVGGT", help="StreamVGGT or VGGT (default: StreamVGGT)"
    )
    add_device(network)
    network.add_argument(
        "--dtype",
        choices=("auto", *get_args(DtypeName)),
        default="auto",
        help="computation dtype (default: half precision on CUDA)",
    )
    network.add_argument(
        "--inference",
        choices=("stream", "full"),
        help="stream: frame by frame with a KV cache; full: all frames at once (default: stream; VGGT: full)",
    )
    add_policy(network, default="all")
    add_submaps(network, separator="_")
    network.add_argument(
        "--size",
        type=whole(1, 16_384),
        help="longer side of the model input in pixels (default: training resolution, 518)",
    )


def add_scene_arguments(
    parser: argparse.ArgumentParser, output_dir: str, datasets: Sequence[str], more_datasets: Sequence[str] = ()
) -> None:
    """Add the flags that select test sets and scenes.

    Args:
        parser: Parser to extend.
        output_dir: Pattern of the result folder.
        datasets: Test sets of the published results, the default.
        more_datasets: Other supported test sets.
    """
    possible = (*datasets, *more_datasets)
    parser.add_argument(
        "--eval_dataset", nargs="+", choices=possible, default=list(datasets), metavar="NAME",
        help=f"test sets: {', '.join(possible)} (default: {' '.join(datasets)})",
    )  # fmt: skip
    parser.add_argument("--data_root", type=some_path, default="../data/eval", help="root folder of all test sets")
    words = "words in braces are filled in (default: %(default)s)"
    parser.add_argument("--output_dir", type=word, default=output_dir, help=words)
    parser.add_argument(
        "--seq_list", type=word, nargs="+", metavar="SEQUENCE", help="sequences to evaluate (default: all)"
    )


def add_depth_arguments(
    parser: argparse.ArgumentParser,
    predict: bool,
    score: bool,
    *,
    name: str,
    datasets: Sequence[str],
    alignments: Sequence[str],
) -> None:
    """Add the flags of a depth protocol. The first alignment is the default."""
    add_scene_arguments(parser, f"../eval_results/{name}/{{data}}_{{model_name}}", datasets, ("scannet",))
    if predict:
        parser.add_argument("--stride", type=whole(), default=1, help="take every n-th frame of a video (default: 1)")
        parser.add_argument("--crop", action="store_true", help="crop to whole patches instead of a second resize")
        parser.add_argument(
            "--status-file", type=some_path, metavar="FILE", help="file to write the names of complete test sets to"
        )
    elif len(alignments) > 1:
        parser.add_argument(
            "--align", nargs="+", choices=alignments, default=alignments[:1], metavar="NAME",
            help=f"alignments: {', '.join(alignments)} (default: {alignments[0]})",
        )  # fmt: skip
    parser.set_defaults(align=alignments[:1])


def add_trajectory_arguments(parser: argparse.ArgumentParser, predict: bool, score: bool) -> None:
    add_scene_arguments(parser, "../eval_results/trajectory/{data}_{model_name}", ("sintel", "tum", "scannet"))
    parser.add_argument("--pose_eval_stride", type=whole(), default=1, help="take every n-th frame (default: 1)")
    parser.add_argument("--crop", action="store_true", help="crop to whole patches instead of a second resize")


def add_reconstruction_arguments(parser: argparse.ArgumentParser, predict: bool, score: bool) -> None:
    add_scene_arguments(parser, "../eval_results/mv_recon/{model_name}_{ckpt_name}", ("7scenes", "NRGBD"))
    parser.add_argument("--kf_every", type=whole(), help="frame stride (default: 200 for 7-Scenes, 500 for NRGBD)")
    parser.add_argument(
        "--revisit", type=whole(), default=1, help="number of passes over the frames; the last pass is scored"
    )
    parser.add_argument("--use_proj", action="store_true", help="use unprojected depth instead of the point head")
    parser.add_argument(
        "--conf_thresh", type=real(0, 1e9), default=0.0, help="minimum confidence of evaluated points (default: 0)"
    )


def add_co3d_arguments(parser: argparse.ArgumentParser, predict: bool, score: bool) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--co3d_dir", type=some_path, required=True, help="image folder: <category>/<sequence>/images")
    data.add_argument(
        "--co3d_anno_dir", type=some_path, required=True, help="folder of the prepared <category>_test.jgz"
    )
    data.add_argument(
        "--category",
        nargs="+",
        choices=CO3D_CATEGORIES,
        metavar="NAME",
        help="categories to evaluate (default: all 41)",
    )
    data.add_argument("--debug", action="store_true", help="evaluate only apple, and only sequences with images")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    frames.add_argument("--num_frames", type=whole(), default=10, help="frames per sequence (default: 10)")
    frames.add_argument(
        "--min_num_images", type=whole(), default=50, help="minimum number of images per sequence (default: 50)"
    )
    frames.add_argument("--fast_eval", action="store_true", help="evaluate ten random sequences per category")
    frames.add_argument(
        "--frame_sampling",
        choices=("global", "per_sequence"),
        default="global",
        help="one random generator for all sequences, or one per sequence, independent of other sequences",
    )
    frames.add_argument(
        "--image_loader",
        choices=("crop", "squash"),
        default="crop",
        help="crop: width --size, height cropped (default); squash: 224×224, distorted, as in the reference "
        "implementation",
    )
    adjustment = parser.add_argument_group("bundle adjustment")
    adjustment.add_argument("--use_ba", action="store_true", help="refine the predicted poses by bundle adjustment")
    adjustment.add_argument(
        "--tracks",
        choices=("auto", "head", "lightglue", "sift"),
        default="auto",
        help="point tracks for --use_ba (default: auto)",
    )
    parser.add_argument(
        "--output_dir",
        type=some_path,
        help="output folder (default: ../eval_results/co3d/<model>_<weights> and non-default settings)",
    )


MONODEPTH = ProtocolArguments(
    "Monocular depth",
    partial(
        add_depth_arguments,
        name="monodepth",
        datasets=("sintel", "bonn", "kitti", "nyu"),
        alignments=("median",),
    ),
)
VIDEO_DEPTH = ProtocolArguments(
    "Video depth",
    partial(
        add_depth_arguments,
        name="video_depth",
        datasets=("sintel", "bonn", "kitti"),
        alignments=VIDEO_ALIGNMENTS,
    ),
)
TRAJECTORY = ProtocolArguments(
    "Camera trajectories on Sintel, TUM-dynamics and ScanNet: ATE and RPE after similarity alignment.",
    add_trajectory_arguments,
)
MV_RECON = ProtocolArguments(
    "Multi-view reconstruction: predicted against ground-truth points of a few frames, on 7-Scenes and Neural RGB-D.",
    add_reconstruction_arguments,
)
CO3D = ProtocolArguments(
    "Relative camera poses on CO3Dv2: ten random frames of each sequence, AUC over all pairs.", add_co3d_arguments
)


def own_parser() -> argparse.ArgumentParser:
    """Return the parser of the evaluation on custom scenes."""
    parser = argparse.ArgumentParser(
        description="Evaluate depth and cameras on custom scenes with ground truth (docs/own-data.md)."
    )
    parser.add_argument("path", type=some_path, help="scene, or folder of scenes")
    parser.add_argument("--stride", type=whole(), default=1, help="take every n-th frame (default: 1)")
    parser.add_argument("--max_frames", type=whole(), help="maximum number of frames per scene (default: all)")
    parser.add_argument(
        "--depth_unit", type=real(1e-9, 1e9), help="scene units per step of 16-bit depth (default: by layout)"
    )
    parser.add_argument("--align", choices=DEPTH_ALIGNMENTS, default="scale", help="depth alignment (default: scale)")
    parser.add_argument(
        "--json", type=some_path, default=Path("own_eval.json"), help="output file (default: own_eval.json)"
    )
    add_network_arguments(parser)
    return parser


def synthetic_parser() -> argparse.ArgumentParser:
    """Return the parser of the evaluation on the procedural world."""
    parser = argparse.ArgumentParser(description="Evaluate checkpoints on held-out scenes of the procedural world.")
    parser.add_argument("weights", type=word, nargs="+", help="files or folders of weights, see load_model")
    parser.add_argument("--frames", type=whole(), default=8)
    parser.add_argument("--sequences", type=whole(), default=64)
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, metavar=("H", "W"), default=(112, 112))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument(
        "--scene-type",
        choices=SCENE_TYPES,
        default="all",
        help="scene type; rooms: training domain of the bundled models (default: all)",
    )
    parser.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        help="override the attention of all weights (default: from their config)",
    )
    parser.add_argument(
        "--policy", type=word, help=f"eviction policy for streaming: {POLICY_NAMES} (default: whole sequences)"
    )
    add_device(parser)
    parser.add_argument("--json", type=some_path, help="output JSON file")
    return parser


def report_parser() -> argparse.ArgumentParser:
    """Return the parser of the report."""
    parser = argparse.ArgumentParser(
        description="HTML report: results next to published results, with settings and figures."
    )
    parser.add_argument("results", type=some_path, help="root folder of all results, usually ../eval_results")
    parser.add_argument("--out", type=some_path, help="output file (default: report.html in the folder)")
    parser.add_argument(
        "--pictures", type=whole(0), default=2, metavar="N", help="sequences with figures per result (default: 2)"
    )
    return parser

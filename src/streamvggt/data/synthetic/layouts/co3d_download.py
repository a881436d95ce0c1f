"""CO3Dv2 as downloaded, of which the evaluation of poses reads images and annotations."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from streamvggt.data.encode import write_image
from streamvggt.data.synthetic.layouts._clips import Clip, Written

FOLDER = "co3d_v2"
CATEGORIES = ("apple", "vase")
FLIP = torch.tensor([-1.0, -1, 1], dtype=torch.float64)
"""PyTorch3D's axes in OpenCV's: x left, y up."""


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The clips in turn to two categories, all frames in the test set; one more sequence is of too low quality."""
    root = out / FOLDER
    written = []
    for place, category in enumerate(CATEGORIES):
        frames, sequences, test = [], [], []
        for number, clip in enumerate(clips[place :: len(CATEGORIES)]):
            sequence = f"110_13051_{23361 + number}"
            sequences.append({"sequence_name": sequence, "category": category, "viewpoint_quality_score": 0.9})
            names = [f"frame{frame + 1:06d}" for frame in range(len(clip))]
            for frame, (name, view) in enumerate(zip(names, clip, strict=True)):
                path = f"{category}/{sequence}/images/{name}.jpg"
                write_image(root / path, view)
                frames.append(
                    {
                        "sequence_name": sequence,
                        "frame_number": frame,
                        "image": {"path": path, "size": list(view.depth.shape)},
                        "viewpoint": _viewpoint(view),
                    }
                )
                test.append([sequence, frame, path])
            written.append(Written(f"{category}/{sequence}", names))
        if not sequences:
            continue
        bad = {"sequence_name": "12_100_593", "category": category, "viewpoint_quality_score": 0.5}
        _write_jgz(root / category / "frame_annotations.jgz", frames)
        _write_jgz(root / category / "sequence_annotations.jgz", [*sequences, bad])
        lists = root / category / "set_lists" / "set_lists_fewview_dev.json"
        lists.parent.mkdir(parents=True, exist_ok=True)
        left_out = ["12_100_593", 0, f"{category}/12_100_593/images/frame000001.jpg"]
        lists.write_text(json.dumps({"train": test[:1], "val": [], "test": [left_out, *test]}), encoding="utf-8")
    return written


def _viewpoint(view) -> dict:
    pose, K = view.cam_from_world.double(), view.intrinsics.double()
    height, width = view.depth.shape
    half = min(height, width) / 2
    # Normalised as PyTorch3D does: the shorter side is -1 … 1, y up.
    principal_point = -(K[:2, 2] + 0.5 - torch.tensor([width, height]) / 2) / half
    return {
        "R": (pose[:, :3].mT * FLIP).tolist(),
        "T": (pose[:, 3] * FLIP).tolist(),
        "focal_length": (K.diagonal()[:2] / half).tolist(),
        "principal_point": principal_point.tolist(),
        "intrinsics_format": "ndc_isotropic",
    }


def _write_jgz(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))

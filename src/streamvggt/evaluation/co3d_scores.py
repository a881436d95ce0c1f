"""Scores of relative poses on CO3Dv2 per sequence, per category and in total, in the format of the reference code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamvggt.datasets._co3d_download import get_cameras
from streamvggt.evaluation.frame_samples import FrameSample
from streamvggt.evaluation.pose_metrics import auc_scores, pose_accuracy, relative_pose_errors

THRESHOLDS = (30, 15, 5, 3)
BOLD, BLUE, PLAIN = "\033[1m", "\033[94m", "\033[0m"


@dataclass(frozen=True)
class PairErrors:
    """Errors in degrees of the relative poses of all frame pairs of a sequence. (M,) each"""

    rotation: Tensor
    translation: Tensor

    @classmethod
    def of(cls, poses: np.ndarray, sample: FrameSample) -> PairErrors:
        return cls(*relative_pose_errors(torch.from_numpy(poses), get_cameras(sample.frames)))


@dataclass(frozen=True)
class PoseScore:
    """Pose errors of a sequence.

    Attributes:
        refined: Errors after bundle adjustment. None without bundle adjustment.
        not_refined: Why the predicted poses were kept; "" if they were refined.
    """

    predicted: PairErrors
    refined: PairErrors | None = None
    not_refined: str = ""


@dataclass(frozen=True)
class PoseSummary:
    """Scores by name: the mean over categories, and the scores of each category and sequence."""

    mean: dict[str, float]
    by_category: dict[str, dict[str, float]]
    by_sequence: dict[str, dict[str, float]]


def summarize_poses(
    scores: Mapping[str, PoseScore], samples: Mapping[str, FrameSample], refined: bool = True
) -> PoseSummary:
    """Compute the AUC of the pooled pairs of each category, and the unweighted mean over categories.

    Args:
        scores: Scores by sequence name.
        samples: Frame samples by sequence name.
        refined: Use the poses after bundle adjustment if available.
    """
    errors: dict[str, dict[str, PairErrors]] = {}
    for name, score in scores.items():
        one = score.refined if refined and score.refined is not None else score.predicted
        errors.setdefault(samples[name].category, {})[name] = one
    by_category = {category: pooled_auc(list(sequences.values())) for category, sequences in errors.items()}
    names = [f"AUC@{threshold}" for threshold in THRESHOLDS]
    mean = {name: float(np.mean([numbers[name] for numbers in by_category.values()])) for name in names}
    by_sequence = {
        name: {
            "R_ACC@5": pose_accuracy(one.rotation, 5),
            "T_ACC@5": pose_accuracy(one.translation, 5),
            **pooled_auc([one]),
        }
        for sequences in errors.values()
        for name, one in sequences.items()
    }
    return PoseSummary(mean, by_category, by_sequence)


def pooled_auc(sequences: Sequence[PairErrors]) -> dict[str, float]:
    """Return the AUC at each threshold over all pairs of some sequences."""
    errors = torch.cat([torch.maximum(one.rotation, one.translation) for one in sequences])
    return auc_scores(errors, THRESHOLDS)


def print_summary(summary: PoseSummary, missing: Sequence[str]) -> None:
    """Print the summary in the format of the reference implementation.

    Args:
        summary: The scores.
        missing: Categories without annotations.
    """
    for category, numbers in summary.by_category.items():
        for name, of_sequence in summary.by_sequence.items():
            if name.partition("/")[0] == category:
                text = "  ".join(f"{key}: {of_sequence[key]:.4f}" for key in ("R_ACC@5", "T_ACC@5"))
                print(f"{category} sequence {name.partition('/')[2]} {text}")
        print("-" * 50)
        print(f"{BOLD}{BLUE}AUC of {category}:{PLAIN} {auc_text(numbers)}")
        print("-" * 50)
    print("\nSummary of AUC results:")
    print("-" * 50)
    for category in sorted(summary.by_category):
        print(f"{category:<15}: {auc_text(summary.by_category[category])}")
    print("-" * 50)
    print(f"Mean AUC: {auc_text(summary.mean)}")
    if missing:
        print(f"The mean is of {len(summary.by_category)} categories; without annotations: {', '.join(missing)}")


def print_refinement(scores: Sequence[PoseScore], without: Mapping[str, float]) -> dict[str, Any]:
    """Print and return the number of refined sequences, and the reasons for the others."""
    reasons = Counter(score.not_refined for score in scores)
    num_refined = reasons.pop("", 0)
    print(f"Without bundle adjustment: {auc_text(without)}")
    print(f"Bundle adjustment refined {num_refined} of {num_refined + reasons.total()} sequences.")
    if reasons:
        print(f"warning: {reasons.total()} keep the network's poses, most of them because:")
        for reason, count in reasons.most_common(5):
            print(f"  {count} × {reason}")
    return {"refined": num_refined, "kept": reasons.total(), "reasons": dict(reasons)}


def auc_text(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.4f} ({name})" for name, value in numbers.items())

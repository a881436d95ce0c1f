"""Small-scale reproduction of the paper's claims: effect of causality, distillation and the camera cache.

    python -m experiments.paper_claims --out results/claims.md

StreamVGGT (arXiv 2507.11539) claims that a causal student distilled from the bidirectional teacher nearly keeps its
quality, that a student without distillation does not, and that streaming equals the full causal pass. Each row of the
table is one of these networks on the same unseen sequences of rooms.
"""

from __future__ import annotations

import argparse
import json

import torch

from streamvggt.evaluation.synthetic import (
    Estimator,
    evaluate,
    held_out_sequences,
    markdown,
    model_estimator,
    static_camera_baseline,
)
from streamvggt.files import atomic_write
from streamvggt.flags import some_path, whole
from streamvggt.model.fingerprint import fingerprint
from streamvggt.model.weights import load_model
from streamvggt.stream.policies.sliding_window import KeepAll


def rows(teacher: str, student: str, measured: str | None, device: str) -> dict[str, Estimator]:
    """Return the estimators by name.

    Args:
        teacher, student, measured: Weights, see `load_model`. `measured` is a student trained on ground truth only.
    """

    def load(weights: str, causal: bool):
        return load_model(weights, causal=causal, device=device)

    distilled = load(student, True)
    made = {
        f"teacher (bidirectional) ({fingerprint(load(teacher, False))})": model_estimator(load(teacher, False)),
        "weights of the teacher, run causally without training": model_estimator(load(teacher, True)),
        f"student, distilled ({fingerprint(distilled)})": model_estimator(distilled),
        '… streamed, `camera_cache="per_iteration"`': model_estimator(distilled, KeepAll()),
        '… streamed, `camera_cache="shared"`': model_estimator(distilled, KeepAll(), "shared"),
    }
    if measured is not None:
        on_truth = load(measured, True)
        made[f"student trained on ground truth only, same budget ({fingerprint(on_truth)})"] = model_estimator(on_truth)
    made["constant depth, static camera"] = static_camera_baseline
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="ckpt/tiny-vggt")
    parser.add_argument("--student", default="ckpt/tiny-streamvggt")
    parser.add_argument("--ground-truth-student", help="weights of a student trained on ground truth only")
    parser.add_argument("--frames", type=whole(), nargs="+", default=(8, 24, 100))
    parser.add_argument(
        "--sequences", type=whole(), nargs="+", default=(64, 24, 8), help="number of sequences per length"
    )
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, metavar=("H", "W"), default=(112, 112))
    parser.add_argument("--scene-type", default="rooms")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out", type=some_path, help="output file of the tables (.md); the numbers are written next to it (.json)"
    )
    arguments = parser.parse_args()
    if len(arguments.frames) != len(arguments.sequences):
        parser.error("--frames and --sequences need as many numbers each")
    estimators = rows(arguments.teacher, arguments.student, arguments.ground_truth_student, arguments.device)
    tables, text = {}, ""
    for num_frames, num_sequences in zip(arguments.frames, arguments.sequences, strict=True):
        batches = held_out_sequences("test", num_sequences, num_frames, *arguments.image_size, arguments.scene_type)
        tables[num_frames] = evaluate(estimators, batches)
        title = f"{num_frames} frames ({num_sequences} test sequences, {arguments.scene_type})"
        text += f"\n**{title}**\n\n{markdown(tables[num_frames])}\n"
        print(f"\n{title}\n\n{markdown(tables[num_frames])}", flush=True)
    if arguments.out:
        for path, content in (
            (arguments.out, text.lstrip()),
            (arguments.out.with_suffix(".json"), json.dumps(tables, indent=2, ensure_ascii=False) + "\n"),
        ):
            with atomic_write(path) as unfinished:
                unfinished.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Relative camera poses on CO3Dv2: ten random frames of each sequence, AUC over all pairs.

    <folder>/<category>/<sequence>.npz   predicted and ground-truth poses of the sampled frames
    <folder>/results.json                AUC of each category, their mean, and the missing categories

S frames.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from streamvggt.choices import CO3D_CATEGORIES
from streamvggt.datasets._co3d_download import get_cameras
from streamvggt.datasets.co3d_annotations import Frame, read_annotations
from streamvggt.evaluation.arguments import CO3D
from streamvggt.evaluation.co3d_scores import PairErrors, PoseScore, print_refinement, print_summary, summarize_poses
from streamvggt.evaluation.frame_samples import FrameSample, sample_frames
from streamvggt.evaluation.images import load_images
from streamvggt.evaluation.jobs import FailureLog, Job, load_prediction, save_arrays
from streamvggt.evaluation.protocol import Protocol, Run, Task
from streamvggt.evaluation.run_metadata import write_json, write_scores
from streamvggt.evaluation.runner import ModelRunner, weights_name

SQUARE_SIZE = 224


@dataclass(frozen=True)
class Co3dTask(Task):
    """Task of all categories.

    Attributes:
        samples: Frame samples by name. The names are the scenes of the task.
        missing: Categories without annotations.
    """

    samples: Mapping[str, FrameSample]
    missing: Sequence[str]


class RelativePoses(Protocol):
    name = "co3d"
    command_line = CO3D
    needs_all_scenes = False

    def validate(self, arguments: argparse.Namespace) -> None:
        if arguments.num_frames < 2:
            raise ValueError(f"--num_frames {arguments.num_frames}: a pair needs two")

    def tasks(self, run: Run) -> list[Task]:
        """Read annotations and sample frames.

        Raises:
            FileNotFoundError: If there are no annotations or images.
            ValueError: If no sequence is long enough.
        """
        arguments = run.arguments
        annotations, missing = read_all(arguments, run.outcome)
        if not annotations:
            raise FileNotFoundError(
                f"{arguments.co3d_anno_dir} has no annotations (<category>_test.jgz) of {missing[0]} or any other "
                "category asked for: make them with `streamvggt data prepare co3d_annotations`, see docs/evaluation.md"
            )
        if not arguments.co3d_dir.is_dir():
            raise FileNotFoundError(f"no folder at {arguments.co3d_dir}, which must contain the images of CO3Dv2")
        samples = sample_frames(
            annotations,
            seed=arguments.seed,
            num_frames=arguments.num_frames,
            min_num_images=arguments.min_num_images,
            fast=arguments.fast_eval,
            per_sequence=arguments.frame_sampling == "per_sequence",
        )
        if not samples:
            raise ValueError(f"no sequence has {arguments.min_num_images} images (--min_num_images)")
        if run.processes.is_main:
            if missing:
                run.outcome.record(f"{len(missing)} categories", f"no annotations of {', '.join(missing)}")
            for sample in samples:
                if not get_cameras(sample.frames).isfinite().all():
                    run.outcome.record(sample.name, "a true camera is not finite; its pairs count as wrong")
        by_name = {sample.name: sample for sample in samples}
        return [Co3dTask("co3d", None, list(by_name), self.folder("co3d", arguments), by_name, missing)]

    def folder(self, dataset: str, arguments: argparse.Namespace) -> Path:
        if arguments.output_dir:
            return arguments.output_dir
        parts = [arguments.model_name, weights_name(arguments)]
        parts += [name for name in ("debug", "fast_eval", "use_ba") if getattr(arguments, name)]
        parts += ["squash"] if arguments.image_loader == "squash" else []
        return Path("../eval_results/co3d") / "_".join(parts)

    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        """Load the model with the heads for poses and, if requested, bundle adjustment."""
        if not arguments.use_ba:
            return ModelRunner.load(arguments, heads=("camera",))
        heads = ("camera", "depth")
        if arguments.tracks in ("auto", "head"):
            try:
                return replace(ModelRunner.load(arguments, heads=(*heads, "track")), heads=heads)
            except ValueError:
                if arguments.tracks == "head":
                    raise
        return ModelRunner.load(arguments, heads=heads)

    def settings(self, task: Co3dTask, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        samples = [(sample.name, sample.ids) for sample in task.samples.values()]
        return {
            "image_loader": arguments.image_loader,
            "size": image_size(network, arguments),
            "seed": arguments.seed,
            "frame_sampling": arguments.frame_sampling,
            "num_frames": arguments.num_frames,
            "min_num_images": arguments.min_num_images,
            "fast_eval": arguments.fast_eval,
            "debug": arguments.debug,
            "categories": arguments.category,
            "use_ba": arguments.use_ba,
            "tracks": arguments.tracks if arguments.use_ba else None,
            # Added or removed annotations change the samples.
            "draws": f"{len(samples)} sequences, {zlib.crc32(repr(samples).encode()):08x}",
        }

    def predictor(self, task: Co3dTask, network: ModelRunner, arguments: argparse.Namespace) -> Callable[[Job], None]:
        refine = None
        if arguments.use_ba:
            # Local import, because only --use_ba requires pycolmap.
            from streamvggt.evaluation.tracks import PoseRefinement

            refine = PoseRefinement(network.model, arguments.tracks)

        def predict(job: Job) -> None:
            frames = task.samples[job.name].frames
            paths = [arguments.co3d_dir / frame["filepath"] for frame in frames]
            size = image_size(network, arguments)
            images = load_images(paths, arguments.image_loader, size, network.model.patch_size)
            prediction = network.predict_sequence(images)
            cameras = prediction.cameras()
            arrays = {"cam_from_world": cameras.cam_from_world[0].float().numpy()}
            if refine is not None:
                arrays |= refine(images, prediction)
            save_arrays(
                job.paths[0],
                intrinsics=cameras.intrinsics[0].float().numpy(),
                gt_cam_from_world=get_cameras(frames).numpy(),
                ids=np.array(task.samples[job.name].ids),
                files=np.array([frame["filepath"] for frame in frames]),
                **arrays,
            )

        return predict

    def score(self, task: Co3dTask, scene: str, arguments: argparse.Namespace) -> PoseScore:
        prediction, sample = load_prediction(self.prediction_path(task, scene)), task.samples[scene]
        files = [frame["filepath"] for frame in sample.frames]
        if prediction["files"].tolist() != files or (arguments.use_ba and "not_refined" not in prediction):
            raise ValueError("its prediction is of other frames or flags; give the flags that it was made with")
        predicted = PairErrors.of(prediction["cam_from_world"], sample)
        if not arguments.use_ba:
            return PoseScore(predicted)
        refined = PairErrors.of(prediction["refined_cam_from_world"], sample)
        return PoseScore(predicted, refined, str(prediction["not_refined"]))

    def summarize(self, task: Co3dTask, scores: Mapping[str, PoseScore], arguments: argparse.Namespace) -> None:
        """Print the summary in the format of the reference implementation and write it as JSON."""
        if not scores:
            return
        summary = summarize_poses(scores, task.samples)
        print_summary(summary, task.missing)
        about: dict[str, Any] = {
            "num_categories": len(summary.by_category),
            "missing_categories": list(task.missing),
        }
        if arguments.use_ba:
            without = summarize_poses(scores, task.samples, refined=False).mean
            about["without_bundle_adjustment"] = without
            about["bundle_adjustment"] = print_refinement(list(scores.values()), without)
        mean, categories, sequences = summary.mean, summary.by_category, summary.by_sequence
        results = {"mean": mean, "categories": categories, "sequences": sequences, **about}
        write_json(task.folder / "results.json", results)
        write_scores(task.folder, "AUC", mean, sequences, categories=categories, data=arguments.co3d_dir, **about)
        print(f"→ {task.folder / 'results.json'}")


main = RelativePoses().main


def read_all(arguments: argparse.Namespace, outcome: FailureLog) -> tuple[dict[str, dict[str, list[Frame]]], list[str]]:
    """Return annotations by category, and the categories without annotations."""
    wanted = ["apple"] if arguments.debug else arguments.category or CO3D_CATEGORIES
    annotations, missing = {}, []
    for category in CO3D_CATEGORIES:
        if category not in wanted:
            continue
        found = None
        with outcome.guard(category, everywhere=True):
            found = read_annotations(arguments.co3d_anno_dir, category)
        if found is None:
            missing.append(category)
            continue
        if arguments.debug:
            found = {name: frames for name, frames in found.items() if (arguments.co3d_dir / category / name).is_dir()}
        annotations[category] = found
    return annotations, missing


def image_size(network: ModelRunner, arguments: argparse.Namespace) -> int:
    """Return the image size of the loader in pixels."""
    if arguments.size is not None:
        return arguments.size
    return SQUARE_SIZE if arguments.image_loader == "squash" else network.size

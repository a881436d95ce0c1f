"""Multi-view reconstruction: predicted against ground-truth points of a few frames, on 7-Scenes and Neural RGB-D.

    <folder>/<set>/<scene>.npz               predictions and images
    <folder>/<set>/<scene>.json              scores of the scene
    <folder>/<set>/<scene>-gt.ply            compared ground-truth points
    <folder>/<set>/<scene>-mask.ply          predicted points before registration
    <folder>/<set>/<scene>-mask_align.ply    predicted points after registration
    <folder>/<set>/<scene>-errors.npz        a sample of the points with distances, for figures
    <folder>/<set>/logs_all.txt, <folder>/logs_all.txt    log in the format of the reference implementation

File names contain "_" instead of the "/" of a scene. S frames · H×W pixels · N, M points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View
from streamvggt.datasets.neural_rgbd import NeuralRGBD
from streamvggt.datasets.seven_scenes import SevenScenes
from streamvggt.evaluation.arguments import MV_RECON
from streamvggt.evaluation.jobs import Job, load_prediction, save_arrays
from streamvggt.evaluation.point_clouds import estimate_normals, icp
from streamvggt.evaluation.protocol import Protocol, Run, Task
from streamvggt.evaluation.recon_clouds import evaluation_clouds, save_clouds
from streamvggt.evaluation.recon_metrics import ReconstructionScore, compare_clouds, mean_line, mean_score, scene_line
from streamvggt.evaluation.recon_views import preprocess_view, view_size
from streamvggt.evaluation.run_metadata import write_json, write_scores
from streamvggt.evaluation.runner import ModelRunner, weights_name
from streamvggt.files import atomic_write
from streamvggt.words import counted

MAX_DISTANCE = 0.1
"""Maximum correspondence distance of the registration in meters."""


@dataclass(frozen=True)
class ReconDataset:
    """A test set and its evaluated frames.

    Attributes:
        stride: Stride of the frames of a scene.
        has_smaller_stride: Whether short scenes use a smaller stride, so that at least two frames remain.
        num_published: Number of scenes in the published results.
    """

    reader: type[DatasetReader]
    stride: int
    has_smaller_stride: bool
    num_published: int

    def frames(self, reader: DatasetReader, scene: str, stride: int | None) -> list[str]:
        names = reader.frames(scene)
        if stride is None:
            stride = max(min(self.stride, len(names) // 2), 1) if self.has_smaller_stride else self.stride
        return names[::stride]


SETS = {"7scenes": ReconDataset(SevenScenes, 200, False, 18), "NRGBD": ReconDataset(NeuralRGBD, 500, True, 9)}


class MultiViewReconstruction(Protocol):
    name = "mv_recon"
    command_line = MV_RECON
    unit = "scene"

    def validate(self, arguments: argparse.Namespace) -> None:
        """Accept all flags, because every test set has a separate output folder."""

    def open_reader(self, dataset: str, data_root: Path) -> DatasetReader:
        return SETS[dataset].reader(data_root / SETS[dataset].reader.folder)

    def scenes(self, reader: DatasetReader, arguments: argparse.Namespace) -> Sequence[str]:
        scenes = super().scenes(reader, arguments)
        empty = [scene for scene in scenes if not reader.frames(scene)]
        if empty or not scenes:
            which = empty[0] if empty else "any scene"
            raise FileNotFoundError(
                f"{reader.root} has no frames of {which}: docs/evaluation.md lists the expected files"
            )
        return scenes

    def folder(self, dataset: str, arguments: argparse.Namespace) -> Path:
        return output_folder(arguments) / dataset

    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        return ModelRunner.load(arguments, heads=("camera", "depth") if arguments.use_proj else ("points",))

    def settings(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        return {
            "view_size": list(view_size(network.size, network.model.patch_size)),
            "kf_every": arguments.kf_every,
            "revisit": arguments.revisit,
            "data": str(task.reader.root.resolve()),
        }

    def prediction_path(self, task: Task, scene: str) -> Path:
        return get_path(task, scene, ".npz")

    def predictor(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> Callable[[Job], None]:
        size = view_size(network.size, network.model.patch_size)

        def predict(job: Job) -> None:
            frames = get_frames(task, job.name, arguments)
            images = torch.stack([view.image for view in read_views(task, job.name, frames, size)])
            prediction = network.predict_sequence(images.repeat(arguments.revisit, 1, 1, 1))
            arrays = prediction.select_frames(slice(-len(frames), None)).standardized().numpy()
            save_arrays(
                job.paths[0],
                images=np.stack([image_array(image) for image in images]),
                frames=np.array(frames),
                **{name: value[0] for name, value in arrays.items()},
            )

        return predict

    def score_all(self, tasks: Sequence[Task], run: Run) -> list[str]:
        log = output_folder(run.arguments) / "logs_all.txt"
        if run.processes.is_main and tasks:
            log.unlink(missing_ok=True)  # left by an earlier run
        texts = super().score_all(tasks, run)
        if texts:
            with atomic_write(log) as path:
                path.write_text("".join(texts), encoding="utf-8")
            print(f"→ {log}")
        return texts

    def score(self, task: Task, scene: str, arguments: argparse.Namespace) -> dict[str, float]:
        """Score a scene and write the scores next to the point clouds."""
        get_path(task, scene, ".json").unlink(missing_ok=True)
        prediction = load_prediction(self.prediction_path(task, scene))
        frames = get_frames(task, scene, arguments)
        if prediction["frames"].tolist() != frames or ("depth" if arguments.use_proj else "points") not in prediction:
            raise ValueError("its prediction is of other frames or heads; give the flags that it was made with")
        views = read_views(task, scene, frames, prediction["images"].shape[2:0:-1])
        clouds = evaluation_clouds(views, prediction, arguments.use_proj, arguments.conf_thresh)
        registration = icp(clouds.estimated, clouds.true, MAX_DISTANCE)
        moved = registration.apply(clouds.estimated)
        result = compare_clouds(moved, clouds.true, estimate_normals(moved), estimate_normals(clouds.true))
        save_clouds(clouds, moved, lambda suffix: get_path(task, scene, suffix))
        about = {"fitness": registration.fitness, "num_points": len(moved), "num_true_points": len(clouds.true)}
        numbers = result.numbers() | about
        write_json(get_path(task, scene, ".json"), numbers)
        return numbers

    def summarize(self, task: Task, scores: Mapping[str, Mapping[str, float]], arguments: argparse.Namespace) -> str:
        """Return the log lines in the format of the reference implementation."""
        by_scene = {scene: ReconstructionScore.of(numbers) for scene, numbers in scores.items()}
        means = mean_score(list(by_scene.values()))
        lines = [*(scene_line(scene, one) for scene, one in by_scene.items()), mean_line(means)]
        text = "".join(f"{line}\n" for line in lines)
        with atomic_write(task.folder / "logs_all.txt") as path:
            path.write_text(text, encoding="utf-8")
        num_published = SETS[task.dataset].num_published
        confident = f", confidence ≥ {arguments.conf_thresh:g}" if arguments.conf_thresh > 0 else ""
        name = ("depth and cameras" if arguments.use_proj else "point head") + confident
        counts = {"num_sequences": len(scores), "num_published": [num_published, None]}
        write_scores(task.folder, name, means, scores, data=task.reader.root, **counts)
        print(f"{task.dataset:8} {lines[-1]}")
        if len(scores) != num_published:
            print(f"{'':8} of {counted(len(scores), 'scene')}; published numbers are of {num_published}")
        return text


main = MultiViewReconstruction().main


def output_folder(arguments: argparse.Namespace) -> Path:
    ckpt_name = weights_name(arguments) + ("_proj" if arguments.use_proj else "")
    return Path(arguments.output_dir.format(model_name=arguments.model_name, ckpt_name=ckpt_name))


def get_path(task: Task, scene: str, suffix: str) -> Path:
    return task.folder / f"{scene.replace('/', '_')}{suffix}"


def get_frames(task: Task, scene: str, arguments: argparse.Namespace) -> list[str]:
    return SETS[task.dataset].frames(task.reader, scene, arguments.kf_every)


def read_views(task: Task, scene: str, frames: Sequence[str], size: tuple[int, int]) -> list[View]:
    return [preprocess_view(task.reader.read(scene, frame), size) for frame in frames]

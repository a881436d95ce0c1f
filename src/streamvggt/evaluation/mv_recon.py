"""Reconstruction of rooms: points of a few frames against the true ones, on 7-Scenes and Neural RGB-D.

    <folder>/<set>/<scene>.npz               what the network says, and the images it saw
    <folder>/<set>/<scene>.json              the scene's numbers
    <folder>/<set>/<scene>-gt.ply            the true points that are compared
    <folder>/<set>/<scene>-mask.ply          the network's, before registration
    <folder>/<set>/<scene>-mask_align.ply    … and after
    <folder>/<set>/<scene>-errors.npz        some of the points with their distances, for pictures
    <folder>/<set>/logs_all.txt, <folder>/logs_all.txt    the published lines

A scene's "/" is "_" in names of files. S frames · H×W pixels · N, M points.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor
from tqdm import tqdm

from streamvggt.data.source import Source
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View
from streamvggt.datasets.neural_rgbd import NeuralRGBD
from streamvggt.datasets.seven_scenes import SevenScenes
from streamvggt.evaluation.chosen import add_data_arguments, chosen_scenes
from streamvggt.evaluation.clouds import estimate_normals, register
from streamvggt.evaluation.network import Evaluated, add_network_arguments, weights_name
from streamvggt.evaluation.processes import Processes
from streamvggt.evaluation.recon_metrics import (
    ReconstructionScore,
    compare_clouds,
    mean_line,
    mean_score,
    nearest,
    normalise_point_maps,
    scene_line,
)
from streamvggt.evaluation.recon_views import compared_part, prepare_view, view_size
from streamvggt.evaluation.record import open_run, read_json, write_json, write_scores
from streamvggt.evaluation.work import Outcome, load_prediction, save_arrays, work_through
from streamvggt.files import atomic_write
from streamvggt.flags import real, whole
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import cameras_from_encoding
from streamvggt.geometry.pointmap import unproject
from streamvggt.words import counted

MAX_DISTANCE = 0.1
"""Metres between points that registration may pair."""
NUM_SHOWN = 20_000
"""Points kept for pictures, of each cloud."""


@dataclass(frozen=True)
class ReconSet:
    """A test set and which of its frames are evaluated.

    stride: of the frames of a scene; a scene with few frames has a smaller one, so that there are two.
    num_published: scenes that published numbers are of.
    """

    reader: type[Source]
    stride: int
    has_smaller_stride: bool
    num_published: int

    def frames(self, reader: Source, scene: str, stride: int | None) -> list[str]:
        names = reader.frames(scene)
        if stride is None:
            stride = max(min(self.stride, len(names) // 2), 1) if self.has_smaller_stride else self.stride
        return names[::stride]


SETS = {"7scenes": ReconSet(SevenScenes, 200, False, 18), "NRGBD": ReconSet(NeuralRGBD, 500, True, 9)}


@dataclass(frozen=True)
class Task:
    """One test set and the folder of its result."""

    dataset: str
    reader: Source
    folder: Path
    frames: dict[str, list[str]]

    def path(self, scene: str, suffix: str) -> Path:
        return self.folder / f"{scene.replace('/', '_')}{suffix}"


def main(argv: Sequence[str] | None = None) -> int:
    """launch.py: predict, then score from the files. The exit status is 1 if a test set or scene is missing."""
    with Processes() as processes:
        return evaluate(parse(argv), processes)


def evaluate(arguments: argparse.Namespace, processes: Processes) -> int:
    outcome = Outcome(processes)
    out = output_folder(arguments)
    tasks = []
    for dataset in arguments.eval_dataset:
        with outcome.of(f"{dataset} is skipped", everywhere=True):
            tasks.append(find_task(dataset, arguments, out))
    predicted = [] if arguments.score_only else predict_all(tasks, arguments, processes, outcome)
    to_score = tasks if arguments.score_only else predicted
    if processes.is_main and to_score:
        (out / "logs_all.txt").unlink(missing_ok=True)  # of an earlier run
    processes.wait()
    done = []
    for task in to_score:
        with outcome.of(task.dataset, everywhere=True):
            if task.folder.is_dir():
                processes.claim(task.folder)
            score(task, arguments, processes, outcome)
        processes.wait()
        if processes.is_main:
            with outcome.of(task.dataset):
                done.append(summarise(task, arguments))
    if done:
        with atomic_write(out / "logs_all.txt") as path:
            path.write_text("".join(done), encoding="utf-8")
        print(f"→ {out / 'logs_all.txt'}")
    return outcome.finish()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_arguments(parser, list(SETS), list(SETS), "../eval_results/mv_recon/{model_name}_{ckpt_name}")
    parser.add_argument("--kf_every", type=whole(), help="stride of frames (default: 200 of 7-Scenes, 500 of NRGBD)")
    parser.add_argument("--revisit", type=whole(), default=1, help="show the frames so often; the last time counts")
    parser.add_argument("--use_proj", action="store_true", help="points of the depth and camera heads")
    parser.add_argument(
        "--conf_thresh", type=real(0, 1e9), default=0.0, help="leave out less confident points (default: none)"
    )
    parser.add_argument("--score_only", action="store_true", help="of what is predicted already, without the network")
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    for name in ("kf_every", "revisit"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ValueError(f"--{name} {value}: at least 1 was expected")
    return arguments


def output_folder(arguments: argparse.Namespace) -> Path:
    ckpt_name = weights_name(arguments) + ("_proj" if arguments.use_proj else "")
    return Path(arguments.output_dir.format(model_name=arguments.model_name, ckpt_name=ckpt_name))


def find_task(dataset: str, arguments: argparse.Namespace, out: Path) -> Task:
    """
    Raises:
        FileNotFoundError, ValueError: the test set or a scene asked for is not there, or is damaged.
    """
    of_set = SETS[dataset]
    reader = of_set.reader(arguments.data_root / of_set.reader.folder)
    scenes = chosen_scenes(reader, arguments.seq_list)
    frames = {scene: of_set.frames(reader, scene, arguments.kf_every) for scene in scenes}
    empty = [scene for scene, names in frames.items() if not names]
    if empty or not scenes:
        which = empty[0] if empty else "any scene"
        raise FileNotFoundError(f"{reader.root} has no frames of {which}: docs/evaluation.md says what must be there")
    return Task(dataset, reader, out / dataset, frames)


def predict_all(
    tasks: Sequence[Task], arguments: argparse.Namespace, processes: Processes, outcome: Outcome
) -> list[Task]:
    """Those whose predictions could be made or were there; a scene that failed is noted."""
    if not tasks:
        return []
    network = Evaluated.load(arguments, heads=("camera", "depth") if arguments.use_proj else ("points",))
    done = []
    for task in tasks:
        with outcome.of(task.dataset, everywhere=True):
            predict(task, network, arguments, processes, outcome)
            done.append(task)
    return done


def predict(
    task: Task, network: Evaluated, arguments: argparse.Namespace, processes: Processes, outcome: Outcome
) -> None:
    settings = {
        "view_size": list(view_size(network.size, network.model.patch_size)),
        "kf_every": arguments.kf_every,
        "revisit": arguments.revisit,
        "data": str(task.reader.root.resolve()),
    }
    open_run(
        task.folder,
        protocol="mv_recon",
        dataset=task.dataset,
        settings={**network.settings, **settings},
        about=network.about,
        processes=processes,
    )

    def make(scene: str) -> None:
        views = read_views(task, scene, tuple(settings["view_size"]))
        images = torch.stack([view.image for view in views])
        said = network.predict_sequence(images.repeat(arguments.revisit, 1, 1, 1)).frames(slice(-len(views), None))
        arrays = {name: value[0] for name, value in said.numpy().items()}
        save_arrays(
            task.path(scene, ".npz"),
            images=np.stack([image_array(image) for image in images]),
            frames=np.array(task.frames[scene]),
            **arrays,
        )

    work_through(
        {scene: [task.path(scene, ".npz")] for scene in task.frames},
        make,
        processes,
        outcome,
        title=task.dataset,
        unit="scene",
    )


def read_views(task: Task, scene: str, size: tuple[int, int]) -> list[View]:
    return [prepare_view(task.reader.read(scene, frame), size) for frame in task.frames[scene]]


def score(task: Task, arguments: argparse.Namespace, processes: Processes, outcome: Outcome) -> None:
    """Numbers of each scene of this process's share, and its clouds."""
    for scene in tqdm(processes.share(list(task.frames)), desc=f"{task.dataset} scores", unit="scene", disable=None):
        task.path(scene, ".json").unlink(missing_ok=True)
        with outcome.of(f"{task.dataset}, {scene}"):
            said = load_prediction(task.path(scene, ".npz"))
            if said["frames"].tolist() != task.frames[scene]:
                raise ValueError("its prediction is of other frames; give the flags that it was made with")
            views = read_views(task, scene, said["images"].shape[2:0:-1])
            clouds = compared_clouds(views, said, arguments.use_proj, arguments.conf_thresh)
            registration = register(clouds.estimated, clouds.true, MAX_DISTANCE)
            moved = registration.apply(clouds.estimated)
            normals, true_normals = estimate_normals(moved), estimate_normals(clouds.true)
            result = compare_clouds(moved, clouds.true, normals, true_normals)
            write_clouds(task, scene, clouds, moved)
            about = {"fitness": registration.fitness, "num_points": len(moved), "num_true_points": len(clouds.true)}
            write_json(task.path(scene, ".json"), result.numbers() | about)


@dataclass(frozen=True)
class Clouds:
    """What is compared: (N, 3) and (M, 3) points with colours, uint8."""

    estimated: np.ndarray
    true: np.ndarray
    estimated_colours: np.ndarray
    true_colours: np.ndarray


def compared_clouds(views: Sequence[View], said: dict[str, np.ndarray], use_proj: bool, conf_thresh: float) -> Clouds:
    """The points in the middle of all views whose true depth is known, the estimated ones brought to the true scale.

    Points of the point head are normalised as `normalise_point_maps` says; those of depth and cameras by the similarity
    that fits them best, pixel by pixel.

    Args:
        said: `points` and `points_conf`, or `depth`, `depth_conf` and `pose_enc`.

    Raises:
        ValueError: nothing is left to compare.
    """
    true = torch.stack([view.points() for view in views])
    valid = torch.stack([view.valid for view in views])
    if use_proj:
        depth = torch.from_numpy(said["depth"][..., 0])
        estimated = unproject(depth, cameras_from_encoding(torch.from_numpy(said["pose_enc"]), tuple(depth.shape[-2:])))
        confidence = torch.from_numpy(said["depth_conf"])
    else:
        estimated, confidence = torch.from_numpy(said["points"]), torch.from_numpy(said["points_conf"])
    # (The published program tests each number alone and so moves all points after one that is not finite.)
    valid &= estimated.isfinite().all(-1)
    if not use_proj:
        maps = normalise_point_maps(true, estimated, valid, views[0].cam_from_world)
        true, estimated = maps.true, maps.estimated
    rows, columns = compared_part(tuple(valid.shape[:0:-1]))
    valid, confidence, true, estimated = (x[:, rows, columns] for x in (valid, confidence, true, estimated))
    colours = torch.from_numpy(said["images"])[:, rows, columns]
    sure = valid & (confidence >= conf_thresh)
    if not sure.any():
        raise ValueError("no pixel in the middle of the views has a true depth and enough confidence")
    if use_proj:
        estimated = align_points(estimated[sure].double(), true[sure].double()).apply(estimated.double())
    return Clouds(*(_array(x) for x in (estimated[sure], true[valid], colours[sure], colours[valid])))


def write_clouds(task: Task, scene: str, clouds: Clouds, moved: np.ndarray) -> None:
    for name, points, colours in (
        ("-gt.ply", clouds.true, clouds.true_colours),
        ("-mask.ply", clouds.estimated, clouds.estimated_colours),
        ("-mask_align.ply", moved, clouds.estimated_colours),
    ):
        with atomic_write(task.path(scene, name)) as path:
            trimesh.PointCloud(points, colours).export(path)
    random = np.random.default_rng(0)
    shown, true_shown = (random.permutation(len(points))[:NUM_SHOWN] for points in (moved, clouds.true))
    distance, _ = nearest(moved[shown], clouds.true, moved[shown], clouds.true)
    true_distance, _ = nearest(clouds.true[true_shown], moved, clouds.true[true_shown], moved)
    save_arrays(
        task.path(scene, "-errors.npz"),
        points=moved[shown].astype(np.float32),
        colours=clouds.estimated_colours[shown],
        distance=distance.astype(np.float32),
        true_points=clouds.true[true_shown].astype(np.float32),
        true_colours=clouds.true_colours[true_shown],
        true_distance=true_distance.astype(np.float32),
    )


def summarise(task: Task, arguments: argparse.Namespace) -> str:
    """Keep the numbers of all scenes and their mean; answer the published lines.

    Raises:
        ValueError: a scene has no numbers; there is never a mean over those that happen to be there.
    """
    missing = [scene for scene in task.frames if not task.path(scene, ".json").exists()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(task.frames)} scenes have no numbers, the first is {missing[0]}")
    numbers = {scene: read_json(task.path(scene, ".json")) for scene in task.frames}
    scores = {scene: ReconstructionScore.of(found) for scene, found in numbers.items()}
    means = mean_score(list(scores.values()))
    lines = [*(scene_line(scene, one) for scene, one in scores.items()), mean_line(means)]
    text = "".join(f"{line}\n" for line in lines)
    with atomic_write(task.folder / "logs_all.txt") as path:
        path.write_text(text, encoding="utf-8")
    num_published = SETS[task.dataset].num_published
    confident = f", confidence ≥ {arguments.conf_thresh:g}" if arguments.conf_thresh > 0 else ""
    write_scores(
        task.folder,
        ("depth and cameras" if arguments.use_proj else "point head") + confident,
        means,
        numbers,
        num_sequences=len(scores),
        num_published=[num_published, None],
        data=task.reader.root,
    )
    print(f"{task.dataset:8} {lines[-1]}")
    if len(scores) != num_published:
        print(f"{'':8} of {counted(len(scores), 'scene')}; published numbers are of {num_published}")
    return text


def _array(values: Tensor) -> np.ndarray:
    return values.numpy() if values.dtype == torch.uint8 else values.double().numpy()

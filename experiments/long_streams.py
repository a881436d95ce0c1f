"""Quality of streams of thousands of frames with a bounded memory, against ground truth.

Four kinds of video in unseen rooms of the procedural world: a nearly static camera, moving objects, a loop of several
laps, and a return to the start after a long trajectory. A stream is run once and stored. Any number of its first frames
can be scored.
S frames · K of them with depth · H×W pixels · h×w of them with points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from tqdm import tqdm

from procedural_scenes.scene import ROOMS
from procedural_scenes.world import SyntheticScenes
from streamvggt.data.view import Batch
from streamvggt.evaluation.depth_metrics import absolute_relative_error, delta_accuracy, median_scale
from streamvggt.evaluation.pose_metrics import trajectory_errors
from streamvggt.files import atomic_write
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc, invert_pose, pose_enc_from_cameras
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.stream.session import StreamSession

LAP = 250
"""Frames per lap of the kind "loop"."""
SCENES = {"static": (0, 4, 10, 12), "moving": (16, 30, 45, 74), "loop": (8, 2, 5, 6), "revisit": (7, 3, 9, 11)}
"""Test scenes of each kind of video. At least four objects move in the scenes of "moving". In the scenes of "loop" and
"revisit", the camera looks alternately to the center and along the trajectory."""
KINDS = tuple(SCENES)
FRAME_STRIDE = 5
"""Depth is stored and scored for every n-th frame, and cameras for all frames."""
SPACING = 4
"""Depth and points are scored at every n-th pixel of every n-th row."""
CLOUD_FRAMES = 25
"""Maximum number of evenly spaced frames of a point cloud."""
SEGMENT = 50
"""Frames per segment of the segment-wise point error."""
LAST = 100
"""Frames at the end of a stream that are also scored separately."""
GAPS = (1, 10)
"""Frame gaps of the relative pose errors."""


def render_video(kind: str, scene: int, num_frames: int, height: int, width: int) -> Iterator[Batch]:
    """Render a video of one of the `KINDS` in a test scene in chunks of frames.

    static: the camera only shakes. moving: objects move, and the camera follows its trajectory. loop: one lap per `LAP`
    frames. revisit: one lap, so that the last frames show the place of the first.
    Except for "revisit", a short video equals the first frames of a longer one.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    laps = {"static": 0.0, "moving": None, "loop": num_frames / LAP, "revisit": 1.0}[kind]
    world = SyntheticScenes("test", style=ROOMS)
    return world.sequence(scene, num_frames, height, width, chunk=32, num_laps=laps, is_dynamic=kind == "moving")


@dataclass(frozen=True)
class GroundTruth:
    """A video with ground truth.

    Attributes:
        images: RGB, uint8. (S, 3, H, W)
        depth: Depth along the optical axis, float16. Rooms have no sky, so every pixel is valid. (S, H, W)
        cam_from_world: Camera-from-world poses. (S, 3, 4)
        intrinsics: Intrinsics of all frames in pixels. (3, 3)
    """

    images: Tensor
    depth: Tensor
    cam_from_world: Tensor
    intrinsics: Tensor

    def every(self, stride: int) -> GroundTruth:
        """Return every n-th frame, as from a faster camera."""
        return GroundTruth(self.images[::stride], self.depth[::stride], self.cam_from_world[::stride], self.intrinsics)

    def first(self, num_frames: int) -> GroundTruth:
        return GroundTruth(
            self.images[:num_frames], self.depth[:num_frames], self.cam_from_world[:num_frames], self.intrinsics
        )


@dataclass(frozen=True)
class StreamOutputs:
    """Predictions of a network for a stream.

    Attributes:
        pose_enc: Pose encodings. (S, 9)
        frames: Indices of the frames with depth and points, increasing. (K,)
        depth: float16. (K, H, W)
        num_tokens: Mean number of cached tokens per layer after each frame. (S,)
        num_bytes: Memory of the stream after each frame. (S,)
    """

    pose_enc: Tensor
    frames: Tensor
    depth: Tensor
    num_tokens: Tensor
    num_bytes: Tensor

    def first(self, num_frames: int) -> StreamOutputs:
        count = int((self.frames < num_frames).sum())
        return StreamOutputs(
            self.pose_enc[:num_frames],
            self.frames[:count],
            self.depth[:count],
            self.num_tokens[:num_frames],
            self.num_bytes[:num_frames],
        )

    @property
    def cameras(self) -> Cameras:
        return cameras_from_pose_enc(self.pose_enc, tuple(self.depth.shape[-2:]))

    def points(self, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Return world points of depth and cameras, of chosen entries of `frames`. (k, h, w, 3)"""
        frames, cameras = self.frames[chosen], self.cameras
        cameras = Cameras(cameras.cam_from_world[frames], cameras.intrinsics[frames])
        return _spaced(unproject(self.depth[chosen].float(), cameras))


Record = TypeVar("Record", GroundTruth, StreamOutputs)


def save(record: GroundTruth | StreamOutputs, path: Path) -> None:
    with atomic_write(path) as unfinished:
        np.savez(unfinished, **{field.name: getattr(record, field.name).numpy() for field in fields(record)})


def load(kind: type[Record], path: Path) -> Record:
    with np.load(path) as arrays:
        return kind(**{field.name: torch.from_numpy(arrays[field.name]) for field in fields(kind)})


def load_ground_truth(kind: str, scene: int, num_frames: int, height: int, width: int, folder: Path) -> GroundTruth:
    """Load a video with ground truth from `folder`. Renders it on first use."""
    path = folder / f"{kind}-{scene}-{num_frames}-{width}x{height}.npz"
    if not path.exists():
        parts = []
        with tqdm(total=num_frames, desc=path.stem, unit="frame", disable=None) as progress:
            for batch in render_video(kind, scene, num_frames, height, width):
                images = (batch.images[0] * 255).round().byte()
                parts.append(GroundTruth(images, batch.depth[0].half(), batch.cam_from_world[0], batch.intrinsics[0]))
                progress.update(len(images))
        per_frame = {
            name: torch.cat([getattr(p, name) for p in parts]) for name in ("images", "depth", "cam_from_world")
        }
        save(GroundTruth(**per_frame, intrinsics=parts[0].intrinsics[0]), path)
    return load(GroundTruth, path)


@torch.no_grad()
def stream(model: VGGT, images: Tensor, policy: EvictionPolicy, name: str = "") -> list[StreamOutputs]:
    """Run streams through a network in lockstep. The policy must decide per stream.

    Args:
        images: RGB, uint8. (B, S, 3, H, W)
        name: Label of the progress bar.
    """
    both_heads = ("camera", "depth")
    session = StreamSession(model, policy=policy, heads=both_heads)
    poses, depth, tokens, sizes = [], [], [], []
    frames = range(0, images.shape[1], FRAME_STRIDE)
    for number in tqdm(range(images.shape[1]), desc=name, unit="frame", disable=None):
        # The depth head is skipped where possible. It does not change the memory.
        session.heads = both_heads if number in frames else ("camera", *policy.required_heads)
        outputs = session.push(images[:, number].float() / 255)
        poses.append(outputs.cam_from_world_enc[:, 0])
        if number in frames:
            depth.append(outputs.depth[:, 0, ..., 0].half())
        tokens.append(sum(session.memory.num_tokens) / len(session.memory.num_tokens))
        sizes.append(session.memory.num_bytes / len(images))
    numbers, cost = torch.tensor(list(frames)), (torch.tensor(tokens), torch.tensor(sizes))
    per_stream = zip(torch.stack(poses, 1), torch.stack(depth, 1), strict=True)
    return [StreamOutputs(pose_enc, numbers, maps, *cost) for pose_enc, maps in per_stream]


def still_camera(truth: GroundTruth) -> StreamOutputs:
    """Return the baseline: constant depth and a static camera."""
    num_frames = len(truth.images)
    pose = torch.eye(4)[:3].expand(num_frames, 3, 4)
    cameras = Cameras(pose, truth.intrinsics.expand(num_frames, 3, 3))
    frames = torch.arange(0, num_frames, FRAME_STRIDE)
    depth = torch.ones(len(frames), *truth.depth.shape[1:])
    nothing = torch.zeros(num_frames)
    encoding = pose_enc_from_cameras(cameras, tuple(depth.shape[-2:]))
    return StreamOutputs(encoding, frames, depth.half(), nothing, nothing)


def score(outputs: StreamOutputs, truth: GroundTruth) -> dict[str, float]:
    """Compare a stream with the ground truth.

    AbsRel, δ<1.25: depth with one scale for the stream (ratio of medians).
    AbsRel, last: the last `LAST` frames, with the same scale.
    AbsRel, each: with one scale per frame.
    drift: standard deviation of the logarithm of these scales.
    ATE: root mean square error of the camera centers after a similarity, divided by the root mean square distance of
        the ground-truth centers from their mean. A static camera has 1. "ATE, path": divided by the length of the path.
    excess spread: root mean square distance of the centers from their mean, in meters with the scale of depth, minus
        that of the ground truth. For a static camera, its apparent motion.
    RPE t n, RPE r n: root mean square error of the motion within n of the `GAPS` frames: meters after the same
        similarity, and degrees.
    accuracy, completeness: mean distance of the points of depth and cameras from the nearest ground-truth points, and
        vice versa, in meters after a similarity of corresponding points.
    local: mean distance of these points from their ground truth in meters, after one similarity per `SEGMENT` frames.
        Measures the consistency of neighboring frames.
    tokens, bytes: cached after the last frame.
    """
    frames = outputs.frames
    depth, true_depth = _spaced(outputs.depth).float(), _spaced(truth.depth[frames]).float()
    valid = true_depth > 0
    scaled = median_scale(depth, true_depth, valid)
    ratios = true_depth.flatten(1).median(1).values / depth.flatten(1).median(1).values.clamp(min=1e-9)
    last = frames >= len(truth.images) - LAST
    numbers = {
        "AbsRel": absolute_relative_error(scaled, true_depth, valid),
        "δ<1.25": delta_accuracy(scaled, true_depth, valid),
        "AbsRel, last": absolute_relative_error(scaled[last], true_depth[last], valid[last]),
        "AbsRel, each": absolute_relative_error(depth * ratios[:, None, None], true_depth, valid),
        "drift": ratios.log().std(correction=0).item(),
    }

    cameras = outputs.cameras
    centers = invert_pose(truth.cam_from_world.double())[:, :, 3]
    spread = _spread(centers)
    length = centers.diff(dim=0).norm(dim=-1).sum().item()
    for gap in GAPS:
        if gap < len(centers):
            errors = trajectory_errors(cameras.cam_from_world, truth.cam_from_world, gap)
            numbers |= {f"RPE t {gap}": errors.rpe_translation, f"RPE r {gap}": errors.rpe_rotation}
    unit = (true_depth[valid].median() / depth[valid].median().clamp(min=1e-9)).item()
    our_centers = unit * invert_pose(cameras.cam_from_world.double())[:, :, 3]
    numbers["excess spread"] = _spread(our_centers) - spread
    numbers |= {"ATE": errors.ate / max(spread, 1e-9), "ATE, path": errors.ate / max(length, 1e-9)}

    chosen = torch.linspace(0, len(frames) - 1, min(CLOUD_FRAMES, len(frames))).round().long()
    seen_by = Cameras(truth.cam_from_world[frames[chosen]], truth.intrinsics.expand(len(chosen), 3, 3))
    gt_points = _spaced(unproject(truth.depth[frames[chosen]].float(), seen_by))
    accuracy, completeness = cloud_distances(outputs.points(chosen).flatten(0, 2), gt_points.flatten(0, 2))
    numbers |= {"accuracy": accuracy, "completeness": completeness}
    everywhere = Cameras(truth.cam_from_world[frames], truth.intrinsics.expand(len(frames), 3, 3))
    numbers["local"] = local_error(outputs.points(), _spaced(unproject(truth.depth[frames].float(), everywhere)))
    return numbers | {"tokens": outputs.num_tokens[-1].item(), "bytes": outputs.num_bytes[-1].item()}


def cloud_distances(points: Tensor, gt_points: Tensor) -> tuple[float, float]:
    """Return accuracy and completeness of corresponding points after the best similarity. (N, 3) each"""
    points, gt_points = points.double(), gt_points.double()
    moved = align_points(points, gt_points).apply(points).numpy()
    there = KDTree(gt_points.numpy()).query(moved)[0].mean()
    back = KDTree(moved).query(gt_points.numpy())[0].mean()
    return float(there), float(back)


def local_error(points: Tensor, gt_points: Tensor) -> float:
    """Return the mean distance after one similarity per segment. A shorter rest joins the last segment. (K, h, w, 3)"""
    errors = []
    starts = range(0, max(1, len(points) - SEGMENT // FRAME_STRIDE + 1), SEGMENT // FRAME_STRIDE)
    for start, stop in zip(starts, [*starts[1:], len(points)], strict=True):
        ours, theirs = (cloud[start:stop].flatten(0, 2).double() for cloud in (points, gt_points))
        errors.append((align_points(ours, theirs).apply(ours) - theirs).norm(dim=-1))
    return torch.cat(errors).mean().item()


def disagreement(outputs: StreamOutputs, other: StreamOutputs) -> float:
    """Return the AbsRel of the depth of one stream, with the depth of another stream as reference."""
    count = min(len(outputs.frames), len(other.frames))
    ours, theirs = outputs.depth[:count].float(), other.depth[:count].float()
    return absolute_relative_error(ours, theirs, theirs > 0)


def _spaced(maps: Tensor) -> Tensor:
    """(K, H, W, ...) → (K, h, w, ...)"""
    return maps[:, ::SPACING, ::SPACING]


def _spread(centers: Tensor) -> float:
    """Return the root mean square distance from the mean. (S, 3)"""
    return (centers - centers.mean(0)).square().sum(-1).mean().sqrt().item()

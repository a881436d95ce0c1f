"""Figure of predictions for a clip with ground truth: images, depth, cloud and cameras.

    python -m experiments.result_figure --out assets/result.jpg

Below the images: ground-truth depth and predicted depth. Then both clouds, with the cameras. The prediction is aligned
by one similarity for the whole clip. Points of low confidence and points at depth discontinuities are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from procedural_scenes.scene import STYLES
from procedural_scenes.world import SyntheticScenes
from streamvggt.data.view import Batch
from streamvggt.evaluation.depth_metrics import median_scale
from streamvggt.export.edges import depth_edges
from streamvggt.files import atomic_write
from streamvggt.flags import image_path, whole
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.weights import load_model
from streamvggt.stream.session import StreamSession

CELL = (168, 224)  # of the strips; the clouds are four times as large
SHOWN = 6  # frames in the strips
LABEL = 24  # pixels
AZIMUTH = 0.6  # of the camera of the clouds, in radians


def record(index: int, num_frames: int, stride: int, style: str, height: int, width: int) -> Batch:
    """Return the frames of `python -m procedural_scenes clip` with ground truth. One sequence."""
    world = SyntheticScenes("test", style=STYLES[style])
    numbers = range(0, num_frames * stride, stride)
    single = [next(world.sequence(index, n + 1, height, width, start=n)) for n in numbers]
    fields = ("images", "depth", "valid", "sky", "intrinsics", "cam_from_world")
    return Batch(**{f: torch.cat([getattr(b, f) for b in single], 1) for f in fields}, is_metric=single[0].is_metric)


def draw(truth: Batch, depth: Tensor, conf: Tensor, cameras: Cameras, points: Tensor) -> np.ndarray:
    """Draw the figure.

    Args:
        truth: One sequence of S frames.
        depth, conf: Predictions. (S, H, W)
        cameras: Predicted cameras of the S frames.
        points: Predicted world points. (S, H, W, 3)

    Returns:
        RGB, uint8. (rows, columns, 3)
    """
    valid = truth.valid[0]
    chosen = np.linspace(0, truth.num_frames - 1, SHOWN).round().astype(int)
    scaled = median_scale(depth, truth.depth[0], valid)
    low, high = np.percentile(1 / truth.depth[0][valid].numpy(), [2, 98])

    def nearness(values: Tensor) -> np.ndarray:
        level = (1 / values.clamp(min=1e-6).numpy() - low) / (high - low)
        return cv2.applyColorMap((level.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]

    strips = [
        ("input", [_bytes(truth.images[0, t].movedim(0, -1).numpy()) for t in chosen]),
        ("ground-truth depth", [nearness(truth.depth[0, t]) for t in chosen]),
        ("predicted depth", [nearness(scaled[t]) for t in chosen]),
    ]
    rows = [_strip(name, [cv2.resize(p, CELL[::-1], interpolation=cv2.INTER_LINEAR) for p in s]) for name, s in strips]

    gt_points = truth.points()[0]
    similarity = align_points(points[valid].double(), gt_points[valid].double())
    ours = similarity.apply(points.flatten(0, 2).double()).view(points.shape).float()
    centers = similarity.apply(invert_pose(cameras.cam_from_world)[:, :, 3].double()).float()
    turned = invert_pose(cameras.cam_from_world)[:, :, :3]
    our_poses = torch.cat([similarity.rotation.float() @ turned, centers[..., None]], -1)  # world-from-camera
    true_poses = invert_pose(truth.cam_from_world[0])
    shown = valid & (conf >= conf.flatten().quantile(0.3)) & ~frame_edges(depth, cameras.intrinsics, valid)
    colors = truth.images[0].movedim(1, -1)
    view = view_from_above(gt_points[valid], AZIMUTH)
    pair = [
        splat(p[mask], colors[mask], _origin(poses, mask), view, poses)
        for p, mask, poses in ((gt_points, valid, true_poses), (ours, shown, our_poses))
    ]
    rows.append(_strip("point cloud and cameras: ground truth (left), prediction (right)", pair))
    width = max(row.shape[1] for row in rows)
    white = ((0, 0), (0, 0))
    return np.concatenate([np.pad(r, (white[0], (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def frame_edges(depth: Tensor, intrinsics: Tensor, valid: Tensor) -> Tensor:
    """Return `depth_edges` of each frame. (S, H, W), (S, 3, 3), (S, H, W) to bool (S, H, W)"""
    frames = zip(depth.numpy(), intrinsics.numpy(), valid.numpy(), strict=True)
    return torch.from_numpy(np.stack([depth_edges(*frame) for frame in frames]))


def splat(points: Tensor, colors: Tensor, origins: Tensor, view: Cameras, poses: Tensor) -> np.ndarray:
    """Draw points as squares, nearest on top, and cameras as pyramids.

    Back faces are omitted, so that walls do not hide the interior of a room.

    Args:
        points, colors: World points and their colors. (N, 3)
        origins: Camera center that observed each point. (N, 3)
        view: One camera without leading dimensions.
        poses: World-from-camera poses of the cameras to draw. (S, 3, 4)

    Returns:
        RGB, uint8.
    """
    height, width = (2 * side for side in CELL)
    width = SHOWN * CELL[1] // 2
    eye = invert_pose(view.cam_from_world)[:, 3]
    toward = torch.nn.functional.normalize(points - eye, dim=-1)
    seen_along = torch.nn.functional.normalize(points - origins, dim=-1)
    front = (toward * seen_along).sum(-1) > -0.2
    local = points[front] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    pixel = local @ view.intrinsics.T
    u, v = (pixel[:, :2] / pixel[:, 2:].clamp(min=1e-3)).round().long().unbind(-1)
    order = local[:, 2].argsort(descending=True)
    picture = np.full((height, width, 3), 255, np.uint8)
    color = _bytes(colors[front][order].numpy())
    u, v, ahead = u[order].numpy(), v[order].numpy(), (local[:, 2] > 0.05)[order].numpy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            x, y = u + dx, v + dy
            inside = ahead & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            picture[y[inside], x[inside]] = color[inside]
    for number, pose in enumerate(poses):
        share = number / max(len(poses) - 1, 1)
        _pyramid(picture, pose, view, (int(255 * share), 60, int(255 * (1 - share))))
    return picture


def _pyramid(picture: np.ndarray, pose: Tensor, view: Cameras, color: tuple[int, int, int]) -> None:
    size = 0.12
    corners = torch.tensor([[0, 0, 0], [-1, -0.75, 1.5], [1, -0.75, 1.5], [1, 0.75, 1.5], [-1, 0.75, 1.5]]) * size
    world = corners @ pose[:, :3].T + pose[:, 3]
    local = world @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    if (local[:, 2] < 0.05).any():
        return
    pixel = local @ view.intrinsics.T
    at = (pixel[:, :2] / pixel[:, 2:]).round().int().tolist()
    for start, stop in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)):
        cv2.line(picture, at[start], at[stop], color, 1, cv2.LINE_AA)


def view_from_above(points: Tensor, azimuth: float) -> Cameras:
    """Return a camera that views the center of the points from above. y points down."""
    middle = points.median(0).values
    reach = (points - middle).norm(dim=-1).quantile(0.9)
    away = torch.tensor([np.cos(azimuth), -0.75, np.sin(azimuth)], dtype=torch.float32)
    eye = middle + 1.7 * reach * away / away.norm()
    forward = torch.nn.functional.normalize(middle - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    height, width = 2 * CELL[0], SHOWN * CELL[1] // 2
    focal = 1.2 * height
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Cameras(torch.cat([rotation, -(rotation @ eye)[:, None]], 1), intrinsics)


def _origin(poses: Tensor, mask: Tensor) -> Tensor:
    return poses[:, None, None, :, 3].expand(*mask.shape, 3)[mask]


def _strip(label: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
    row = np.concatenate(pictures, 1)
    head = np.full((LABEL, row.shape[1], 3), 255, np.uint8)
    cv2.putText(head, label, (6, LABEL - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, row])


def _bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=image_path, required=True, help="output image, .jpg or .png")
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--index", type=whole(0), default=8, help="index of the test scene")
    parser.add_argument("--scene-type", choices=STYLES, default="rooms")
    parser.add_argument("--frames", type=whole(), default=48)
    parser.add_argument("--stride", type=whole(), default=3, help="frame stride at 30 frames per second")
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, metavar=("H", "W"), default=(80, 112))
    arguments = parser.parse_args()
    truth = record(arguments.index, arguments.frames, arguments.stride, arguments.scene_type, *arguments.image_size)
    session = StreamSession(load_model(arguments.weights, causal=True), heads=("camera", "depth"))
    outputs = [session.push(image) for image in truth.images[0]]
    depth, conf = (torch.cat([getattr(p, name) for p in outputs], 1)[0] for name in ("depth", "depth_conf"))
    cameras = [p.cameras() for p in outputs]
    cameras = Cameras(
        torch.cat([c.cam_from_world for c in cameras], 1)[0], torch.cat([c.intrinsics for c in cameras], 1)[0]
    )
    points = unproject(depth[..., 0], cameras)
    picture = draw(truth, depth[..., 0], conf, cameras, points)
    with atomic_write(arguments.out) as unfinished:
        Image.fromarray(picture).save(unfinished)


if __name__ == "__main__":
    main()

"""A made-up scene whose truth is known everywhere: a ball in front of a wall, seen by a moving camera.

The world is the first camera. Originals are (120, 150), shrunk to (30, 40) and padded to (42, 56).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from streamvggt.export import ReconstructionResult, ResultWriter
from streamvggt.frame import Frame
from streamvggt.geometry.camera import Cameras, pose_enc_from_cameras
from streamvggt.prediction import Prediction

SIZE, ORIGINAL_SIZE, CONTENT = (42, 56), (120, 150), (6, 8, 36, 48)
SCALE = np.array([150 / 40, 120 / 30])  # originals per processed pixel, x and y
ORIGINAL_FROM_IMAGE = np.eye(3)
ORIGINAL_FROM_IMAGE[[0, 1], [0, 1]] = SCALE
ORIGINAL_FROM_IMAGE[:2, 2] = SCALE * (0.5 - np.array([8, 6])) - 0.5
INTRINSICS = np.array([[60.0, 0, 28], [0, 55.0, 21], [0, 0, 1]])
WALL, BALL, RADIUS = 4.0, np.array([0.1, 0.0, 2.5]), 0.5


@dataclass
class Scene:
    """Frames, what a perfect network says of them, and the truth. poses: camera-from-world (S, 3, 4)."""

    poses: np.ndarray
    frames: list[Frame]
    predictions: list[Prediction]
    intrinsics: ClassVar[np.ndarray] = INTRINSICS

    def write(self, folder, count: int | None = None, **options) -> ReconstructionResult:
        writer = ResultWriter(folder, **options)
        for frame, prediction in list(zip(self.frames, self.predictions, strict=True))[writer.num_frames : count]:
            writer.add(frame, prediction)
        return ReconstructionResult(folder)

    @staticmethod
    def distance(points: np.ndarray) -> np.ndarray:
        """How far points are from the nearest surface. (N, 3) to (N,)"""
        ball = np.abs(np.linalg.norm(points - BALL, axis=-1) - RADIUS)
        return np.minimum(ball, np.abs(points[..., 2] - WALL))


def paint(points: np.ndarray) -> np.ndarray:
    """A smooth color for every place. (..., 3) to (..., 3), uint8"""
    return (128 + 90 * np.sin(1.5 * points + np.array([0, 1, 2]))).astype(np.uint8)


def render(pose: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) and world points (H, W, 3) of the surfaces that a camera sees."""
    y, x = np.indices(size)
    rays = np.stack([x, y, np.ones(size)], -1) @ np.linalg.inv(intrinsics).T  # z = 1, so that length is depth
    rotation, translation = pose[:, :3], pose[:, 3]
    center, rays = -rotation.T @ translation, rays @ rotation
    wall = (WALL - center[2]) / rays[..., 2]
    a, b = (rays**2).sum(-1), rays @ (center - BALL)
    root = b**2 - a * (((center - BALL) ** 2).sum() - RADIUS**2)
    ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth = np.minimum(wall, ball)
    return depth, center + depth[..., None] * rays


def camera_path(count: int) -> np.ndarray:
    """Camera-from-world poses that move and turn, the first one the identity. (S, 3, 4)"""
    poses = []
    for step in range(count):
        angle = -0.04 * step
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        center = np.array([0.1, 0.03, 0.05]) * step
        poses.append(np.concatenate([rotation, (-rotation @ center)[:, None]], 1))
    return np.stack(poses)


def make_frame(position: int, pose: np.ndarray, timed: bool) -> Frame:
    _, seen = render(pose, ORIGINAL_FROM_IMAGE @ INTRINSICS, ORIGINAL_SIZE)
    _, points = render(pose, INTRINSICS, SIZE)
    top, left, bottom, right = CONTENT
    image = np.full((*SIZE, 3), 255, np.uint8)
    image[top:bottom, left:right] = paint(points)[top:bottom, left:right]
    return Frame(
        image=torch.from_numpy(image).permute(2, 0, 1).float() / 255,
        index=10 * position,
        name=f"view_{10 * position:04d}",
        original=paint(seen),
        original_from_image=ORIGINAL_FROM_IMAGE,
        content=CONTENT,
        time=0.25 * position + 1 if timed else None,
    )


def make_prediction(pose: np.ndarray, position: int) -> Prediction:
    depth, points = (torch.from_numpy(values)[None, None] for values in render(pose, INTRINSICS, SIZE))
    cameras = Cameras(torch.from_numpy(pose), torch.from_numpy(INTRINSICS))
    conf = 1 + torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(position)).exp()
    return Prediction(
        SIZE,
        pose_enc=pose_enc_from_cameras(cameras, SIZE)[None, None],
        depth=depth[..., None].float(),
        depth_conf=conf,
        points=points.float(),
        points_conf=conf,
    )


@pytest.fixture
def make_scene():
    def make(count: int = 5, timed: bool = True) -> Scene:
        poses = camera_path(count)
        frames = [make_frame(position, pose, timed) for position, pose in enumerate(poses)]
        return Scene(poses, frames, [make_prediction(pose, position) for position, pose in enumerate(poses)])

    return make


@pytest.fixture
def scene(make_scene) -> Scene:
    return make_scene()


@pytest.fixture
def result(scene, tmp_path) -> ReconstructionResult:
    return scene.write(tmp_path / "out")

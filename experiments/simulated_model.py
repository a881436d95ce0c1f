"""Simulated model: ground truth of one video plus a configurable error model.

It shows the effect of submap alignment and loop closure apart from the quality of a network. Its numbers do not
indicate the quality of any network.
S frames · H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from streamvggt.geometry.camera import Cameras, invert_pose, pose_enc_from_cameras
from streamvggt.geometry.pointmap import unproject
from streamvggt.geometry.similarity import Sim3
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction

THUMBNAIL = 8
"""Height and width of the thumbnails that identify frames."""


@dataclass(frozen=True)
class GroundTruthVideo:
    """A video with ground truth.

    Attributes:
        images: RGB in [0, 1], all different. (S, 3, H, W)
        depth: Depth along the optical axis. (S, H, W)
        cam_from_world: Camera-from-world poses, OpenCV axes. (S, 3, 4)
        intrinsics: Intrinsics of all frames in pixels, principal point in the image center. (3, 3)
    """

    images: Tensor
    depth: Tensor
    cam_from_world: Tensor
    intrinsics: Tensor


@dataclass(frozen=True)
class Errors:
    """Error model. Without arguments, predictions are exact except for a random world and scale per stream.

    Attributes:
        rotation_drift_deg: Rotation about the camera's down axis per frame in degrees.
        translation_drift: Translation to the right per frame, relative to the median depth.
        drift_scale: Logarithm of the scale change per frame.
        random_walk: Standard deviation of a random drift per frame: radians, fractions of the median depth, log scale.
        drift_doubling_frames: Number of frames after which the drift per frame is twice that of the start.
        noise: Standard deviation of the logarithm of depth, per pixel.
        outlier_ratio: Fraction of pixels, in patches, with wrong depth.
        wrong_factor: Approximate factor of wrong depth.
        informative_confidence: Wrong pixels have a low confidence.
        failure_frame: From this frame of the video on, streams that started before it fail.
        failure_mode: "jump": wrong camera. "confidence": low confidence. "nan": poses are not finite. "scale": depth
            shrinks.
        aliasing_distance: A camera farther than this from that of the last frame is confused with it, as if both places
            had equal appearance.
    """

    rotation_drift_deg: float = 0.0
    translation_drift: float = 0.0
    drift_scale: float = 0.0
    random_walk: float = 0.0
    drift_doubling_frames: float = math.inf
    noise: float = 0.0
    outlier_ratio: float = 0.0
    wrong_factor: float = 2.0
    informative_confidence: bool = False
    failure_frame: int | None = None
    failure_mode: str = "jump"
    aliasing_distance: float = math.inf


class SimulatedMemory:
    """Memory of a stream of a `SimulatedModel`: the drift of its world.

    Attributes:
        world: Similarity from the ground truth to the world of the stream, at the latest frame.
        first, last: Indices of the first and the latest frame in the video.
        opened: Latest frame of any stream when this stream started.
    """

    def __init__(self, policy: EvictionPolicy | None):
        self.policy = policy
        self.num_frames = 0
        self.kept_frames: list[int] = []
        self.num_bytes = 0
        self.world = Sim3.identity()
        self.first = self.last = self.opened = -1

    def state_dict(self) -> dict[str, Any]:
        return {"numbers": [self.num_frames, self.first, self.last, self.opened], "world": self.world.to_vector()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.num_frames, self.first, self.last, self.opened = state["numbers"]
        self.world = Sim3.from_vector(state["world"])

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """As `KVCacheMemory.all_or_nothing`."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise


class SimulatedModel(nn.Module):
    """Replaces a `VGGT` in a session. Computes in float64 on the CPU."""

    def __init__(
        self, known: GroundTruthVideo, errors: Errors | None = None, *, encoder: VGGT | None = None, seed: int = 0
    ):
        """Precompute the thumbnails.

        Args:
            known: The video that the frames come from.
            errors: Error model.
            encoder: Network whose encoder gives the patch features. None: thumbnails.
            seed: Seed of the random errors.
        """
        super().__init__()
        self.known, self.errors, self.seed = known, errors or Errors(), seed
        self.heads = ("camera", "depth")
        self.patch_size = 14 if encoder is None else encoder.patch_size
        self.where = nn.Parameter(torch.zeros((), dtype=torch.float64))  # sessions read the device of a model
        self._thumbnails = thumbnails(known.images)
        self._encoder = (encoder,)  # in a tuple, so that it is no submodule
        self.num_encoded = 0
        self._latest = -1
        self.aggregator = SimpleNamespace(
            encode_patches=self._encode,
            patch_features=encoder.aggregator.patch_features if encoder else lambda encoded: encoded,
        )

    def new_memory(self, policy: EvictionPolicy | None = None, **_) -> SimulatedMemory:
        return SimulatedMemory(policy)

    def _encode(self, images: Tensor) -> Tensor:
        self.num_encoded += images.shape[1]
        (encoder,) = self._encoder
        if encoder is None:
            return thumbnails(images.flatten(0, 1))[None, :, None]
        return encoder.aggregator.encode_patches(images.to(next(encoder.parameters())))

    def step(
        self,
        images: Tensor,
        memory: SimulatedMemory,
        *,
        patch_tokens: Tensor | None = None,
        heads=None,
        query_points=None,
    ) -> Prediction:
        """Predict the next frame. images: (1, 1, 3, H, W)"""
        self.num_encoded += patch_tokens is None
        errors = self.errors
        frame = int((self._thumbnails - thumbnails(images[0])).abs().sum(-1).argmin())
        pose = self.known.cam_from_world[frame].double()
        depth = self.known.depth[frame].double()
        typical = depth.median()
        camera = Sim3(torch.ones_like(typical), *_rotation_and_center(pose))
        if memory.num_frames == 0:
            memory.first, memory.opened = frame, self._latest
            scale = self._random(frame, 0, 1).squeeze().mul(0.5).exp()
            first = camera.inverse()
            memory.world = Sim3(scale * first.scale, first.rotation, scale * first.translation)
        else:
            age = 1 + memory.num_frames / errors.drift_doubling_frames
            steady = torch.tensor(
                [
                    errors.translation_drift * typical,
                    0,
                    0,
                    0,
                    math.radians(errors.rotation_drift_deg),
                    0,
                    errors.drift_scale,
                ],
                dtype=torch.float64,
            )
            random_walk = errors.random_walk * self._random(memory.first, memory.num_frames, 7)
            random_walk[:3] *= typical
            step = camera @ Sim3.exp(age * (steady + random_walk)) @ camera.inverse()
            memory.world = memory.world @ step
            before = self.known.cam_from_world[memory.last].double()
            here, there = (invert_pose(p)[:, 3] for p in (pose, before))
            if (here - there).norm() > errors.aliasing_distance:
                last = Sim3(torch.ones_like(typical), *_rotation_and_center(before))
                memory.world = memory.world @ last @ camera.inverse()
        memory.last, self._latest = frame, max(self._latest, frame)
        memory.num_frames += 1
        return self._answer(frame, pose, depth, memory)

    def _answer(self, frame: int, pose: Tensor, depth: Tensor, memory: SimulatedMemory) -> Prediction:
        errors = self.errors
        height, width = depth.shape
        noise = self._random(memory.first, 10_000 + frame, height * width).view(height, width)
        random = torch.rand(2, -(-height // 7), -(-width // 7), generator=self._generator(memory.first, 20_000 + frame))
        chance, size = random.repeat_interleave(7, 1).repeat_interleave(7, 2)[:, :height, :width].double()
        wrong = chance < errors.outlier_ratio
        depth = depth * (errors.noise * noise).exp()
        depth = torch.where(wrong, depth * errors.wrong_factor ** (0.5 + size), depth)
        conf = torch.where(wrong & errors.informative_confidence, 1.2, 10.0).double()
        encoding = pose_enc_from_cameras(Cameras(pose, self.known.intrinsics.double()), (height, width))
        prediction = Prediction(
            (height, width),
            pose_enc=encoding[None, None],
            depth=depth[None, None, ..., None],
            depth_conf=conf[None, None],
        ).transform(memory.world)
        if errors.failure_frame is None or not memory.opened < errors.failure_frame <= frame:
            return prediction
        nonsense = {
            "jump": {"pose_enc": prediction.pose_enc + 100 * prediction.depth.median() * _unit(9)},
            "confidence": {"depth_conf": 1 + (prediction.depth_conf - 1) / 1000},
            "nan": {"pose_enc": prediction.pose_enc * math.nan},
            "scale": {"depth": prediction.depth / 20},
        }[errors.failure_mode]
        return Prediction(**{**vars(prediction), **nonsense})

    def _random(self, *of: int) -> Tensor:
        """Return standard normal numbers that depend on stream and frame only. The last argument is their count."""
        *of, count = of
        return torch.randn(count, generator=self._generator(*of), dtype=torch.float64)

    def _generator(self, first: int, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(((self.seed * 1_000_003) + first) * 1_000_003 + number)

    def points(self, frame: int) -> Tensor:
        """Return the ground-truth world points of a frame. (H, W, 3)"""
        camera = Cameras(self.known.cam_from_world[frame].double(), self.known.intrinsics.double())
        return unproject(self.known.depth[frame].double(), camera)


def thumbnails(images: Tensor) -> Tensor:
    """Return a descriptor that identifies an image, also after compression. (S, 3, H, W) → (S, 192)"""
    return nn.functional.adaptive_avg_pool2d(images.double(), THUMBNAIL).flatten(1)


def _rotation_and_center(cam_from_world: Tensor) -> tuple[Tensor, Tensor]:
    world_from_cam = invert_pose(cam_from_world)
    return world_from_cam[:, :3], world_from_cam[:, 3]


def _unit(count: int) -> Tensor:
    """(1, 0, 0, …)"""
    return torch.eye(count, dtype=torch.float64)[0]

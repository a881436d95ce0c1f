"""A stand-in for a network that knows the truth of one video and errs as it is told to.

It shows what is done with a network's answers (stitching, closing of loops) apart from how good a network is. Its
numbers say nothing about any network.
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
from streamvggt.model.memory import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction

THUMBNAIL = 8
"""Frames are recognised by so many pixels, down and across."""


@dataclass(frozen=True)
class Known:
    """A video and what is true of it.

    images: RGB in [0, 1]; no two alike. (S, 3, H, W)
    depth: (S, H, W)
    cam_from_world: (S, 3, 4)
    intrinsics: of all frames, principal point in the middle. (3, 3)
    """

    images: Tensor
    depth: Tensor
    cam_from_world: Tensor
    intrinsics: Tensor


@dataclass(frozen=True)
class Errors:
    """How the oracle errs; by default not at all, but that every stream has its own world and scale.

    rotation_drift_deg, translation_drift, drift_scale: of each step from frame to frame: degrees about the camera's
        down axis, shares of its typical depth to the right, logarithm.
    random_walk: random drift of each step: radians, shares of the typical depth, logarithm alike.
    drift_doubling_frames: frames after which a stream's drift is twice that of its start; networks err more the
        longer they go on.
    noise: of depth, pixel by pixel, logarithm.
    outlier_ratio, wrong_factor: of the pixels, in patches, depth is off by about that factor.
    informative_confidence: wrong pixels have low confidence.
    failure_frame: from this frame of the video on, streams opened before it was seen answer nonsense, as `failure_mode`
        says: "jump": the camera is elsewhere; "confidence": nothing is trusted; "nan": no numbers; "scale": depth
            shrinks.
    aliasing_distance: a camera further than this from the last frame's is taken for the last frame's: what happens
        where two places look alike.
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


class OracleMemory:
    """What a stream of an `Oracle` remembers: where its world is by now.

    world: from the truth to the stream's own world, at the latest frame.
    first, last: numbers in the video of its first and latest frame.
    opened: the latest frame that any stream had seen when this one began.
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
        """As `StreamMemory.all_or_nothing`."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise


class Oracle(nn.Module):
    """Takes the place of a `StreamVGGT` in a session; float64 on the CPU."""

    def __init__(self, known: Known, errors: Errors | None = None, *, encoder: VGGT | None = None, seed: int = 0):
        """
        Args:
            encoder: whose encoder is asked for features, so that places are recognised by a real one's.
            seed: other errors of the same kind.
        """
        super().__init__()
        self.known, self.errors, self.seed = known, errors or Errors(), seed
        self.heads = ("camera", "depth")
        self.patch_size = 14
        self.where = nn.Parameter(torch.zeros((), dtype=torch.float64))  # sessions ask where a model is
        self._thumbnails = thumbnails(known.images)
        self._encoder = (encoder,)  # not a part of this one
        self.num_encoded = 0
        self._latest = -1
        self.aggregator = SimpleNamespace(encode_patches=self._encode)

    def new_memory(self, policy: EvictionPolicy | None = None, **_) -> OracleMemory:
        return OracleMemory(policy)

    def _encode(self, images: Tensor) -> Tensor:
        self.num_encoded += images.shape[1]
        (encoder,) = self._encoder
        if encoder is None:
            return thumbnails(images.flatten(0, 1))[None, :, None]
        return encoder.aggregator.encode_patches(images.to(next(encoder.parameters())))

    def forward(
        self, images: Tensor, *, memory: OracleMemory, patch_tokens: Tensor | None = None, heads=None, query_points=None
    ) -> Prediction:
        """The prediction of the next frame. (1, 1, 3, H, W)"""
        self.num_encoded += patch_tokens is None
        errors = self.errors
        frame = int((self._thumbnails - thumbnails(images[0])).abs().sum(-1).argmin())
        pose = self.known.cam_from_world[frame].double()
        depth = self.known.depth[frame].double()
        typical = depth.median()
        camera = Sim3(torch.ones_like(typical), *_rotation_and_centre(pose))
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
                last = Sim3(torch.ones_like(typical), *_rotation_and_centre(before))
                memory.world = memory.world @ last @ camera.inverse()
        memory.last, self._latest = frame, max(self._latest, frame)
        memory.num_frames += 1
        return self._answer(frame, pose, depth, memory)

    def _answer(self, frame: int, pose: Tensor, depth: Tensor, memory: OracleMemory) -> Prediction:
        errors = self.errors
        height, width = depth.shape
        noise = self._random(memory.first, 10_000 + frame, height * width).view(height, width)
        random = torch.rand(2, height // 7, width // 7, generator=self._generator(memory.first, 20_000 + frame))
        chance, size = random.repeat_interleave(7, 1).repeat_interleave(7, 2).double()
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
        """Normal numbers, the same for the same stream and frame; the last argument says how many."""
        *of, count = of
        return torch.randn(count, generator=self._generator(*of), dtype=torch.float64)

    def _generator(self, first: int, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(((self.seed * 1_000_003) + first) * 1_000_003 + number)

    def points(self, frame: int) -> Tensor:
        """True world points of a frame. (H, W, 3)"""
        camera = Cameras(self.known.cam_from_world[frame].double(), self.known.intrinsics.double())
        return unproject(self.known.depth[frame].double(), camera)


def thumbnails(images: Tensor) -> Tensor:
    """A few numbers by which an image is known again, also after it was compressed. (S, 3, H, W) → (S, 192)"""
    return nn.functional.adaptive_avg_pool2d(images.double(), THUMBNAIL).flatten(1)


def _rotation_and_centre(cam_from_world: Tensor) -> tuple[Tensor, Tensor]:
    world_from_cam = invert_pose(cam_from_world)
    return world_from_cam[:, :3], world_from_cam[:, 3]


def _unit(count: int) -> Tensor:
    """(1, 0, 0, …)"""
    return torch.eye(count, dtype=torch.float64)[0]

"""Keyframes for loop detection and the similarity of their descriptors.

C channels · K keyframes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from streamvggt.stream.submaps.observation import FrameObservation

JPEG_QUALITY = 95


@dataclass(frozen=True)
class LoopKeyframe:
    """A keyframe that a later submap can be matched to.

    Attributes:
        frame: Index of the frame in the stream.
        submap: Index of the submap that predicted the frame.
        descriptor: Normalized mean encoder feature of the frame. (C,)
        jpeg: Compressed image, uint8. (num_bytes,)
        observation: The frame in the world of its submap.
    """

    frame: int
    submap: int
    descriptor: Tensor
    jpeg: Tensor
    observation: FrameObservation

    @classmethod
    def create(
        cls, frame: int, submap: int, features: Tensor, image: Tensor, observation: FrameObservation
    ) -> LoopKeyframe:
        """Compress a frame into a keyframe.

        Args:
            frame: Index of the frame in the stream.
            submap: Index of the submap that predicted the frame.
            features: Patch features of the image. (1, 1, num_patches, C)
            image: RGB in [0, 1]. (3, H, W)
            observation: The frame in the world of its submap.
        """
        pixels = (image.detach() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        descriptor = torch.nn.functional.normalize(features[0, 0].float().mean(0), dim=0)
        return cls(frame, submap, descriptor.half().cpu(), torch.from_numpy(jpeg).flatten(), observation)

    def image(self) -> Tensor:
        """Decode the image: RGB in [0, 1], float32. (3, H, W)"""
        pixels = cv2.imdecode(self.jpeg.numpy(), cv2.IMREAD_COLOR)[..., ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255

    @property
    def num_bytes(self) -> int:
        return self.descriptor.nbytes + self.jpeg.nbytes + self.observation.num_bytes

    def state_dict(self) -> list[Any]:
        """Return the constructor's arguments, in order."""
        return [self.frame, self.submap, self.descriptor, self.jpeg, self.observation.state_dict()]

    @classmethod
    def from_state_dict(cls, state: list[Any]) -> LoopKeyframe:
        *parts, observation = state
        return cls(*parts, FrameObservation(*observation))


def descriptor_similarity(new: LoopKeyframe, old: list[LoopKeyframe]) -> Tensor:
    """Return the cosine similarity of a keyframe to others after subtracting the mean descriptor of all. (K,)"""
    descriptors = torch.stack([keyframe.descriptor for keyframe in (*old, new)]).float()
    descriptors = torch.nn.functional.normalize(descriptors - descriptors.mean(0), dim=-1)
    return descriptors[:-1] @ descriptors[-1]


def subsample(keyframes: list[LoopKeyframe], max_keyframes: int) -> list[LoopKeyframe]:
    """Remove the keyframes of every second submap, except the first and last, until at most `max_keyframes` remain."""
    while len(keyframes) > max_keyframes:
        submaps = sorted({keyframe.submap for keyframe in keyframes})
        if len(submaps) < 3:
            return keyframes[:1] + keyframes[len(keyframes) - max_keyframes + 1 :]
        removed = set(submaps[1:-1:2])
        keyframes = [keyframe for keyframe in keyframes if keyframe.submap not in removed]
    return keyframes

"""Places that a stream has seen, and which of them a new frame looks like.

C channels · K key frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from streamvggt.stream.windows.sight import Sight

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Place:
    """A key frame.

    frame, window: its number in the stream, and that of the window that answered it.
    looks: what the network's encoder says of it, on the whole. (C,)
    jpeg: its image, compressed; uint8. (bytes,)
    sight: in the world of its window.
    """

    frame: int
    window: int
    looks: Tensor
    jpeg: Tensor
    sight: Sight

    @classmethod
    def of(cls, frame: int, window: int, patches: Tensor, image: Tensor, sight: Sight) -> Place:
        """
        Args:
            patches: what the encoder says of the image. (1, 1, h·w, C)
            image: RGB in [0, 1]. (3, H, W)
        """
        pixels = (image.detach() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        looks = torch.nn.functional.normalize(patches[0, 0].float().mean(0), dim=0)
        return cls(frame, window, looks.half().cpu(), torch.from_numpy(jpeg).flatten(), sight)

    def image(self) -> Tensor:
        """RGB in [0, 1], float32. (3, H, W)"""
        pixels = cv2.imdecode(self.jpeg.numpy(), cv2.IMREAD_COLOR)[..., ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255

    @property
    def num_bytes(self) -> int:
        return self.looks.nbytes + self.jpeg.nbytes + self.sight.num_bytes

    def state(self) -> list[Any]:
        return [self.frame, self.window, self.looks, self.jpeg, self.sight.state()]

    @classmethod
    def from_state(cls, state: list[Any]) -> Place:
        *parts, sight = state
        return cls(*parts, Sight(*sight))


def alikeness(new: Place, old: list[Place]) -> Tensor:
    """How much a key frame looks like others: cosines of what sets each apart from all of them. (K,)"""
    looks = torch.stack([place.looks for place in (*old, new)]).float()
    looks = torch.nn.functional.normalize(looks - looks.mean(0), dim=-1)
    return looks[:-1] @ looks[-1]


def thinned(places: list[Place], most: int) -> list[Place]:
    """At most so many key frames: while there are more, those of every second window go, but the ends'."""
    while len(places) > most:
        windows = sorted({place.window for place in places})
        if len(windows) < 3:
            return places[:1] + places[len(places) - most + 1 :]
        gone = set(windows[1:-1:2])
        places = [place for place in places if place.window not in gone]
    return places

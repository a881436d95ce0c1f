"""Rendered batches used more than once, each time looking different, where rendering would take learning's time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import torch

from streamvggt.data.synthetic.batches import WorldBatches
from streamvggt.data.view import Batch


@dataclass(frozen=True)
class Replay:
    """Batch k is one of the newest `window` of the k // times + 1 batches rendered so far, varied.

    So every rendered batch is used `times` times on average, spread over the time it stays in the window. Like its
    source, it answers the same for the same number whenever it is asked; only how fast depends on what is held.

    Varied are what the geometry does not notice: the order of the frames (kept, turned round, or any), the order of the
    colour channels, brightness and contrast of the whole sequence.
    """

    source: WorldBatches
    times: int = 3
    window: int = 48
    _held: OrderedDict[int, Batch] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.times < 1 or self.window < 1:
            raise ValueError(f"Replay: times={self.times} and window={self.window} must be at least 1")

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(self.source.seed * 1_000_003 + index)
        newest = index // self.times
        chosen = newest - int(torch.randint(min(self.window, newest + 1), (), generator=generator))
        return vary(self._rendered(chosen), generator)

    def _rendered(self, index: int) -> Batch:
        if index not in self._held:
            self._held[index] = self.source[index]
        self._held.move_to_end(index)
        while len(self._held) > self.window:
            self._held.popitem(last=False)
        return self._held[index]


def vary(batch: Batch, generator: torch.Generator) -> Batch:
    """The same measurements in another order of time and other colours; tracks are lost."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    order = torch.arange(batch.num_frames)
    way = draw(0, 1)
    if way < 0.3:
        order = order.flip(0)
    elif way < 0.6:
        order = torch.randperm(batch.num_frames, generator=generator)
    channels = torch.arange(3) if draw(0, 1) < 0.5 else torch.randperm(3, generator=generator)
    images = batch.images[:, order][:, :, channels]
    mean = images.mean((1, 2, 3, 4), keepdim=True)
    images = ((images - mean) * draw(0.8, 1.25) + mean * draw(0.8, 1.25)).clamp(0, 1)

    per_frame = ("depth", "valid", "sky", "intrinsics", "cam_from_world", "object_ids")
    reordered = {n: None if (v := getattr(batch, n)) is None else v[:, order] for n in per_frame}
    return replace(batch, images=images, tracks=None, visibility=None, **reordered)

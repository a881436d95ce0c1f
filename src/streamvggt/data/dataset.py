"""Training samples of one data set: selected views of a scene, resized to one size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError
from streamvggt.data.sampling import ViewSampler
from streamvggt.data.transforms import ColorJitter, Size, crop_and_resize
from streamvggt.data.view import View

MAX_NEIGHBORS = 20
"""Maximum number of replacements of a frame without depth."""


@dataclass(frozen=True)
class Sample:
    """Views of one size.

    Attributes:
        scene: Name of the scene.
        frames: Names of the frames.
        is_video: Whether the views are in temporal order.
        seconds: Loading time in seconds.
    """

    views: list[View]
    scene: str
    frames: list[str]
    is_video: bool
    seconds: float


class MultiViewDataset:
    """Indexed samples of a data set on the disk. Nothing is read before the first access."""

    def __init__(
        self,
        open_source: Callable[[], DatasetReader],
        root: str | Path,
        *,
        view_sampler: ViewSampler | None = None,
        max_views: int = 10,
        crop_augmentation_px: int = 0,
        jitter: bool = False,
        match_orientation: bool = False,
    ):
        """Configure the data set.

        Args:
            open_source: Opens the reader of the data set on first use.
            root: Folder of the data set, for messages.
            view_sampler: Selection of views. None uses that of the reader.
            max_views: Maximum number of views per sample.
            crop_augmentation_px: Maximum number of pixels by which a view is enlarged before it is cropped; 0: none.
            jitter: Apply one random color change to all views of a sample.
            match_orientation: Swap width and height of the requested size for portrait images. Otherwise portrait
                images are cropped to it, as in the reference implementation.
        """
        self.open_source, self.root, self.view_sampler = open_source, root, view_sampler
        self.max_views, self.crop_augmentation_px, self.jitter, self.match_orientation = (
            max_views,
            crop_augmentation_px,
            jitter,
            match_orientation,
        )

    @cached_property
    def source(self) -> DatasetReader:
        return self.open_source()

    @cached_property
    def _ends(self) -> np.ndarray:
        """Cumulative number of items per scene. (scenes,)"""
        source, views = self.source, self.max_views
        items = [self._view_sampler(scene).num_items(source, scene, views) for scene in source.scenes]
        if not sum(items):
            raise ValueError(
                f"{source.name}: nothing to train on in {self.root}: of {len(items)} scenes none has {views} frames"
            )
        return np.cumsum(items)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def num_scenes(self) -> int:
        """Number of scenes with samples."""
        return int((np.diff(self._ends, prepend=0) > 0).sum())

    def sample(self, item: int, num_views: int, size: Size, random: np.random.Generator) -> Sample:
        """Load views of a scene.

        Args:
            item: Index below `len(self)`.
            num_views: Number of views.
            size: Width and height of the views in pixels.
            random: Random generator. Equal states give equal samples.

        Raises:
            DataError: If a file is damaged.
            OSError: If a file is missing.
        """
        began = time.perf_counter()
        source = self.source
        scene, within = self._locate_item(item)
        chosen = self._view_sampler(scene).select_views(source, scene, within, num_views, self.max_views, random)
        is_masked = random.random() < source.mask_prob
        shown, views, used = [], [], set(chosen.positions)
        for number in chosen.positions:
            view = self._read(scene, number, is_masked)
            if self.match_orientation and not views:
                size = _oriented_size(size, view)
            view = self._fit(view, scene, number, size, random)
            if source.replace_empty_depth and not view.valid.any():
                number, view = self._neighbor(scene, number, is_masked, size, used, random)
            shown.append(number)
            views.append(view)
        if self.jitter:
            change = ColorJitter.draw(random)
            views = [replace(view, image=change(view.image)) for view in views]
        is_video = chosen.is_video and shown == sorted(shown)  # a replacement can be an earlier frame
        names = [source.frames(scene)[number] for number in shown]
        return Sample(views, scene, names, is_video, time.perf_counter() - began)

    def _locate_item(self, item: int) -> tuple[str, int]:
        """Return the scene of an item, and the index within the scene."""
        position = int(np.searchsorted(self._ends, item, side="right"))
        return self.source.scenes[position], item - (int(self._ends[position - 1]) if position else 0)

    def _view_sampler(self, scene: str) -> ViewSampler:
        return self.view_sampler or self.source.view_sampler_for(scene)

    def _read(self, scene: str, number: int, is_masked: bool) -> View:
        frame = self.source.frames(scene)[number]
        view = self.source.read(scene, frame)
        if is_masked:
            foreground = self.source.foreground(scene, frame)
            if foreground.shape != view.valid.shape:
                sizes = f"{tuple(foreground.shape)} pixels, the image {tuple(view.valid.shape)}"
                raise DataError(f"{self.root}/{scene}, frame {frame}: the mask has {sizes}")
            inside = view.valid & foreground
            view = replace(view, depth=view.depth * inside, valid=inside)
        return view

    def _fit(self, view: View, scene: str, number: int, size: Size, random: np.random.Generator) -> View:
        extra = int(random.integers(self.crop_augmentation_px)) if self.crop_augmentation_px > 1 else 0
        try:
            return crop_and_resize(view, size, extra)
        except DataError as error:
            raise DataError(f"{self.root}/{scene}, frame {self.source.frames(scene)[number]}: {error}") from error

    def _neighbor(
        self, scene: str, number: int, is_masked: bool, size: Size, used: set[int], random: np.random.Generator
    ) -> tuple[int, View]:
        """Return the nearest unused frame with depth and its index. The search direction is random and wraps around."""
        frames = self.source.frames(scene)
        way = 1 if random.random() < 0.5 else -1
        around = [(number + way * distance) % len(frames) for distance in range(1, len(frames))]
        for other in [candidate for candidate in around if candidate not in used][:MAX_NEIGHBORS]:
            view = self._fit(self._read(scene, other, is_masked), scene, other, size, random)
            if view.valid.any():
                used.add(other)
                return other, view
        raise DataError(f"{self.root}/{scene}: frame {frames[number]} has no depth, nor have its neighbors")


def _oriented_size(size: Size, view: View) -> Size:
    """Swap width and height if the view is in portrait orientation."""
    height, width = view.depth.shape
    return (min(size), max(size)) if height > width else (max(size), min(size)) if width > height else size


def view_size(views: Sequence[View]) -> Size:
    """Return the common width and height of views."""
    height, width = views[0].depth.shape
    return width, height

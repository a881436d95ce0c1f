"""Training samples of one data set: several views of a scene, chosen, read and brought to one size."""

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

MAX_NEIGHBOURS = 20
"""How many frames are tried in place of one without depth."""


@dataclass(frozen=True)
class Sample:
    """Views of one size.

    scene, frames: where they come from.
    is_video: whether they are in the order of time.
    seconds: what it took to make.
    """

    views: list[View]
    scene: str
    frames: list[str]
    is_video: bool
    seconds: float


class MultiViewDataset:
    """Samples by number, of a data set on the disk; nothing is read before one is asked for."""

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
        """
        Args:
            open_source: opens the reader of the data set when it is needed first.
            root: where the data set lies, for messages.
            selection: how views are chosen; None: as the data set's source says.
            max_views: the largest number of views that will be asked for.
            crop_augmentation_px: every view is made larger by up to this many pixels before it is cut; 0: none.
            jitter: colours are changed, in all views of a sample alike.
            match_orientation: samples of upright images swap width and height of the size asked for. Otherwise they are
                cut to it, as in the published training.
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
        """Number of items up to and including each scene. (scenes,)"""
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
        """Scenes that give samples."""
        return int((np.diff(self._ends, prepend=0) > 0).sum())

    def sample(self, item: int, num_views: int, size: Size, random: np.random.Generator) -> Sample:
        """Some views of a scene.

        Args:
            item: below `len(self)`.
            size: (width, height) of the views.
            random: decides all that is left open; the same numbers give the same sample.

        Raises:
            DataError, OSError: what was to be read is damaged or missing.
        """
        began = time.perf_counter()
        source = self.source
        scene, within = self._scene_of(item)
        chosen = self._view_sampler(scene).select_views(source, scene, within, num_views, self.max_views, random)
        is_masked = random.random() < source.mask_prob
        shown, views, used = [], [], set(chosen.positions)
        for number in chosen.positions:
            view = self._read(scene, number, is_masked)
            if self.match_orientation and not views:
                size = _oriented_size(size, view)
            view = self._fit(view, scene, number, size, random)
            if source.replace_empty_depth and not view.valid.any():
                number, view = self._neighbour(scene, number, is_masked, size, used, random)
            shown.append(number)
            views.append(view)
        if self.jitter:
            change = ColorJitter.draw(random)
            views = [replace(view, image=change(view.image)) for view in views]
        is_video = chosen.is_video and shown == sorted(shown)  # a replacement may come from before
        names = [source.frames(scene)[number] for number in shown]
        return Sample(views, scene, names, is_video, time.perf_counter() - began)

    def _scene_of(self, item: int) -> tuple[str, int]:
        """The scene of an item, and which of the scene's items it is."""
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

    def _neighbour(
        self, scene: str, number: int, is_masked: bool, size: Size, used: set[int], random: np.random.Generator
    ) -> tuple[int, View]:
        """The nearest frame with depth that is not shown yet, and its number; one way round the scene or the other."""
        frames = self.source.frames(scene)
        way = 1 if random.random() < 0.5 else -1
        around = [(number + way * distance) % len(frames) for distance in range(1, len(frames))]
        for other in [candidate for candidate in around if candidate not in used][:MAX_NEIGHBOURS]:
            view = self._fit(self._read(scene, other, is_masked), scene, other, size, random)
            if view.valid.any():
                used.add(other)
                return other, view
        raise DataError(f"{self.root}/{scene}: frame {frames[number]} has no depth, nor have its neighbours")


def _oriented_size(size: Size, view: View) -> Size:
    """The size turned as the view is: portrait or landscape."""
    height, width = view.depth.shape
    return (min(size), max(size)) if height > width else (max(size), min(size)) if width > height else size


def view_size(views: Sequence[View]) -> Size:
    """(width, height) of views that share it."""
    height, width = views[0].depth.shape
    return width, height

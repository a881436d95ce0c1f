"""Selection and order of the views of a training sample.

A sampler counts the samples of a scene (`num_items`) and selects the views of one (`select_views`). Frames are
identified by their positions in `source.frames(scene)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from streamvggt.data.decode import DataError

Item = TypeVar("Item")


class Frames(Protocol):
    """Frames of the scenes of a data set, as `DatasetReader` lists them."""

    def frames(self, scene: str) -> Sequence[str]:
        """Return the frame names of a scene in temporal order."""

    def segments(self, scene: str) -> Sequence[Sequence[int]]:
        """Return the positions of consecutive frames of one camera."""

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        """Return the positions of frames with common content."""

    def overlap(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        """Return directed pairs of frame positions and their overlap. int (2, M), float (M,)"""


@dataclass(frozen=True)
class SelectedViews:
    """Selected views.

    Attributes:
        positions: Positions of the frames in display order.
        is_video: Whether the order is temporal.
    """

    positions: list[int]
    is_video: bool


class ViewSampler(Protocol):
    def num_items(self, source: Frames, scene: str, num_views: int) -> int:
        """Return the number of samples of a scene with up to `num_views` views."""

    def select_views(
        self, source: Frames, scene: str, item: int, num_views: int, max_views: int, random: np.random.Generator
    ) -> SelectedViews:
        """Select the views of sample `item` of a scene.

        Args:
            source: The data set.
            scene: Name of the scene.
            item: Index below `num_items`.
            num_views: Number of views.
            max_views: The `num_views` of the call of `num_items`.
            random: Random generator.

        Raises:
            DataError: If the scene has no such sample.
        """


@dataclass(frozen=True)
class ClipSampler:
    """Frames after a start frame at random intervals, in temporal order (a video) or shuffled (a collection).

    Attributes:
        max_interval: Maximum step between consecutive frames.
        video_prob: Probability of a video.
        fix_interval_prob: Probability of equal intervals in a video.
        block_shuffle: Collections are shuffled within blocks of this many views. None shuffles all views.
        allow_repeat: Use scenes with fewer frames than views, with repeated frames.
    """

    max_interval: int = 25
    video_prob: float = 0.5
    fix_interval_prob: float = 0.5
    block_shuffle: int | None = None
    allow_repeat: bool = False

    def num_starts(self, num_frames: int, num_views: int) -> int:
        """Return the number of possible start frames. The last frames have too few successors."""
        needed = max(num_views // 3, min(3, num_views)) if self.allow_repeat else num_views
        return max(num_frames - needed + 1, 0)

    def num_items(self, source: Frames, scene: str, num_views: int) -> int:
        return sum(self.num_starts(len(run), num_views) for run in source.segments(scene))

    def select_views(
        self, source: Frames, scene: str, item: int, num_views: int, max_views: int, random: np.random.Generator
    ) -> SelectedViews:
        for run in source.segments(scene):
            starts = self.num_starts(len(run), max_views)
            if item < starts:
                return self.from_run(run, item, num_views, random)
            item -= starts
        raise DataError(f"{scene} has too few frames for {max_views} views")

    def from_run(self, run: Sequence[int], start: int, num_views: int, random: np.random.Generator) -> SelectedViews:
        """Return a clip of a run that starts at its frame `start`."""
        within, is_video = self.clip(len(run), start, num_views, random)
        return SelectedViews([run[position] for position in within], is_video)

    def clip(self, length: int, start: int, num_views: int, random: np.random.Generator) -> tuple[list[int], bool]:
        """Return frame indices of a run of `length`, and whether they are a video."""
        steps, remaining = num_views - 1, length - 1 - start
        if remaining < steps:
            return self._repeated(start, remaining, num_views, random)
        if remaining == steps:
            return list(range(start, length)), True
        if steps == 0:
            return [start], True
        largest = min(self.max_interval, 2 * remaining // steps)
        gaps = random.integers(1, largest + 1, steps)
        is_video = random.random() < self.video_prob
        if is_video and random.random() < self.fix_interval_prob:
            gaps[:] = random.integers(1, min(largest, remaining // steps) + 1)
        positions = [start, *(start + np.cumsum(gaps)).tolist()]
        inside = [position for position in positions if position < length]
        unused = np.setdiff1d(np.arange(start, length), inside)
        beyond = random.choice(unused, num_views - len(inside), replace=False).tolist()
        positions = [*inside, *beyond]
        return (sorted(positions), True) if is_video else (self._shuffled(positions, random), False)

    def _shuffled(self, positions: list[int], random: np.random.Generator) -> list[int]:
        block = self.block_shuffle or len(positions)
        blocks = [positions[first : first + block] for first in range(0, len(positions), block)]
        return [position for block in blocks for position in random.permutation(block).tolist()]

    def _repeated(
        self, latest_start: int, remaining: int, num_views: int, random: np.random.Generator
    ) -> tuple[list[int], bool]:
        """Return frame indices with repetition, for fewer frames than views."""
        num_distinct = remaining
        if num_distinct < 2:
            return [latest_start] * num_views, False
        start = int(random.integers(0, latest_start + 1))
        left = latest_start + remaining - start
        largest = max(min(self.max_interval, left // (num_distinct - 1)), 1)
        distinct = start + np.concatenate([[0], np.cumsum(random.integers(1, largest + 1, num_distinct - 1))])
        kind = random.random()
        if kind < 0.5:
            is_video = random.random() < self.video_prob
            order = distinct if is_video else random.permutation(distinct)
            return np.resize(order, num_views).tolist(), is_video  # repeats the order
        drawn = random.choice(distinct, num_views)
        return (np.sort(drawn).tolist(), True) if kind >= 0.9 else (drawn.tolist(), False)


def _num_starts(source: Frames, scene: str, num_views: int) -> int:
    """Return the number of frames, or 0 if they are fewer than the views."""
    num_frames = len(source.frames(scene))
    return num_frames if num_frames >= num_views else 0


@dataclass(frozen=True)
class CovisibilitySampler:
    """Members of one of the scene's `groups` in any order, or a clip of one of its `segments`.

    Attributes:
        clips: Sampler of clips.
        clip_prob: Probability of a clip: of the segment of the group's first member, from a random start.
        best_first: Select only from the best members of a group, two to four times the number of views.
        ordered_prob: Probability of temporal order of a group.
    """

    clips: ClipSampler
    clip_prob: float
    best_first: bool = False
    ordered_prob: float = 0.0

    def num_items(self, source: Frames, scene: str, num_views: int) -> int:
        """Return the number of frames. The groups are not read, because they have gigabytes."""
        return _num_starts(source, scene, num_views)

    def select_views(
        self, source: Frames, scene: str, item: int, num_views: int, max_views: int, random: np.random.Generator
    ) -> SelectedViews:
        groups = source.groups(scene)
        large = [number for number, group in enumerate(groups) if len(group) >= num_views]
        group = groups[large[np.searchsorted(large, item) % len(large)]] if large else None
        runs = [run for run in source.segments(scene) if self.clips.num_starts(len(run), num_views)]
        if runs and (group is None or random.random() < self.clip_prob):
            first = item if group is None else group[0]
            run = next((run for run in runs if first in run), runs[0])
            start = int(random.integers(self.clips.num_starts(len(run), num_views)))
            return self.clips.from_run(run, start, num_views, random)
        if group is None:
            raise DataError(f"{scene} has no group of {num_views} overlapping frames, and no clip of this length")
        if self.best_first:
            group = group[: min(len(group), int(num_views * (2 + 2 * random.random())))]
        members = random.permutation(np.asarray(group))[:num_views]
        if random.random() < self.ordered_prob:
            members.sort()
            return SelectedViews(
                members.tolist(), any(set(members.tolist()) <= set(run) for run in source.segments(scene))
            )
        return SelectedViews(members.tolist(), False)


@dataclass(frozen=True)
class GroupSampler:
    """Random members of one of the scene's `groups` in any order."""

    def num_items(self, source: Frames, scene: str, num_views: int) -> int:
        return len(source.groups(scene))

    def select_views(
        self, source: Frames, scene: str, item: int, num_views: int, max_views: int, random: np.random.Generator
    ) -> SelectedViews:
        members = np.unique(source.groups(scene)[item])
        if len(members) < num_views:
            raise DataError(f"set {item} of {scene} has {len(members)} different images, {num_views} are wanted")
        return SelectedViews(random.choice(members, num_views, replace=False).tolist(), False)


@dataclass(frozen=True)
class GraphWalkSampler:
    """Random walk over frames with sufficient `overlap`. The step probability increases with the overlap.

    Attributes:
        min_overlap: Exclusive minimum overlap of a step.
    """

    min_overlap: float = 0.2

    def num_items(self, source: Frames, scene: str, num_views: int) -> int:
        return _num_starts(source, scene, num_views)

    def select_views(
        self, source: Frames, scene: str, item: int, num_views: int, max_views: int, random: np.random.Generator
    ) -> SelectedViews:
        """Walk from the frame or, if too few frames are reachable, from its nearest neighbors by index."""
        num_frames = len(source.frames(scene))
        (first, second), shared = source.overlap(scene)
        enough = shared > self.min_overlap
        first, second, weight = first[enough], second[enough], shared[enough] - self.min_overlap
        order = np.argsort(first, kind="stable")
        first, second, weight = first[order], second[order], weight[order]
        bounds = np.searchsorted(first, np.arange(num_frames + 1))
        edges = [(second[a:b], weight[a:b]) for a, b in pairwise(bounds)]
        for distance in range(num_frames // 2 + 1):
            for start in dict.fromkeys(((item + distance) % num_frames, (item - distance) % num_frames)):
                if len(walk := self._walk(edges, start, num_views, random)) == num_views:
                    return SelectedViews(walk, False)
        raise DataError(f"{scene}: no {num_views} frames are connected by an overlap above {self.min_overlap}")

    @staticmethod
    def _walk(edges: list, start: int, num_views: int, random: np.random.Generator) -> list[int]:
        """Walk depth first without repetition, with backtracking, as far as possible."""
        walk, seen, path = [start], {start}, [start]
        while path and len(walk) < num_views:
            neighbors, weight = edges[path[-1]]
            new = [number for number, frame in enumerate(neighbors) if int(frame) not in seen]
            if not new:
                path.pop()
                continue
            chance = weight[new] / weight[new].sum()
            following = int(neighbors[random.choice(new, p=chance)])
            seen.add(following)
            walk.append(following)
            path.append(following)
        return walk


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` ≥ 1 evenly spaced items, the first and the last among them if `count` is more than 1."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]

"""Check a data set: available scenes, unreadable files, and geometric consistency of the views of each scene."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Protocol

import numpy as np
from tqdm import tqdm

from streamvggt.data.decode import DataError
from streamvggt.data.scene_check import SceneVerdict, judge_scene
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View
from streamvggt.data.visualization import consistency_image, depth_figure
from streamvggt.words import counted

MAX_DEPTH_RATIO = 300
"""By how much the median depth of a frame may differ from its scene's; millimeters for meters are a factor of 1000."""
METRIC_DEPTH = 0.03, 1000.0
"""Median depth of a frame in meters, at least and at most."""


class ReadableDataset(Protocol):
    """Protocol of checkable sets: training data and test sets."""

    scenes: list[str]

    def frames(self, scene: str) -> Sequence[str]: ...

    def read(self, scene: str, frame: str) -> View: ...


@dataclass
class CheckReport:
    """Result of a check of a data set.

    Attributes:
        num_scenes, num_frames: Number of available scenes and frames.
        too_short: Scenes with fewer frames than a training sample has views.
        num_read: Number of frames that were read.
        failed: Errors of frames.
        verdicts: Geometric consistency of each scene with cameras.
        rows: Title and images of pairs, the worst first: image and depth of both views, and the pixels that agree.
    """

    num_scenes: int = 0
    num_frames: int = 0
    too_short: list[str] = field(default_factory=list)
    num_read: int = 0
    failed: list[str] = field(default_factory=list)
    verdicts: list[SceneVerdict] = field(default_factory=list)
    rows: list[tuple[str, list[np.ndarray]]] = field(default_factory=list)

    @property
    def disagreeing(self) -> list[SceneVerdict]:
        return [verdict for verdict in self.verdicts if verdict.problem]

    @property
    def problems(self) -> list[str]:
        """Return all errors as text."""
        return [*(f"{verdict.scene}: {verdict.problem}" for verdict in self.disagreeing), *self.failed]

    @property
    def is_valid(self) -> bool:
        return not self.failed and not self.disagreeing and self.num_frames > 0

    def __str__(self) -> str:
        parts = [f"{counted(self.num_scenes, 'scene')}, {counted(self.num_frames, 'frame')}"]
        if self.too_short:
            some = ", ".join(self.too_short[:3]) + (", …" if len(self.too_short) > 3 else "")
            parts.append(f"{counted(len(self.too_short), 'scene')} too short to train on ({some})")
        parts.append(f"{counted(self.num_read, 'frame')} read")
        if self.failed:
            parts.append(f"{len(self.failed)} OF THEM BAD")
        judged = [verdict for verdict in self.verdicts if verdict.consistent_ratio or verdict.problem]
        if judged:
            shares = [share for verdict in judged for share in verdict.consistent_ratio]
            text = f": {median(shares):.0%} (median of {counted(len(shares), 'pair')})" if shares else ""
            views = f"VIEWS DISAGREE in {len(self.disagreeing)} of" if self.disagreeing else "views agree in"
            parts.append(f"{views} {counted(len(judged), 'scene')}{text}")
        if unjudged := len(self.verdicts) - len(judged):
            parts.append(f"{counted(unjudged, 'scene')} without views that overlap")
        return ", ".join(parts)


def check(
    readable: ReadableDataset,
    *,
    name: str,
    num_frames: int | None = 40,
    num_pairs: int | None = 4,
    num_rows: int = 2,
    num_views: int = 10,
    has_cameras: bool = True,
    workers: int = 1,
) -> CheckReport:
    """Read frames, spread over the scenes, and check the geometry of every scene.

    Args:
        num_frames: Frames to read. None: all.
        num_pairs: Pairs of views to compare per scene. None: every frame and the next.
        num_rows: Pairs in the figure.
        num_views: Views of a training sample.
        has_cameras: False if frames have no cameras.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))  # the same every time
    frames = {scene: readable.frames(scene) for scene in readable.scenes}
    findings = CheckReport(
        num_scenes=sum(bool(some) for some in frames.values()),
        num_frames=sum(map(len, frames.values())),
        too_short=[scene for scene, some in frames.items() if len(some) < num_views],
    )
    chosen = list(_spread(frames, num_frames, random))
    with ThreadPoolExecutor(max(workers, 1)) as pool:

        def each(function: Callable, items: Sequence, unit: str) -> Iterator:
            shown = {"total": len(items), "unit": unit, "leave": False, "dynamic_ncols": True}
            return zip(items, tqdm(pool.map(function, items), name, **shown), strict=True)

        depths: dict[str, list[tuple[str, float]]] = {}
        for (scene, frame), outcome in each(lambda place: _looked_at(readable, *place), chosen, "frame"):
            findings.num_read += 1
            if isinstance(outcome, str):
                findings.failed.append(outcome)
            else:
                depths.setdefault(scene, []).append((frame, outcome))
        findings.failed += _odd_depths(depths, getattr(readable, "is_metric", False))
        if has_cameras:
            scenes = [scene for scene, some in frames.items() if len(some) > 1]

            def judge(scene: str) -> SceneVerdict:
                own = np.random.default_rng(zlib.crc32(f"{name} {scene}".encode()))
                return judge_scene(readable, scene, frames[scene], num_pairs, own)

            for _, verdict in each(judge, scenes, "scene"):
                findings.verdicts.append(verdict)
                _keep_worst(findings, verdict, num_rows)
        else:
            for scene, frame in chosen[:num_rows]:
                with suppress(DataError, OSError):
                    view = readable.read(scene, frame)
                    findings.rows.append((f"{scene}   {frame}", [image_array(view.image), depth_figure(view)]))
    findings.rows = [(f"{name}   {title}", pictures) for title, pictures in findings.rows]
    return findings


def _keep_worst(findings: CheckReport, verdict: SceneVerdict, num_rows: int) -> None:
    """Draw the worst pairs of all scenes and drop the views of the others."""
    candidates = [one for one in findings.verdicts if one.worst and one.worst.views]
    candidates.sort(key=lambda one: (one.problem is None, one.worst.found.consistent_ratio))
    for one in candidates[num_rows:]:
        one.worst = replace(one.worst, views=None)
    findings.rows = [_row(one) for one in candidates[:num_rows]]


def _row(verdict: SceneVerdict) -> tuple[str, list[np.ndarray]]:
    found, (first, second), views = verdict.worst.found, verdict.worst.frames, verdict.worst.views
    text = f"overlap {found.overlap:.0%}, of it agreeing {found.consistent_ratio:.0%}"
    pictures = [picture for view in views for picture in (image_array(view.image), depth_figure(view))]
    return f"{verdict.scene}   {first}, {second}   {text}", [*pictures, consistency_image(*views)]


def _odd_depths(depths: dict[str, list[tuple[str, float]]], is_metric: bool) -> Iterator[str]:
    """Return frames whose depth seems to have a unit different from that of their scene, or different from meters."""
    for scene, frames in depths.items():
        usual = median(depth for _, depth in frames)
        for frame, depth in frames:
            if max(depth / usual, usual / depth) > MAX_DEPTH_RATIO:
                yield f"{scene} {frame}: its median depth is {depth:g}, that of the scene's frames {usual:g}"
        if is_metric and not METRIC_DEPTH[0] <= usual <= METRIC_DEPTH[1]:
            yield f"{scene}: median depth: expected {METRIC_DEPTH[0]} to {METRIC_DEPTH[1]} meters, got {usual:g}"


def _spread(
    frames: dict[str, Sequence[str]], count: int | None, random: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Select frames of as many scenes as possible: one per scene, then a second one per scene, …"""
    if count is None:
        yield from ((scene, frame) for scene, some in frames.items() for frame in some)
        return
    scenes = [scene for scene, some in frames.items() if len(some)]
    order = {scene: random.permutation(len(frames[scene]))[:count] for scene in random.permutation(scenes)[:count]}
    turns = ((scene, order[scene][turn]) for turn in range(count) for scene in order if turn < len(order[scene]))
    yield from ((scene, frames[scene][number]) for scene, number in islice(turns, count))


def _looked_at(readable: ReadableDataset, scene: str, frame: str) -> str | float:
    """Return the median depth of a frame (1 if all of it is sky), or the error of the frame."""
    try:
        view = readable.read(scene, frame)
    except (DataError, OSError) as error:
        return str(error)
    if not (view.valid | view.sky).any():
        return f"{scene} {frame}: no pixel has a depth"
    (height, width), (depth_height, depth_width) = view.image.shape[1:], view.depth.shape
    if abs(width * depth_height / (height * depth_width) - 1) > 0.02:
        return f"{scene} {frame}: the image has {width}×{height} pixels, its depth {depth_width}×{depth_height}"
    return view.depth[view.valid].median().item() if view.valid.any() else 1.0

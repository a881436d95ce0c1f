"""Looks through a data set: what is there, what cannot be read, whether its views agree about the geometry."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Protocol

import numpy as np
from tqdm import tqdm

from streamvggt.data.agreement import agreement, is_sparse
from streamvggt.data.decode import BadData
from streamvggt.data.picture import agreement_picture, depth_picture
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View

ENOUGH_OVERLAP, ENOUGH_SPARSE_OVERLAP = 0.2, 0.04
"""Share of a view that must be seen by another one to say whether they agree; where depth is known at single pixels
only, few meet one of them."""
ENOUGH_AGREEMENT = 0.3
"""Less than this share of what two views both see is hardly to be explained by things that move or hide each other."""
STEPS = (1, 2, 5)
"""Distances, in frames, of the pairs that are compared."""


class Readable(Protocol):
    """What can be checked: the sources of training data, and test sets."""

    scenes: list[str]

    def frames(self, scene: str) -> Sequence[str]: ...

    def read(self, scene: str, frame: str) -> View: ...


@dataclass
class Findings:
    """What is known of a data set after a look through it.

    num_scenes, num_frames: that are there.
    short: scenes with fewer frames than a training sample has views.
    num_read: frames that were read.
    bad: what is wrong with frames that could not be read.
    agreeing: share of what two views both see that they see at the same place, of each pair that was compared.
    rows: title and pictures of the pairs: image and depth of both, and where they agree.
    """

    num_scenes: int = 0
    num_frames: int = 0
    short: list[str] = field(default_factory=list)
    num_read: int = 0
    bad: list[str] = field(default_factory=list)
    agreeing: list[float] = field(default_factory=list)
    rows: list[tuple[str, list[np.ndarray]]] = field(default_factory=list)

    @property
    def disagrees(self) -> bool:
        return bool(self.agreeing) and median(self.agreeing) < ENOUGH_AGREEMENT

    @property
    def is_good(self) -> bool:
        return not self.bad and not self.disagrees and self.num_frames > 0

    def __str__(self) -> str:
        said = [f"{self.num_scenes} scenes, {self.num_frames} frames"]
        if self.short:
            some = ", ".join(self.short[:3]) + (", …" if len(self.short) > 3 else "")
            said.append(f"{len(self.short)} scenes too short to train on ({some})")
        said.append(f"{self.num_read} frames read")
        if self.bad:
            said.append(f"{len(self.bad)} OF THEM BAD")
        if self.agreeing:
            verdict = "VIEWS DISAGREE" if self.disagrees else "views agree"
            said.append(f"{verdict}: {median(self.agreeing):.0%} (median of {len(self.agreeing)} pairs)")
        return ", ".join(said)


def check(
    readable: Readable,
    *,
    name: str,
    num_frames: int | None = 40,
    num_pairs: int = 12,
    num_rows: int = 2,
    num_views: int = 10,
    has_cameras: bool = True,
    workers: int = 1,
) -> Findings:
    """Read frames, spread over the scenes, and compare pairs of them.

    Args:
        num_frames: to read; None: all.
        num_rows: pairs that give a row of pictures.
        num_views: of a training sample.
        has_cameras: False where frames have no cameras to compare views with.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))  # the same every time
    frames = {scene: readable.frames(scene) for scene in readable.scenes}
    findings = Findings(
        num_scenes=sum(bool(some) for some in frames.values()),
        num_frames=sum(map(len, frames.values())),
        short=[scene for scene, some in frames.items() if len(some) < num_views],
    )
    chosen = list(_spread(frames, num_frames, random))
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        outcomes = pool.map(lambda place: _problem(readable, *place), chosen)
        for problem in tqdm(outcomes, name, total=len(chosen), unit="frame", leave=False, dynamic_ncols=True):
            findings.num_read += 1
            if problem:
                findings.bad.append(problem)
    if has_cameras:
        _compare(readable, frames, findings, num_pairs, num_rows, random)
    else:
        for scene, frame in chosen[:num_rows]:
            if view := _try(lambda scene=scene, frame=frame: readable.read(scene, frame)):
                findings.rows.append((f"{scene}   {frame}", [image_array(view.image), depth_picture(view)]))
    findings.rows = [(f"{name}   {title}", pictures) for title, pictures in findings.rows]
    return findings


def _spread(
    frames: dict[str, Sequence[str]], count: int | None, random: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Frames of as many scenes as possible: one of each, then another one of each, …"""
    if count is None:
        yield from ((scene, frame) for scene, some in frames.items() for frame in some)
        return
    scenes = [scene for scene, some in frames.items() if len(some)]
    order = {scene: random.permutation(len(frames[scene]))[:count] for scene in random.permutation(scenes)[:count]}
    turns = ((scene, order[scene][turn]) for turn in range(count) for scene in order if turn < len(order[scene]))
    yield from ((scene, frames[scene][number]) for scene, number in islice(turns, count))


def _problem(readable: Readable, scene: str, frame: str) -> str | None:
    """What is wrong with a frame; None: nothing."""
    try:
        view = readable.read(scene, frame)
    except (BadData, OSError) as error:
        return str(error)
    return None if (view.valid | view.sky).any() else f"{scene} {frame}: no pixel has a depth"


def _compare(
    readable: Readable,
    frames: dict[str, Sequence[str]],
    findings: Findings,
    num_pairs: int,
    num_rows: int,
    random: np.random.Generator,
) -> None:
    """Compare neighbours until enough pairs were found that overlap."""
    scenes = random.permutation([scene for scene, some in frames.items() if len(some) > 1]).tolist()
    for attempt in range(4 * num_pairs if scenes else 0):
        scene = scenes[attempt % len(scenes)]
        step = min(STEPS[attempt % len(STEPS)], len(frames[scene]) - 1)
        start = int(random.integers(len(frames[scene]) - step))
        pair = frames[scene][start], frames[scene][start + step]
        views = [_try(lambda scene=scene, frame=frame: readable.read(scene, frame)) for frame in pair]
        if None in views or views[0].depth.shape != views[1].depth.shape:
            continue
        found = agreement(*views)
        overlaps = found.overlap > (ENOUGH_SPARSE_OVERLAP if is_sparse(views[1]) else ENOUGH_OVERLAP)
        if overlaps:
            findings.agreeing.append(found.agreeing)
        if len(findings.rows) < num_rows and (overlaps or attempt > num_pairs):
            title = f"{scene}   {pair[0]}, {pair[1]}   overlap {found.overlap:.0%}, of it agreeing {found.agreeing:.0%}"
            pictures = [picture for view in views for picture in (image_array(view.image), depth_picture(view))]
            findings.rows.append((title, [*pictures, agreement_picture(*views)]))
        if len(findings.agreeing) >= num_pairs and len(findings.rows) >= num_rows:
            return


def _try(read: Callable[[], View]) -> View | None:
    try:
        return read()
    except (BadData, OSError):
        return None

"""Base class and options of all frame sources."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvggt.frame import Frame
from streamvggt.stream.preprocess import validate_options


@dataclass(frozen=True)
class FrameOptions:
    """Selection and preprocessing of frames, see `load_frames`."""

    size: int = 518
    patch_size: int = 14
    mode: str = "crop"
    fast_resize: bool = False
    fps: float | None = None
    stride: int = 1
    max_frames: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        validate_options(**self.placement_options)
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1; got {self.stride}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames must be at least 1; got {self.max_frames}")
        if self.fps is not None and not 1e-3 <= self.fps <= 1e3:
            raise ValueError(f"fps must be between 0.001 and 1000 frames per second; got {self.fps}")
        if self.fps is not None and self.stride > 1:
            raise ValueError("fps and stride both select frames; give only one of them")

    @property
    def placement_options(self) -> dict:
        return {"size": self.size, "patch_size": self.patch_size, "mode": self.mode}

    @property
    def preprocess_options(self) -> dict:
        return {**self.placement_options, "fast_resize": self.fast_resize}


class FrameSource(ABC):
    """Frames of one input. Each iteration starts from the beginning.

    Attributes:
        kind: "images", "video" or "live".
        skipped: Name and reason of each unreadable item, filled during iteration.
        num_frames: Expected number of frames for a progress bar. An estimate for videos, None if unknown.
        files: All files of the source in order. Empty for cameras and URLs.
    """

    kind: str
    num_frames: int | None
    files: Sequence[Path] = ()

    def __init__(self, options: FrameOptions) -> None:
        self.options = options
        self.start = 0
        self.skipped: list[tuple[str, str]] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def from_index(self, index: int) -> "FrameSource":
        """Return a source with the frames whose `Frame.index` is at least `index`, to resume an interrupted run."""
        if self.kind == "live" and index > 0:
            raise ValueError("starting_at: expected images or a video file, got a live source.")
        later = copy.copy(self)
        later.start, later.skipped = index, []
        return later

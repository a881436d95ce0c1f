"""Examples of the page: clips with a thumbnail that start with one click and suitable settings."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvggt.app.thumbnail import small_jpeg
from streamvggt.stream.frames import load_frames

THUMBNAIL_HEIGHT = 120


@dataclass(frozen=True)
class Example:
    """An example.

    Attributes:
        label: Text of the button, unique on the page.
        path: Video, or folder of photos.
        memory: Eviction policy, a label of `page.POLICY_CHOICES`.
        fps: Frames per second of a video. 0 takes every frame.
        max_frames: Maximum number of frames.
    """

    label: str
    path: Path
    memory: str = "recommended"
    fps: float = 0
    max_frames: int = 100

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]


def thumbnail_css(examples: Sequence[Example]) -> str:
    """Return CSS that shows the first frame of each example on its button, `#example-0` and so on.

    The images are part of the style sheet, so no route serves files of the examples.
    """
    rules = []
    for number, example in enumerate(examples):
        frame = next(iter(load_frames(example.path, max_frames=1)))
        image = base64.b64encode(small_jpeg(frame.original, THUMBNAIL_HEIGHT)).decode()
        rules.append(f'#example-{number}::before {{ background-image: url("data:image/jpeg;base64,{image}"); }}')
    return "\n".join(rules)

"""Output of one run: its result folder, and packets of its frames for the browser."""

import threading
from pathlib import Path

from streamvggt.app.packet import Track, pack, updated_ranges
from streamvggt.choices import PointSource
from streamvggt.export import ReconstructionResult, ResultFrame, ResultWriter
from streamvggt.export.video import ColorRanges, color_ranges
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction


class RunOutput:
    """Output of one run.

    Args:
        folder: Folder of this run only.

    Attributes:
        tracks: Tracked points of each frame.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tracks: list[list[Track]] = []
        self._ranges: ColorRanges | None = None

    def add(self, writer: ResultWriter, frame: Frame, prediction: Prediction) -> None:
        """Store the next frame."""
        stored = writer.add(frame, prediction)
        self.tracks.append(get_tracks(stored, prediction))
        self._ranges = updated_ranges(self._ranges, stored)
        self._write_packet(stored, writer.num_frames - 1, "depth")

    def has_packet(self, position: int, source: PointSource) -> bool:
        return self._packet_path(position, source).exists()

    def packet(self, position: int, source: PointSource) -> bytes:
        """Return the packet of a frame. Created at the first request."""
        if not self.has_packet(position, source):
            self._write_packet(ReconstructionResult(self.folder)[position], position, source)
        return self._packet_path(position, source).read_bytes()

    def _write_packet(self, frame: ResultFrame, position: int, source: PointSource) -> None:
        ranges = self._ranges or color_ranges(ReconstructionResult(self.folder))
        path = self._packet_path(position, source)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(pack(frame, position, source, ranges, self.tracks[position]))
        part.replace(path)

    def _packet_path(self, position: int, source: PointSource) -> Path:
        return self.folder / f"packets-{source}" / f"{position:06d}.bin"


def get_tracks(frame: ResultFrame, prediction) -> list[Track]:
    """Return image position and world position of the tracked points in a frame."""
    if prediction.tracks is None:
        return []
    height, width = frame.image.shape[:2]
    points, _ = frame.world_points("depth")
    usable = frame.valid_mask("depth")
    tracks = []
    for (x, y), visible in zip(prediction.tracks[0, 0].tolist(), prediction.visibility[0, 0].tolist(), strict=True):
        column, row = round(x), round(y)
        is_inside = 0 <= column < width and 0 <= row < height and usable[row, column]
        tracks.append(Track(x, y, visible, tuple(points[row, column].tolist()) if is_inside else None))
    return tracks

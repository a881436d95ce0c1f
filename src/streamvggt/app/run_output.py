"""Output of one run: its result folder, and packets of its frames for the browser."""

import shutil
from pathlib import Path

import numpy as np

from streamvggt.app.packet import pack, pixel_marks, updated_ranges
from streamvggt.app.packet_file import PacketFile
from streamvggt.app.tracking import Track, get_tracks
from streamvggt.choices import PointSource
from streamvggt.export import EXPORTERS, ExportOptions, ReconstructionResult, ResultFrame, ResultWriter
from streamvggt.export.video import ColorRanges, color_ranges
from streamvggt.files import atomic_write
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction


class RunOutput:
    """Output of one run.

    Args:
        folder: Folder of this run only.

    Attributes:
        tracks: Tracked points of each frame.
        packets: Packets of the frames.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tracks: list[list[Track]] = []
        self.packets = PacketFile(folder / "packets.bin")
        self._ranges: ColorRanges | None = None

    def add(self, writer: ResultWriter, frame: Frame, prediction: Prediction) -> None:
        """Store the next frame."""
        stored = writer.add(frame, prediction)
        self.tracks.append(get_tracks(stored, prediction))
        self._ranges = updated_ranges(self._ranges, stored)
        self._add_packet(stored, writer.num_frames - 1, "depth")

    def packet(self, position: int, source: PointSource) -> bytes:
        """Return the packet of a frame. Created at the first request."""
        if (position, source) not in self.packets:
            self._add_packet(ReconstructionResult(self.folder)[position], position, source)
        return self.packets.read(position, source)

    def depth(self, position: int, step: int = 1) -> np.ndarray:
        """Return depth, confidence and marks of every `step`-th pixel of a frame. 0 marks missing depth.

        The marks of a pixel are those of the `step`×`step` pixels that start there, so that no edge is left out.

        Returns:
            Float32. (3, ceil(H / step), ceil(W / step))
        """
        frame = ReconstructionResult(self.folder)[position]
        usable = frame.valid_mask("depth")
        marks = pixel_marks(frame, "depth")
        height, width = marks.shape
        step = min(step, max(height, width))  # the padding takes step×step pixels
        blocks = np.pad(marks, ((0, -height % step), (0, -width % step)))
        blocks = blocks.reshape(-(-height // step), step, -(-width // step), step)
        values = [np.where(usable, value, 0)[::step, ::step] for value in (frame.depth, frame.depth_conf)]
        return np.stack([*values, np.bitwise_or.reduce(blocks, axis=(1, 3))]).astype("<f4")

    def export(self, kind: str, folder: Path, options: ExportOptions) -> Path:
        """Write one file of the result to a folder: GLB, PLY, TUM or MP4, or a folder as a zip archive.

        Raises:
            ValueError: If the options remove everything.
        """
        path = EXPORTERS[kind](ReconstructionResult(self.folder), folder, options)
        if not path.is_dir():
            return path
        archive = path.with_suffix(".zip")
        with atomic_write(archive, durable=False) as temporary:  # the previous archive may be downloading
            shutil.make_archive(str(temporary.with_suffix("")), "zip", path)
        shutil.rmtree(path)
        return archive

    def _add_packet(self, frame: ResultFrame, position: int, source: PointSource) -> None:
        ranges = self._ranges or color_ranges(ReconstructionResult(self.folder))
        self.packets.add(position, source, pack(frame, position, source, ranges, self.tracks[position]))

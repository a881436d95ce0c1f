"""The result folder with the predictions of each frame. All exports read this folder.

    frames/000000.npz     a `ResultFrame`; the number is the position in the stream, 0 .. n-1, without gaps
    images/<name>.jpg     the original image
    trajectory.txt        TUM lines, one per frame
    corrections.json      only after loop closure: corrections that `ReconstructionResult` applies on reading

A frame is finished if its .npz exists. Files are written atomically, so the folder can be read at any time, including
during the run and after a crash. H×W are pixels of the processed image (the model input).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from streamvggt.export.corrections import read_corrections
from streamvggt.export.frame_file import FrameT, load_frame
from streamvggt.export.result_frame import FrameCamera, ResultFrame

FRAME_FILE = re.compile(r"([0-9]{6}|[1-9][0-9]{6,17})\.npz")


def frame_files(folder: Path | str) -> list[Path]:
    """Return the frame files of a result in stream order. Empty if the folder does not exist."""
    paths = [path for path in (Path(folder) / "frames").glob("*.npz") if FRAME_FILE.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.stem))


class ReconstructionResult(Sequence[ResultFrame]):
    """Read a result with one frame in memory at a time: `len(result)`, `result[3]`, `for frame in result`.

    The number of frames is fixed when the result is opened.

    Args:
        folder: Result folder.
        change: Change of each frame on reading, after the corrections. None: no change.

    Raises:
        FileNotFoundError: If the folder is not a result, or has no finished frame.
        ValueError: If a frame before the last one is missing. On access: if a frame file is damaged.
    """

    def __init__(self, folder: Path | str, change: Callable[[FrameT], FrameT] | None = None):
        self.folder = Path(folder)
        self._change = change
        self.paths = frame_files(self.folder)
        self._corrections = read_corrections(self.folder)
        if not self.paths:
            raise FileNotFoundError(f"{self.folder} is not a result: no finished frame in {folder}/frames")
        for position, path in enumerate(self.paths):
            if int(path.stem) != position:
                raise ValueError(
                    f"{self.folder} has a gap: frame {position:06d}.npz is missing before {path.name}. "
                    "Remove the frames after the gap, and continue with --resume"
                )

    def with_change(self, change: Callable[[FrameT], FrameT]) -> ReconstructionResult:
        """Return the result with another change on reading, after the present one."""
        before = self._change
        return ReconstructionResult(self.folder, change if before is None else lambda frame: change(before(frame)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> ResultFrame:
        return self._load(position, ResultFrame)

    def camera(self, position: int) -> FrameCamera:
        """Return the camera of a frame without reading its images."""
        return self._load(position, FrameCamera)

    def _load(self, position: int, kind: type[FrameT]) -> FrameT:
        position = range(len(self))[position]
        frame, world = load_frame(self.paths[position], kind), self._corrections.at(position)
        frame = frame if world is None else frame.transform(world)
        return frame if self._change is None else self._change(frame)

    def cameras(self) -> list[FrameCamera]:
        """Return the cameras of all frames."""
        return [self.camera(position) for position in range(len(self))]

    def frames(self, purpose: str, positions: Sequence[int] | None = None) -> Iterator[tuple[int, ResultFrame]]:
        """Yield stream positions and frames one by one with a progress bar titled `purpose`."""
        positions = range(len(self)) if positions is None else positions
        for position in tqdm(positions, desc=purpose, unit="frame", disable=None):
            yield position, self[position]

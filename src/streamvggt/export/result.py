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
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from copy import copy
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from streamvggt.export.corrections import read_corrections
from streamvggt.export.frame_file import FrameT, load_frame
from streamvggt.export.result_frame import FrameCamera, ResultFrame

Made = TypeVar("Made")
Tasks = Generator[Callable[[], Made], None, None]
"""Functions without arguments, to call in this order or at once."""
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
        run_tasks: Calls the functions of `mapped` and yields the results in order, for example `read_ahead`, which
            calls several at once. None: one after the other.

    Raises:
        FileNotFoundError: If the folder is not a result, or has no finished frame.
        ValueError: If a frame before the last one is missing. On access: if a frame file is damaged.
    """

    def __init__(
        self,
        folder: Path | str,
        run_tasks: Callable[[Tasks], Generator] | None = None,
    ):
        self.folder = Path(folder)
        self._run_tasks = run_tasks
        self._change: Callable[[FrameT], FrameT] | None = None  # after the corrections
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
        before, changed = self._change, copy(self)
        changed._change = change if before is None else lambda frame: change(before(frame))
        return changed

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

    def frames(
        self, purpose: str, positions: Sequence[int] | None = None
    ) -> Generator[tuple[int, ResultFrame], None, None]:
        """Yield stream positions and frames one by one with a progress bar titled `purpose`."""
        return self.mapped(purpose, lambda frame: frame, positions)

    def mapped(
        self, purpose: str, function: Callable[[ResultFrame], Made], positions: Sequence[int] | None = None
    ) -> Generator[tuple[int, Made], None, None]:
        """Yield stream positions and the results of a function of the frames, in order, with a progress bar.

        Args:
            purpose: Title of the progress bar.
            function: Function of one frame. `run_tasks` decides which thread calls it.
            positions: Stream positions of the frames. None: all.
        """
        positions = range(len(self)) if positions is None else positions
        tasks = (partial(self._apply, function, position) for position in positions)
        results = (task() for task in tasks) if self._run_tasks is None else self._run_tasks(tasks)
        with closing(results), tqdm(total=len(positions), desc=purpose, unit="frame", disable=None) as bar:
            for position, made in zip(positions, results, strict=True):
                yield position, made
                bar.update()

    def _apply(self, function: Callable[[ResultFrame], Made], position: int) -> Made:
        return function(self[position])

"""Write a result while the stream runs. `streamvggt.export.result` describes the files."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from streamvggt.export.check import checked_frames, image_problem
from streamvggt.export.corrections import FILE_NAME as CORRECTIONS
from streamvggt.export.frame_file import DamagedResult, encode_frame, load_frame
from streamvggt.export.result import frame_files
from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.export.tum import tum_line, write_tum
from streamvggt.files import atomic_write_bytes
from streamvggt.frame import Frame
from streamvggt.names import is_plain
from streamvggt.prediction import Prediction
from streamvggt.words import counted


class ResultWriter:
    """Write a result while the stream runs, without keeping frames in memory.

    Args:
        folder: Output folder. Created if needed.
        resume: Number of finished frames to keep. Later frames are deleted. None starts a new result.
        change: Change of each frame before it is stored. None: stored as predicted.
        durable: As for `atomic_write`. If False, the image of a frame is also not replaced atomically.

    Raises:
        FileExistsError: If `folder` contains frames and `resume` is None, or has images or a trajectory of another
            origin.
        ValueError: If there are fewer than `resume` frames, or one of them or its image is damaged. Nothing is deleted.
    """

    def __init__(
        self,
        folder: Path | str,
        resume: int | None = None,
        change: Callable[[ResultFrame], ResultFrame] | None = None,
        durable: bool = True,
    ):
        self.folder = Path(folder)
        self._change = change
        self._write = partial(atomic_write_bytes, durable=durable)
        self._write_image = self._write if durable else Path.write_bytes  # readers see it after its frame file
        finished = frame_files(self.folder)
        if finished and resume is None:
            raise FileExistsError(
                f"{self.folder} already contains {counted(len(finished), 'frame')}: continue with --resume or choose "
                "another --out"
            )
        if not (self.folder / "frames").exists():  # the folder has no result
            for path in (*(self.folder / "images").glob("*"), *self.folder.glob("trajectory.txt")):
                raise FileExistsError(f"{path} would be overwritten, perhaps it is an input: choose another --out")
        self.num_frames = resume or 0
        if self.num_frames > len(finished):
            raise ValueError(
                f"resume: expected at most {counted(len(finished), 'finished frame')} of {self.folder}, got {resume}."
            )
        kept = self._kept(finished[: self.num_frames])  # check before deleting anything
        (self.folder / CORRECTIONS).unlink(missing_ok=True)  # left by a completed run
        for name in ("frames", "images"):  # frames first, because their presence identifies the folder as a result
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._remove(finished[self.num_frames :])
        write_tum(self.folder / "trajectory.txt", *kept)

    def add(self, frame: Frame, prediction: Prediction) -> ResultFrame:
        """Store the next frame of the stream and return the stored frame.

        Raises:
            ValueError: If the prediction has no cameras, or more than one frame.
            OSError: If writing fails, for example because the disk is full. Finished frames are kept.
        """
        stored = self._converted(frame, prediction)
        with self.explained(frame):
            self.write_image(frame)
            self._write_frame(stored)
        return stored

    def write_image(self, frame: Frame) -> None:
        """Store the original image of a frame. Safe in other threads, and in any order of the frames.

        JPEG files are copied without metadata. Other images are encoded with quality 95.

        Raises:
            ValueError: If the name of the frame is not a plain file name.
        """
        if not is_plain(frame.name):
            raise ValueError(f"name: expected a plain file name, got {frame.name!r}")
        self._write_image(self.folder / "images" / f"{frame.name}.jpg", frame.jpeg or encode_jpeg(frame.original))

    def finish(self, frame: Frame, prediction: Prediction) -> None:
        """Store the prediction of the next frame of the stream, whose image is stored."""
        self._write_frame(self._converted(frame, prediction))

    def _converted(self, frame: Frame, prediction: Prediction) -> ResultFrame:
        stored = ResultFrame.from_prediction(frame, prediction)
        return stored if self._change is None else self._change(stored)

    def _write_frame(self, stored: ResultFrame) -> None:
        self._write(self.folder / "frames" / f"{self.num_frames:06d}.npz", encode_frame(stored))
        with open(self.folder / "trajectory.txt", "a", encoding="utf-8") as file:
            file.write(tum_line(self.num_frames if stored.time is None else stored.time, stored.cam_from_world))
        self.num_frames += 1

    @contextmanager
    def explained(self, frame: Frame) -> Iterator[None]:
        """Raise errors of writing the next frame with the place, the reason and the fix."""
        try:
            yield
        except OSError as error:
            if not (self.folder / "frames").is_dir() or not (self.folder / "images").is_dir():
                raise FileNotFoundError(
                    f"cannot write frame {self.num_frames} ({frame.name}): expected the folder {self.folder}, got "
                    "none: it was deleted or moved. Start again, or move it back and go on."
                ) from error
            free = shutil.disk_usage(self.folder).free / 1e9
            raise OSError(
                error.errno,
                f"cannot write frame {self.num_frames} ({frame.name}) to {self.folder}: {error.strerror or error}. "
                f"{free:.1f} GB are free. {counted(self.num_frames, 'finished frame')} kept: continue with --resume",
            ) from error

    def _kept(self, paths: list[Path]) -> tuple[list[float | None], list[np.ndarray]]:
        """Check the frames to keep and their images. Return their times and poses."""
        times, poses = [], []
        for path, frame in zip(paths, checked_frames(paths), strict=True):
            if problem := image_problem(self.folder, frame):
                raise DamagedResult(
                    f"{problem}. Put it back, or remove {path.name} and the frames after it, and continue with --resume"
                )
            times.append(frame.time)
            poses.append(frame.cam_from_world)
        return times, poses

    def _remove(self, frames: list[Path]) -> None:
        for path in reversed(frames):  # delete the last frame first, so that an interruption leaves no gap
            try:
                image = self.folder / "images" / f"{load_frame(path, FrameCamera).name}.jpg"
            except ValueError:  # damaged; its image is written again
                image = None
            path.unlink()
            if image is not None:
                image.unlink(missing_ok=True)


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encode an image. uint8 RGB (H, W, 3)"""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()

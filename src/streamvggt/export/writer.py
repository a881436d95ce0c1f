"""Writing a result while the stream runs. The files are explained in `streamvggt.export.result`."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from streamvggt.export.check import checked_frames, image_problem
from streamvggt.export.corrections import FILE_NAME as CORRECTIONS
from streamvggt.export.frame_file import DamagedResult, load_frame, save_frame
from streamvggt.export.result import FrameCamera, ResultFrame, frame_files
from streamvggt.export.tum import tum_line, write_tum
from streamvggt.files import atomic_write
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction
from streamvggt.words import counted


class ResultWriter:
    """Writes a result while the stream runs; keeps nothing in memory.

    Args:
        folder: made if needed.
        resume: how many of the finished frames to keep and go on after; later ones are removed. None starts anew.

    Raises:
        FileExistsError: `folder` holds frames and `resume` is None, or images or a trajectory that no run wrote.
        ValueError: there are fewer frames than `resume`, or one of them or its image is damaged; nothing is removed.
    """

    def __init__(self, folder: Path | str, resume: int | None = None):
        self.folder = Path(folder)
        finished = frame_files(self.folder)
        if finished and resume is None:
            raise FileExistsError(
                f"{self.folder} already holds {counted(len(finished), 'frame')}: go on with --resume or choose "
                "another --out"
            )
        if not (self.folder / "frames").exists():  # no run has been here
            for path in (*(self.folder / "images").glob("*"), *self.folder.glob("trajectory.txt")):
                raise FileExistsError(f"{path} would be overwritten, perhaps it is an input: choose another --out")
        self.num_frames = resume or 0
        if self.num_frames > len(finished):
            raise ValueError(
                f"{self.folder} holds {counted(len(finished), 'finished frame')}, {resume} to keep were asked for"
            )
        kept = self._kept(finished[: self.num_frames])  # before anything is removed
        (self.folder / CORRECTIONS).unlink(missing_ok=True)  # of a run that had come to its end
        for name in ("frames", "images"):  # frames first: they say that the images are ours
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._remove(finished[self.num_frames :])
        write_tum(self.folder / "trajectory.txt", *kept)

    def add(self, frame: Frame, prediction: Prediction) -> ResultFrame:
        """Store the next frame of the stream; answers what was stored.

        Raises:
            ValueError: the prediction has no cameras, or more than one frame.
            OSError: it could not be written, for example because the disk is full; finished frames are kept.
        """
        stored = ResultFrame.from_prediction(frame, prediction)
        try:
            with atomic_write(self.folder / "images" / f"{frame.name}.jpg", make_folder=False) as path:
                Image.fromarray(frame.original).save(path, quality=95)
            with atomic_write(self.folder / "frames" / f"{self.num_frames:06d}.npz", make_folder=False) as path:
                save_frame(path, stored)
            with open(self.folder / "trajectory.txt", "a", encoding="utf-8") as file:
                file.write(tum_line(self.num_frames if stored.time is None else stored.time, stored.cam_from_world))
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
                f"{free:.1f} GB are free there. {counted(self.num_frames, 'finished frame')} kept: go on with --resume",
            ) from error
        self.num_frames += 1
        return stored

    def _kept(self, paths: list[Path]) -> tuple[list[float | None], list[np.ndarray]]:
        """Times and poses of the frames to go on after, once all of them and their images have been checked."""
        times, poses = [], []
        for path, frame in zip(paths, checked_frames(paths), strict=True):
            if problem := image_problem(self.folder, frame):
                raise DamagedResult(
                    f"{problem}. Put it back, or remove {path.name} and the frames after it, and go on with --resume"
                )
            times.append(frame.time)
            poses.append(frame.cam_from_world)
        return times, poses

    def _remove(self, frames: list[Path]) -> None:
        for path in reversed(frames):  # the last one first, so that being killed here leaves no gap
            try:
                image = self.folder / "images" / f"{load_frame(path, FrameCamera).name}.jpg"
            except ValueError:  # damaged; its image will be written again
                image = None
            path.unlink()
            if image is not None:
                image.unlink(missing_ok=True)

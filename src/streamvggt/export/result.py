"""The folder in which a run leaves what the network said, frame by frame; every export is made from it.

    frames/000000.npz     a `ResultFrame`; the number is the position in the stream, 0 .. n-1, without gaps
    images/<name>.jpg     the original image
    trajectory.txt        TUM lines, one per frame
    corrections.json      only where loops were closed: how frames have to be moved; `ReconstructionResult` does it

A frame counts as finished when its .npz is there. Each file appears whole or not at all, so the folder can be read at
any time, also while the run goes on and after it was killed. H×W are pixels of the image as the network saw it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from streamvggt.export.corrections import read_corrections
from streamvggt.export.frame_file import FrameT, load_frame
from streamvggt.frame import Frame
from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc
from streamvggt.geometry.pointmap import project, unproject
from streamvggt.geometry.similarity import Sim3
from streamvggt.names import is_plain
from streamvggt.prediction import Prediction

PointSource = Literal["depth", "head"]
FRAME_FILE = re.compile(r"([0-9]{6}|[1-9][0-9]{6,17})\.npz")


@dataclass(frozen=True, kw_only=True)
class FrameCamera:
    """Where a frame was seen from. Conventions: docs/conventions.md.

    index: position in the input (`Frame.index`).
    name: file stem, unique in the result; files of exports bear it, so it is a plain name (`streamvggt.names`).
    time: seconds; None for photos.
    cam_from_world: [R | t], float64. (3, 4)
    intrinsics: in pixels of the processed image, float64. (3, 3)
    original_size: H0, W0 of the image as loaded.
    original_from_image: processed pixel coordinates to original ones, float64. (3, 3)
    content: top, left, bottom, right of the part of the processed image that is not padding.
    """

    index: int
    name: str
    time: float | None = None
    cam_from_world: np.ndarray
    intrinsics: np.ndarray
    original_size: tuple[int, int]
    original_from_image: np.ndarray
    content: tuple[int, int, int, int]

    def __post_init__(self):
        if not is_plain(self.name):
            raise ValueError(f"name: expected a plain file name, got {self.name!r}")

    @property
    def original_intrinsics(self) -> np.ndarray:
        """In pixels of the original image; the centre of the first pixel is (0, 0). (3, 3)"""
        return self.original_from_image @ self.intrinsics

    @property
    def camera(self) -> Cameras:
        """The same camera for `streamvggt.geometry`, float64, without leading dimensions."""
        return Cameras(torch.from_numpy(self.cam_from_world), torch.from_numpy(self.intrinsics))

    def transform(self, world: Sim3) -> FrameCamera:
        """The same in another world.

        Args:
            world: from this frame's world to the other one, float64.
        """
        return replace(self, cam_from_world=world.transform_poses(torch.from_numpy(self.cam_from_world)).numpy())


@dataclass(frozen=True, kw_only=True)
class ResultFrame(FrameCamera):
    """All that is stored of one frame; what the heads that ran did not say is None.

    image: as the network saw it, RGB, uint8. (H, W, 3)
    valid: pixels that show something (`Frame.valid`); None: all of `content`. Bool. (H, W)
    depth: distance along the optical axis. (H, W)
    points: the point head's world coordinates. (H, W, 3)
    depth_conf, points_conf: confidence ≥ 1. (H, W)
    """

    image: np.ndarray
    valid: np.ndarray | None = None
    depth: np.ndarray | None = None
    depth_conf: np.ndarray | None = None
    points: np.ndarray | None = None
    points_conf: np.ndarray | None = None

    def transform(self, world: Sim3) -> ResultFrame:
        changed = super().transform(world)
        if self.depth is not None:
            changed = replace(changed, depth=(self.depth * world.scale.item()).astype(self.depth.dtype))
        if self.points is not None:
            points = world.apply(torch.from_numpy(self.points).double().flatten(0, 1)).view(self.points.shape)
            changed = replace(changed, points=points.numpy().astype(self.points.dtype))
        return changed

    @classmethod
    def from_prediction(cls, frame: Frame, prediction: Prediction) -> ResultFrame:
        """What to store of a frame and its prediction, B = S = 1.

        Raises:
            ValueError: there are no cameras, several frames, or answers that are no numbers.
        """
        if prediction.pose_enc is None:
            raise ValueError("a result needs the cameras: add camera to --heads")
        leading = tuple(prediction.pose_enc.shape[:2])
        if leading != (1, 1):
            raise ValueError(f"a result is written frame by frame, B = S = 1; this prediction has B, S = {leading}")
        # From float64, so that the stored rotation is orthonormal to the last digit.
        cameras = cameras_from_pose_enc(prediction.cam_from_world_enc[0, 0].cpu().double(), prediction.image_size)
        arrays = {name: value[0, 0] for name, value in prediction.numpy().items()}
        # Single pixels may be anything, an infinite depth far away in half precision for one: exports leave them out.
        broken = [name for name, value in arrays.items() if np.isnan(value).all()]
        if broken or not np.isfinite(arrays["pose_enc"]).all():
            raise ValueError(
                f"the network's answer for frame {frame.name} is no number ({', '.join(broken) or 'pose_enc'}). Half "
                "precision can overflow: try --dtype float32 and another --out. Else the weights are damaged"
            )
        depth = arrays.get("depth")
        return cls(
            index=frame.index,
            name=frame.name,
            time=frame.time,
            cam_from_world=cameras.cam_from_world.numpy(),
            intrinsics=cameras.intrinsics.numpy(),
            original_size=frame.original.shape[:2],
            original_from_image=np.asarray(frame.original_from_image, np.float64),
            content=frame.content,
            image=(frame.image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy(),
            valid=None if frame.valid is None else frame.valid.cpu().numpy(),
            depth=None if depth is None else depth[..., 0],
            depth_conf=arrays.get("depth_conf"),
            points=arrays.get("points"),
            points_conf=arrays.get("points_conf"),
        )

    def predicted(self, source: PointSource) -> tuple[np.ndarray, np.ndarray]:
        """What a head said: depth (H, W) or points (H, W, 3), and how sure it is, (H, W).

        Raises:
            ValueError: that head was not run.
        """
        name, heads = {"depth": ("depth", "depth"), "head": ("point", "points")}[source]
        value, conf = (self.depth, self.depth_conf) if source == "depth" else (self.points, self.points_conf)
        if value is None or conf is None:
            raise ValueError(f"the {name} head was not run on frame {self.name}: add {heads} to --heads")
        return value, conf

    def world_points(self, source: PointSource) -> tuple[np.ndarray, np.ndarray]:
        """World coordinates of every pixel, float32 (H, W, 3), and their confidence (H, W)."""
        value, conf = self.predicted(source)
        if source == "depth":
            value = unproject(torch.from_numpy(value).double(), self.camera).float().numpy()
        return value, conf

    def camera_depth(self, source: PointSource) -> np.ndarray:
        """Distance of every pixel's point along the optical axis. (H, W)"""
        value, _ = self.predicted(source)
        if source == "head":
            points = torch.from_numpy(value).double().flatten(0, 1)
            value = project(points, self.camera)[1].float().numpy().reshape(self.image.shape[:2])
        return value

    def valid_mask(self, source: PointSource) -> np.ndarray:
        """Where a head has something to say: content, finite depth > 0 and confidence > 0. Bool. (H, W)"""
        _, conf = self.predicted(source)
        depth = self.camera_depth(source)
        top, left, bottom, right = self.content
        content = np.zeros(conf.shape, bool)
        content[top:bottom, left:right] = True
        if self.valid is not None:
            content &= self.valid
        return content & np.isfinite(conf) & (conf > 0) & np.isfinite(depth) & (depth > 0)


def frame_files(folder: Path | str) -> list[Path]:
    """The frame files of a result, in stream order; none if the folder is not there (yet)."""
    paths = [path for path in (Path(folder) / "frames").glob("*.npz") if FRAME_FILE.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.stem))


class ReconstructionResult(Sequence[ResultFrame]):
    """Reads a result, one frame in memory at a time: `len(result)`, `result[3]`, `for frame in result`.

    The number of frames is that of the moment when it was opened.

    Raises:
        FileNotFoundError: the folder is not a result, or has no finished frame.
        ValueError: a frame is missing between others; on access: a frame file is damaged.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.paths = frame_files(self.folder)
        self._corrections = read_corrections(self.folder)
        if not self.paths:
            raise FileNotFoundError(f"{self.folder} is not a result: there is no finished frame in {folder}/frames")
        for position, path in enumerate(self.paths):
            if int(path.stem) != position:
                raise ValueError(
                    f"{self.folder} has a gap: frame {position:06d}.npz is missing before {path.name}. "
                    "Remove the frames after the gap, and go on with --resume"
                )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> ResultFrame:
        return self._load(position, ResultFrame)

    def camera(self, position: int) -> FrameCamera:
        """The camera of a frame; its images stay on disk."""
        return self._load(position, FrameCamera)

    def _load(self, position: int, kind: type[FrameT]) -> FrameT:
        position = range(len(self))[position]
        frame, world = load_frame(self.paths[position], kind), self._corrections.at(position)
        return frame if world is None else frame.transform(world)

    def cameras(self) -> list[FrameCamera]:
        """The cameras of all frames."""
        return [self.camera(position) for position in range(len(self))]

    def frames(self, purpose: str, positions: Sequence[int] | None = None) -> Iterator[tuple[int, ResultFrame]]:
        """Stream positions and frames, one by one, under a progress bar that says what it is for."""
        positions = range(len(self)) if positions is None else positions
        for position in tqdm(positions, desc=purpose, unit="frame", disable=None):
            yield position, self[position]

"""Model predictions for S frames: output of the models, input of losses and exports.

B batch · S frames · H×W pixels · K query points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc, inverted_encoding
from streamvggt.geometry.pointmap import unproject
from streamvggt.geometry.rotation import quaternion_from_matrix
from streamvggt.geometry.similarity import Sim3
from streamvggt.transfer import start_download, uploaded, widest_float

PoseDirection = Literal["camera_from_world", "world_from_camera"]


@dataclass(frozen=True)
class Prediction:
    """Cameras, depth, points and tracks of S frames. Fields of heads that did not run are None.

    The world frame is the camera frame of the first frame. The network learns this convention; the code does not
    enforce it. The length unit is arbitrary, one per scene.

    Attributes:
        image_size: Height and width of the images in pixels.
        pose_enc: Translation (3), quaternion x, y, z, w (4), vertical and horizontal field of view in radians (2), as
            the network outputs them. `pose` gives the direction of the pose. (B, S, 9)
        depth: Distance along the optical axis in scene units. (B, S, H, W, 1)
        depth_conf: Confidence of the depth, ≥ 1, no unit. (B, S, H, W)
        points: World coordinates of every pixel in scene units. (B, S, H, W, 3)
        points_conf: Confidence of the points, ≥ 1, no unit. (B, S, H, W)
        tracks: Positions of the query points, (x, y) in pixels. (B, S, K, 2)
        visibility: Probability that the point is visible, in [0, 1]. (B, S, K)
        track_conf: Confidence of the track, in [0, 1]. (B, S, K)
        pose_enc_list: `pose_enc` after each iteration of the camera head, for training. (B, S, 9) each
        tracks_list: `tracks` after each iteration of the tracker, for training. (B, S, K, 2) each
        extra: Outputs of further heads by name, independent of the world frame, one entry per frame. (B, S, …) each
        dense_frames: Indices of the frames with maps (depth, points and the maps in `extra`). None: all frames.
        pose: Direction of the poses in `pose_enc` and `pose_enc_list`. `cam_from_world_enc` and `cameras()` are always
            camera-from-world.
    """

    image_size: tuple[int, int]
    pose_enc: Tensor | None = None
    depth: Tensor | None = None
    depth_conf: Tensor | None = None
    points: Tensor | None = None
    points_conf: Tensor | None = None
    tracks: Tensor | None = None
    visibility: Tensor | None = None
    track_conf: Tensor | None = None
    pose_enc_list: tuple[Tensor, ...] = ()
    tracks_list: tuple[Tensor, ...] = ()
    extra: dict[str, Tensor] = field(default_factory=dict)
    dense_frames: tuple[int, ...] | None = None
    pose: PoseDirection = "camera_from_world"

    @classmethod
    def of(
        cls,
        image_size: tuple[int, int],
        outputs: Mapping[str, Tensor | tuple[Tensor, ...]],
        *,
        dense_frames: Sequence[int] | None = None,
        pose: PoseDirection = "camera_from_world",
    ) -> Prediction:
        """Build a prediction from outputs by name. Names that are no fields are entries of `extra`."""
        known = {name: value for name, value in outputs.items() if name in FIELDS}
        extra = {name: value for name, value in outputs.items() if name not in FIELDS}
        frames = None if dense_frames is None else tuple(dense_frames)
        return cls(image_size, **known, extra=extra, dense_frames=frames, pose=pose)

    def get(self, name: str) -> Tensor | None:
        """Return an output by name, a field or an entry of `extra`. None: it was not predicted."""
        return self._tensors().get(name)

    @property
    def cam_from_world_enc(self) -> Tensor | None:
        """`pose_enc` of the camera-from-world poses. (B, S, 9)"""
        if self.pose_enc is None or self.pose == "camera_from_world":
            return self.pose_enc
        return inverted_encoding(self.pose_enc)

    def standardized(self) -> Prediction:
        """Return the prediction with camera-from-world encodings."""
        if self.pose == "camera_from_world":
            return self
        stages = tuple(inverted_encoding(stage) for stage in self.pose_enc_list)
        return replace(self, pose_enc=self.cam_from_world_enc, pose_enc_list=stages, pose="camera_from_world")

    def cameras(self) -> Cameras:
        """Decode the pose encodings to pinhole cameras.

        Returns:
            Camera-from-world poses (B, S, 3, 4) and intrinsics in pixels of the processed image (B, S, 3, 3).

        Raises:
            ValueError: If the camera head did not run.
        """
        if self.pose_enc is None:
            raise ValueError("prediction: expected cameras. Run the model with the head 'camera'.")
        return cameras_from_pose_enc(self.cam_from_world_enc, self.image_size)

    def with_points(self) -> Prediction:
        """Return the prediction with `points` unprojected from depth and cameras; `points_conf` is `depth_conf`.

        Raises:
            ValueError: If depth or cameras are missing.
        """
        if self.depth is None:
            raise ValueError("prediction: expected depth. Run the model with the head 'depth'.")
        frames = slice(None) if self.dense_frames is None else list(self.dense_frames)
        of_all = self.cameras()
        cameras = Cameras(of_all.cam_from_world[:, frames], of_all.intrinsics[:, frames])
        return replace(self, points=unproject(self.depth[..., 0], cameras), points_conf=self.depth_conf)

    @property
    def num_frames(self) -> int:
        """Number of frames S.

        Raises:
            ValueError: If `dense_frames` is set and only depth and points were predicted.
        """
        of_some = () if self.dense_frames is None else ("depth", "points", *self.extra)
        counts = [value.shape[1] for name, value in self._tensors().items() if not name.startswith(of_some)]
        if not counts:
            raise ValueError("num_frames: expected cameras or tracks beside dense_frames. Run one of these heads, too.")
        return counts[0]

    def select_frame(self, index: int) -> Prediction:
        """Return the prediction of one frame, S = 1. A negative index counts from the end."""
        index = range(self.num_frames)[index]
        return self.select_frames(slice(index, index + 1))

    def select_frames(self, which: slice) -> Prediction:
        """Return the prediction of a slice of the frames.

        Raises:
            ValueError: If `dense_frames` is set.
        """
        if self.dense_frames is not None:
            raise ValueError(
                f"select_frames: expected depth and points of all frames, got those of {[*self.dense_frames]}. "
                "Predict without dense_frames."
            )
        return self.map(lambda tensor: tensor[:, which])

    def select_stream(self, index: int) -> Prediction:
        """Return the prediction of one batch entry, B = 1."""
        return self.map(lambda tensor: tensor[index : index + 1])

    def without_stages(self) -> Prediction:
        """Return the prediction without `pose_enc_list` and `tracks_list`, which only training needs."""
        return replace(self, pose_enc_list=(), tracks_list=())

    def to(self, *args, **kwargs) -> Prediction:
        """Apply `Tensor.to` to every tensor."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def transform(self, world: Sim3) -> Prediction:
        """Transform cameras, depth and points to another world frame.

        Args:
            world: Transform from the world of this prediction to the new world, without leading dimensions.

        Returns:
            The prediction in the new world, with camera-from-world encodings.
        """

        def moved_encoding(pose_enc: Tensor) -> Tensor:
            exact = pose_enc.to(widest)
            poses = world.to(widest).transform_poses(cameras_from_pose_enc(exact, self.image_size).cam_from_world)
            quaternion = quaternion_from_matrix(poses[..., :3])
            return torch.cat([poses[..., 3], quaternion, exact[..., 7:]], -1).to(pose_enc.dtype)

        if self.pose != "camera_from_world":
            return self.standardized().transform(world)
        device = next(iter(self._tensors().values())).device
        widest = widest_float(device)
        world = Sim3.from_vector(uploaded(world.to_vector().to(widest), device))
        changed: dict[str, Any] = {}
        if self.pose_enc is not None:
            changed["pose_enc"] = moved_encoding(self.pose_enc)
            changed["pose_enc_list"] = tuple(moved_encoding(stage) for stage in self.pose_enc_list)
        if self.depth is not None:
            changed["depth"] = self.depth * world.scale.to(self.depth)
        if self.points is not None:
            exact = torch.promote_types(self.points.dtype, torch.float32)
            points = world.to(exact).apply(self.points.to(exact).flatten(2, 3))
            changed["points"] = points.view_as(self.points).to(self.points.dtype)
        return replace(self, **changed)

    def start_download(self) -> Callable[[], Prediction]:
        """Start to copy the prediction to the host without blocking, and without the lists per iteration.

        Returns:
            A function that waits for the copy and returns the prediction on the host. Any thread may call the function.
        """
        wait = start_download(self._tensors())
        return lambda: Prediction.of(self.image_size, wait(), dense_frames=self.dense_frames, pose=self.pose)

    def numpy(self) -> dict[str, np.ndarray]:
        """Return the tensors that are not None as float32 NumPy arrays by name, without the lists per iteration."""
        return {name: value.detach().float().cpu().numpy() for name, value in self._tensors().items()}

    def map(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        """Apply `function` to every tensor."""
        changed = {name: function(value) for name, value in self._tensors().items()}
        for name in ("pose_enc_list", "tracks_list"):
            changed[name] = tuple(function(stage) for stage in getattr(self, name))
        return Prediction.of(self.image_size, changed, dense_frames=self.dense_frames, pose=self.pose)

    def _tensors(self) -> dict[str, Tensor]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)} | self.extra


FIELDS = frozenset(entry.name for entry in fields(Prediction))
"""Names of the fields of `Prediction`."""


def of_frames(values: Tensor, frames: Sequence[int] | None) -> Tensor:
    """Select frames by index without a host-device synchronization.

    Args:
        values: Values per frame. (B, S, ...)
        frames: Frame indices. None: all frames.

    Returns:
        (B, len(frames), ...)
    """
    if frames is None:
        return values
    return values.index_select(1, uploaded(torch.tensor(frames), values.device))


def cat(predictions: list[Prediction]) -> Prediction:
    """Concatenate predictions along the frames.

    Args:
        predictions: At least one prediction, all with the same image size and fields. If the pose directions differ,
            all encodings are converted to camera-from-world.
    """
    if len({prediction.pose for prediction in predictions}) > 1:
        predictions = [prediction.standardized() for prediction in predictions]
    first = predictions[0]
    joined = {name: torch.cat([p.get(name) for p in predictions], 1) for name in first._tensors()}
    for name in ("pose_enc_list", "tracks_list"):
        stages = zip(*(getattr(p, name) for p in predictions), strict=True)
        joined[name] = tuple(torch.cat(stage, 1) for stage in stages)
    return Prediction.of(first.image_size, joined, pose=first.pose)

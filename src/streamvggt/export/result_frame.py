"""Camera and predictions of one frame of a result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from streamvggt.choices import PointSource
from streamvggt.export.edges import depth_edges
from streamvggt.frame import Frame
from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc
from streamvggt.geometry.pointmap import project
from streamvggt.geometry.similarity import Sim3
from streamvggt.names import is_plain
from streamvggt.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class FrameCamera:
    """Camera of a frame. Conventions: docs/conventions.md.

    Attributes:
        index: Position in the input (`Frame.index`).
        name: File stem, unique in the result. Exports use it as a file name, so it has no special characters
            (`streamvggt.names`).
        time: Seconds, see `Frame.time`. None if unknown.
        cam_from_world: [R | t], float64. (3, 4)
        intrinsics: In pixels of the processed image, float64. (3, 3)
        original_size: H0, W0 of the loaded image.
        original_from_image: Map from processed to original pixel coordinates, float64. (3, 3)
        content: Top, left, bottom and right of the processed image without padding, in pixels.
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
        """Intrinsics in pixels of the original image. The center of the first pixel is (0, 0). (3, 3)"""
        return self.original_from_image @ self.intrinsics

    @property
    def camera(self) -> Cameras:
        """The camera as `Cameras`, float64, without batch dimensions."""
        return Cameras(torch.from_numpy(self.cam_from_world), torch.from_numpy(self.intrinsics))

    def transform(self, world: Sim3) -> FrameCamera:
        """Return the camera in another world.

        Args:
            world: Similarity from the world of this frame to the other world, float64.
        """
        return replace(self, cam_from_world=world.transform_poses(torch.from_numpy(self.cam_from_world)).numpy())


@dataclass(frozen=True, kw_only=True)
class ResultFrame(FrameCamera):
    """Stored data of one frame. Outputs of heads that did not run are None.

    Attributes:
        image: Processed image (the model input), RGB, uint8. (H, W, 3)
        valid: Pixels with content (`Frame.valid`). None if all pixels of `content` are valid. Bool. (H, W)
        depth: Distance along the optical axis. (H, W)
        points: World points of the point head. (H, W, 3)
        depth_conf: Confidence of the depth, at least 1. (H, W)
        points_conf: Confidence of the points, at least 1. (H, W)
        extra: Outputs of further heads by name (`Prediction.extra`).
    """

    image: np.ndarray
    valid: np.ndarray | None = None
    depth: np.ndarray | None = None
    depth_conf: np.ndarray | None = None
    points: np.ndarray | None = None
    points_conf: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)

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
        """Convert a frame and its prediction, B = S = 1, to the stored data.

        Raises:
            ValueError: If the prediction has no cameras, several frames, or non-finite outputs.
        """
        if prediction.pose_enc is None:
            raise ValueError("a result needs the cameras: add camera to --heads")
        leading = tuple(prediction.pose_enc.shape[:2])
        if leading != (1, 1):
            raise ValueError(f"a result is written frame by frame, B = S = 1; this prediction has B, S = {leading}")
        prediction = prediction.start_download()()
        # Convert from float64, so that the stored rotation is orthonormal in full precision.
        cameras = cameras_from_pose_enc(prediction.cam_from_world_enc[0, 0].double(), prediction.image_size)
        arrays = {name: value[0, 0] for name, value in prediction.numpy().items()}
        # Single pixels may be non-finite, for example distant depth in half precision. Exports exclude them.
        broken = [name for name, value in arrays.items() if np.isnan(value).all()]
        if broken or not np.isfinite(arrays["pose_enc"]).all():
            raise ValueError(
                f"the outputs for frame {frame.name} are not numbers ({', '.join(broken) or 'pose_enc'}). Half "
                "precision can overflow: try --dtype float32 and another --out. Otherwise the weights are damaged"
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
            image=_pixels(frame),
            valid=None if frame.valid is None else frame.valid.cpu().numpy(),
            depth=None if depth is None else depth[..., 0],
            depth_conf=arrays.get("depth_conf"),
            points=arrays.get("points"),
            points_conf=arrays.get("points_conf"),
            extra={name: arrays[name] for name in prediction.extra},
        )

    def predicted(self, source: PointSource) -> tuple[np.ndarray, np.ndarray]:
        """Return the output of a head, depth (H, W) or points (H, W, 3), and its confidence (H, W).

        Raises:
            ValueError: If the head did not run.
        """
        name, heads = {"depth": ("depth", "depth"), "head": ("point", "points")}[source]
        value, conf = (self.depth, self.depth_conf) if source == "depth" else (self.points, self.points_conf)
        if value is None or conf is None:
            raise ValueError(f"the {name} head was not run on frame {self.name}: add {heads} to --heads")
        return value, conf

    def world_points(self, source: PointSource) -> tuple[np.ndarray, np.ndarray]:
        """Return the world point of every pixel, float32 (H, W, 3), and the confidence (H, W)."""
        value, conf = self.predicted(source)
        if source == "depth":
            value = self._unprojected(value)
        return value, conf

    def _unprojected(self, depth: np.ndarray) -> np.ndarray:
        """Return `unproject` of a depth map, computed in float64. NumPy takes less time for a single small frame.

        (H, W) to float32 (H, W, 3)
        """
        height, width = depth.shape
        K, rotation = self.intrinsics, self.cam_from_world[:, :3]
        x = (np.arange(width) - K[0, 2]) / K[0, 0]
        y = ((np.arange(height) - K[1, 2]) / K[1, 1])[:, None]
        center = -rotation.T @ self.cam_from_world[:, 3]
        points = np.empty((height, width, 3), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # depths that are not finite
            for axis, (right, down, forward) in enumerate(rotation.T):
                value = x * right + (y * down + forward)
                value *= depth
                value += center[axis]
                points[..., axis] = value
        return points

    def camera_depth(self, source: PointSource) -> np.ndarray:
        """Return the distance of every pixel's point along the optical axis. (H, W)"""
        value, _ = self.predicted(source)
        if source == "head":
            points = torch.from_numpy(value).double().flatten(0, 1)
            value = project(points, self.camera)[1].float().numpy().reshape(self.image.shape[:2])
        return value

    def valid_mask(self, source: PointSource) -> np.ndarray:
        """Return where a head has a valid output: content, finite depth > 0 and confidence > 0. Bool. (H, W)"""
        _, conf = self.predicted(source)
        depth = self.camera_depth(source)
        top, left, bottom, right = self.content
        content = np.zeros(conf.shape, bool)
        content[top:bottom, left:right] = True
        if self.valid is not None:
            content &= self.valid
        return content & np.isfinite(conf) & (conf > 0) & np.isfinite(depth) & (depth > 0)

    def edge_mask(self, source: PointSource) -> np.ndarray:
        """Return the pixels at depth discontinuities, whose points belong to no surface. Bool. (H, W)"""
        depth, valid = self.camera_depth(source), self.valid_mask(source)
        return depth_edges(depth, self.intrinsics, valid)


def _pixels(frame: Frame) -> np.ndarray:
    """Return the processed image, RGB, uint8 (H, W, 3). NumPy uses one thread, because other threads compute."""
    if frame.pixels is not None:
        return np.ascontiguousarray(frame.pixels.numpy().transpose(1, 2, 0))
    return np.ascontiguousarray(np.rint(frame.image.cpu().numpy() * 255).astype(np.uint8).transpose(1, 2, 0))

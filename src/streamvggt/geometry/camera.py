"""Pinhole cameras and the pose encoding of the network.

Conventions (docs/conventions.md): OpenCV axes, x right, y down, z forward; poses are camera-from-world; intrinsics are
in pixels and the center of the first pixel has coordinate (0, 0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix

MIN_FOV = 0.01  # radians


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of one image size.

    Attributes:
        cam_from_world: Camera-from-world poses [R | t]: x_camera = R·x_world + t. (..., 3, 4)
        intrinsics: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels. (..., 3, 3)
    """

    cam_from_world: Tensor
    intrinsics: Tensor

    @property
    def world_from_cam(self) -> Tensor:
        """World-from-camera poses [R | t]. The last column is the camera center. (..., 3, 4)"""
        return invert_pose(self.cam_from_world)


def invert_pose(pose: Tensor) -> Tensor:
    """Invert rigid motions.

    Args:
        pose: Rigid motions [R | t]. (..., 3, 4)

    Returns:
        Inverse motions [Rᵀ | -Rᵀt]. (..., 3, 4)
    """
    rotation, translation = pose[..., :3], pose[..., 3:]
    inverse = rotation.transpose(-1, -2)
    return torch.cat([inverse, -inverse @ translation], -1)


def compose_poses(second: Tensor, first: Tensor) -> Tensor:
    """Compose rigid motions: b_from_world = compose_poses(b_from_a, a_from_world).

    Args:
        second, first: Rigid motions [R | t] with broadcastable leading dimensions. `first` is applied first.
            (..., 3, 4)

    Returns:
        Composed motions. (..., 3, 4)
    """
    rotation = second[..., :3] @ first[..., :3]
    return torch.cat([rotation, second[..., :3] @ first[..., 3:] + second[..., 3:]], -1)


def cameras_from_pose_enc(pose_enc: Tensor, image_size: tuple[int, int]) -> Cameras:
    """Decode VGGT pose encodings ("absT_quaR_FoV") to pinhole cameras.

    Args:
        pose_enc: Translation (3), quaternion x, y, z, w (4, any length), vertical and horizontal field of view in
            radians (2) of camera-from-world poses. (..., 9)
        image_size: Height and width of the image in pixels. The principal point is (W/2, H/2).

    Returns:
        Cameras with leading dimensions (...), at least float32. Fields of view are clamped to ≥ `MIN_FOV`, because
        the network can output 0, which gives an infinite focal length.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.1.
    """
    if pose_enc.dtype in (torch.float16, torch.bfloat16):
        pose_enc = pose_enc.float()
    height, width = image_size
    translation, quaternion, fov = pose_enc.split([3, 4, 2], -1)
    fov_h, fov_w = fov.clamp(min=MIN_FOV).unbind(-1)
    cam_from_world = torch.cat([matrix_from_quaternion(quaternion), translation[..., None]], -1)
    fy = height / 2 / torch.tan(fov_h / 2)
    fx = width / 2 / torch.tan(fov_w / 2)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    intrinsics = torch.stack([fx, zero, one * width / 2, zero, fy, one * height / 2, zero, zero, one], -1)
    return Cameras(cam_from_world, intrinsics.unflatten(-1, (3, 3)))


def inverted_encoding(pose_enc: Tensor) -> Tensor:
    """Invert the poses of pose encodings: camera-from-world to world-from-camera, or back.

    Args:
        pose_enc: Translation, quaternion x, y, z, w of any length, fields of view in radians. (..., 9)

    Returns:
        Encodings of the inverse poses. The length of the quaternion is unchanged. (..., 9)
    """
    translation, quaternion, fov = pose_enc.split([3, 4, 2], -1)
    conjugate = torch.cat([-quaternion[..., :3], quaternion[..., 3:]], -1)
    inverse = -(matrix_from_quaternion(conjugate) @ translation[..., None])[..., 0]
    return torch.cat([inverse, conjugate, fov], -1)


def pose_enc_from_cameras(cameras: Cameras, image_size: tuple[int, int]) -> Tensor:
    """Encode cameras as VGGT pose encodings. Inverse of `cameras_from_pose_enc`.

    Args:
        cameras: Cameras. The principal point is ignored; the encoding assumes the image center.
        image_size: Height and width of the image in pixels.

    Returns:
        Translation, unit quaternion x, y, z, w with w ≥ 0, vertical and horizontal field of view in radians. (..., 9)

    Reference: VGGT, arXiv 2503.11651, Sec. 3.1.
    """
    height, width = image_size
    fov_h = 2 * torch.atan(height / 2 / cameras.intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / cameras.intrinsics[..., 0, 0])
    quaternion = quaternion_from_matrix(cameras.cam_from_world[..., :3])
    return torch.cat([cameras.cam_from_world[..., 3], quaternion, fov_h[..., None], fov_w[..., None]], -1)

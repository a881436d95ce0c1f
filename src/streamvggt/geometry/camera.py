"""Pinhole cameras and the nine numbers in which the network says them.

Conventions (docs/conventions.md): OpenCV axes, x right, y down, z forward; poses are camera-from-world; intrinsics are
in pixels and the centre of the first pixel has coordinate (0, 0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix

MIN_FOV = 0.01  # radians; a telescope's


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of one image size.

    cam_from_world: [R | t]: x_camera = R·x_world + t. (..., 3, 4)
    intrinsics: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels. (..., 3, 3)
    """

    cam_from_world: Tensor
    intrinsics: Tensor

    @property
    def world_from_cam(self) -> Tensor:
        """[R | t] from camera to world; its last column is the camera centre. (..., 3, 4)"""
        return invert_pose(self.cam_from_world)


def invert_pose(pose: Tensor) -> Tensor:
    """The inverse of a rigid motion.

    Args:
        pose: [R | t]. (..., 3, 4)

    Returns:
        [Rᵀ | -Rᵀt]. (..., 3, 4)
    """
    rotation, translation = pose[..., :3], pose[..., 3:]
    inverse = rotation.transpose(-1, -2)
    return torch.cat([inverse, -inverse @ translation], -1)


def compose_poses(second: Tensor, first: Tensor) -> Tensor:
    """The rigid motion that does `first`, then `second`: b_from_world = compose_poses(b_from_a, a_from_world).

    Args:
        second, first: [R | t], leading dimensions that broadcast. (..., 3, 4)

    Returns:
        (..., 3, 4)
    """
    rotation = second[..., :3] @ first[..., :3]
    return torch.cat([rotation, second[..., :3] @ first[..., 3:] + second[..., 3:]], -1)


def cameras_from_pose_enc(pose_enc: Tensor, image_size: tuple[int, int]) -> Cameras:
    """Cameras from the network's "absT_quaR_FoV" encoding.

    Args:
        pose_enc: translation (3), quaternion x, y, z, w (4; any length), field of view over the height and over the
            width (2, radians) of the camera-from-world pose. (..., 9)
        image_size: H, W of the image in pixels; the principal point is (W/2, H/2).

    Returns:
        Cameras with leading dimensions (...), at least in float32. A field of view below `MIN_FOV` is taken as
        that: the network's ReLU can say 0, of which there is no finite camera.
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
    """The encoding of the inverse poses: world-from-camera of camera-from-world, and back.

    Args:
        pose_enc: translation, quaternion x, y, z, w of any length, fields of view. (..., 9)

    Returns:
        Same, the quaternion of the same length. (..., 9)
    """
    translation, quaternion, fov = pose_enc.split([3, 4, 2], -1)
    conjugate = torch.cat([-quaternion[..., :3], quaternion[..., 3:]], -1)
    inverse = -(matrix_from_quaternion(conjugate) @ translation[..., None])[..., 0]
    return torch.cat([inverse, conjugate, fov], -1)


def pose_enc_from_cameras(cameras: Cameras, image_size: tuple[int, int]) -> Tensor:
    """The network's nine numbers of cameras; the inverse of `cameras_from_pose_enc`.

    Args:
        cameras: of images of `image_size`; the principal point is taken to be the image centre.
        image_size: H, W in pixels.

    Returns:
        translation, unit quaternion with w ≥ 0, fov_h, fov_w. (..., 9)
    """
    height, width = image_size
    fov_h = 2 * torch.atan(height / 2 / cameras.intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / cameras.intrinsics[..., 0, 0])
    quaternion = quaternion_from_matrix(cameras.cam_from_world[..., :3])
    return torch.cat([cameras.cam_from_world[..., 3], quaternion, fov_h[..., None], fov_w[..., None]], -1)

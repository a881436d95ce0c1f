"""Similarity transforms Sim(3): rotation, scale and translation, with logarithm and exponential map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.rotation import quaternion_from_matrix


@dataclass(frozen=True)
class Sim3:
    """Similarity y = scale·R·x + t. Variable names give the direction, for example world_from_submap.

    Attributes:
        scale: Scale > 0. (...)
        rotation: Rotation matrix R. (..., 3, 3)
        translation: Translation t. (..., 3)
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    @classmethod
    def identity(cls, dtype: torch.dtype = torch.float64) -> Sim3:
        """Return the identity, without leading dimensions."""
        return cls(torch.ones((), dtype=dtype), torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype))

    def apply(self, points: Tensor) -> Tensor:
        """Transform points. (..., N, 3) → (..., N, 3)"""
        return self.scale[..., None, None] * points @ self.rotation.mT + self.translation[..., None, :]

    def __matmul__(self, first: Sim3) -> Sim3:
        """Compose similarities: c_from_a = c_from_b @ b_from_a."""
        translation = self.apply(first.translation[..., None, :]).squeeze(-2)
        return Sim3(self.scale * first.scale, self.rotation @ first.rotation, translation)

    def inverse(self) -> Sim3:
        """Return the inverse similarity."""
        scale, rotation = 1 / self.scale, self.rotation.mT
        translation = -scale[..., None] * (rotation @ self.translation[..., None]).squeeze(-1)
        return Sim3(scale, rotation, translation)

    def transform_poses(self, cam_from_world: Tensor) -> Tensor:
        """Transform camera poses to the target world. Depths are multiplied by `scale`.

        Args:
            cam_from_world: Poses [R | t] from the source world. (..., 3, 4)

        Returns:
            Poses [R | t] from the target world. (..., 3, 4)
        """
        rotation = cam_from_world[..., :3] @ self.rotation.mT
        shift = (rotation @ self.translation[..., None]).squeeze(-1)
        translation = self.scale[..., None] * cam_from_world[..., 3] - shift
        return torch.cat([rotation, translation[..., None]], -1)

    def to(self, *args, **kwargs) -> Sim3:
        """Apply `Tensor.to` to all parts."""
        return Sim3(*(part.to(*args, **kwargs) for part in (self.scale, self.rotation, self.translation)))

    def __getitem__(self, index) -> Sim3:
        """Index the leading dimensions."""
        return Sim3(self.scale[index], self.rotation[index], self.translation[index])

    def to_vector(self) -> Tensor:
        """Concatenate scale, row-major rotation and translation. (..., 13)"""
        return torch.cat([self.scale[..., None], self.rotation.flatten(-2), self.translation], -1)

    @classmethod
    def from_vector(cls, numbers: Tensor) -> Sim3:
        """Build a similarity from the output of `to_vector`. (..., 13)"""
        return cls(numbers[..., 0], numbers[..., 1:10].unflatten(-1, (3, 3)), numbers[..., 10:])

    def log(self) -> Tensor:
        """Return the Sim(3) logarithm: translation (3), rotation vector (3), log scale (1). (..., 7)

        The rotation angle is at most π.
        """
        turn = so3_log(self.rotation)
        growth = self.scale.log()[..., None]
        mean = _left_jacobian(turn, growth)
        shift = torch.linalg.solve(mean, self.translation[..., None]).squeeze(-1)
        return torch.cat([shift, turn, growth], -1)

    @classmethod
    def exp(cls, tangent: Tensor) -> Sim3:
        """Return the Sim(3) exponential of a tangent vector. Inverse of `log`. (..., 7)"""
        shift, turn, growth = tangent.split([3, 3, 1], -1)
        rotation = torch.linalg.matrix_exp(skew_matrix(turn))
        translation = (_left_jacobian(turn, growth) @ shift[..., None]).squeeze(-1)
        return cls(growth.squeeze(-1).exp(), rotation, translation)


def stack(similarities: list[Sim3]) -> Sim3:
    """Stack similarities along a new leading dimension."""
    return Sim3.from_vector(torch.stack([similarity.to_vector() for similarity in similarities]))


def skew_matrix(vector: Tensor) -> Tensor:
    """Return the matrix [v]ₓ with [v]ₓ·x = v × x. (..., 3) → (..., 3, 3)"""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def so3_log(rotation: Tensor) -> Tensor:
    """Convert rotation matrices to rotation vectors with angles in [0, π]. (..., 3, 3) → (..., 3)"""
    quaternion = quaternion_from_matrix(rotation)
    sine, cosine = quaternion[..., :3].norm(dim=-1, keepdim=True), quaternion[..., 3:]
    angle = 2 * torch.atan2(sine, cosine)
    return quaternion[..., :3] * torch.where(sine > 1e-9, angle / sine.clamp(min=1e-9), 2.0)


def _left_jacobian(turn: Tensor, growth: Tensor) -> Tensor:
    """Compute the left Jacobian ∫₀¹ exp(u·M) du with M = [turn]ₓ + growth·1.

    The Jacobian is the upper right block of exp([[M, 1], [0, 0]]), which needs no special case near zero.

    Args:
        turn: Rotation vector in radians. (..., 3)
        growth: Log scale. (..., 1)

    Returns:
        Jacobian. (..., 3, 3)
    """
    eye = torch.eye(3, dtype=turn.dtype, device=turn.device)
    motion = skew_matrix(turn) + growth[..., None] * eye
    upper = torch.cat([motion, eye.expand_as(motion)], -1)  # (..., 3, 6)
    return torch.linalg.matrix_exp(torch.cat([upper, torch.zeros_like(upper)], -2))[..., :3, 3:]

"""Unit quaternions (x, y, z, w: scalar last) and rotation matrices."""

import torch
from torch import Tensor


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """Convert quaternions of any non-zero length to rotation matrices.

    Args:
        quaternion: x, y, z, w. (..., 4)

    Returns:
        Rotation matrices. (..., 3, 3)
    """
    x, y, z, w = quaternion.unbind(-1)
    s = 2 / (quaternion * quaternion).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """Convert rotation matrices to unit quaternions with scalar part ≥ 0.

    The components are computed by division by the largest component, so the division is well conditioned.

    Args:
        matrix: Rotation matrices. (..., 3, 3)

    Returns:
        Quaternions x, y, z, w with w ≥ 0. (..., 4)
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in matrix.unbind(-2))
    # Row i of `products` is 4·q_i·(x, y, z, w).
    products = torch.stack(
        [
            torch.stack([1 + m00 - m11 - m22, m01 + m10, m02 + m20, m21 - m12], -1),
            torch.stack([m01 + m10, 1 - m00 + m11 - m22, m12 + m21, m02 - m20], -1),
            torch.stack([m02 + m20, m12 + m21, 1 - m00 - m11 + m22, m10 - m01], -1),
            torch.stack([m21 - m12, m02 - m20, m10 - m01, 1 + m00 + m11 + m22], -1),
        ],
        -2,
    )  # (..., 4, 4)
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    quaternion = torch.take_along_dim(products, largest[..., None, None], dim=-2).squeeze(-2)
    quaternion = torch.nn.functional.normalize(quaternion, dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)

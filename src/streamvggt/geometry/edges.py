"""Detect depth discontinuities, where networks output points between objects ("flying pixels").

Depth networks interpolate between foreground and background. Unprojected, these pixels form fringes that belong to no
surface. An edge is a relative depth step near a change of the surface normal. A slanted plane has large steps, but a
constant normal. A curved surface has changing normals, but small steps.
H×W pixels.

Reference: the criterion follows MapAnything, arXiv 2509.13414, and MoGe, arXiv 2410.19115.
"""

from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad

MAX_STEP = 0.03
"""Maximum depth range in a 3×3 window of a surface, relative to the depth, if the longer side has 518 pixels.

The limit grows with the pixel size, because the depth range of a plane does.
"""

MAX_ANGLE = 10.0
"""Maximum angle in degrees between the normals around a pixel of a surface."""

RADIUS = 4
"""Distance in pixels over which a change of the normal counts: the middle of a wide depth ramp is planar."""


def depth_edges(depth: Tensor, intrinsics: Tensor, valid: Tensor) -> Tensor:
    """Return where the depth is discontinuous.

    Args:
        depth: Distance along the optical axis, in any unit. (..., H, W)
        intrinsics: In pixels of the depth map. The center of the first pixel is (0, 0). (..., 3, 3)
        valid: Pixels with finite depth > 0. Other pixels are neither edges nor do they cause edges. Bool. (..., H, W)

    Returns:
        True at pixels with a depth step, within `RADIUS` of a change of the normal. Bool. (..., H, W)
    """
    depth = torch.where(valid, depth, 1)
    is_step = relative_step(depth, valid) > MAX_STEP * 518 / max(depth.shape[-2:])
    if not is_step.any():
        return is_step
    is_bent = window_max(normal_angle(depth, intrinsics, valid), RADIUS) > MAX_ANGLE
    return valid & is_step & is_bent


def relative_step(depth: Tensor, valid: Tensor) -> Tensor:
    """Return the depth range of the valid pixels in each 3×3 window, relative to the central depth. (..., H, W)"""
    highest = window_max(depth.masked_fill(~valid, -torch.inf), 1)
    lowest = -window_max((-depth).masked_fill(~valid, -torch.inf), 1)
    return ((highest - lowest) / depth).masked_fill(~valid, 0)


def normal_angle(depth: Tensor, intrinsics: Tensor, valid: Tensor) -> Tensor:
    """Return the maximum angle between the surface normals at the four corners of each pixel, in degrees.

    The normal of a corner is perpendicular to both diagonals of its 2×2 pixels. Corners with an invalid pixel do not
    count.

    Returns:
        Angle in [0, 180]. 0 for pixels with fewer than two corners. (..., H, W)
    """
    height, width = depth.shape[-2:]
    K = intrinsics.to(depth)[..., None, None]
    x = (torch.arange(width, dtype=depth.dtype, device=depth.device) - K[..., 0, 2, :, :]) / K[..., 0, 0, :, :]
    y = (torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None] - K[..., 1, 2, :, :]) / K[
        ..., 1, 1, :, :
    ]
    points = torch.stack([x * depth, y * depth, depth], -3)  # (..., 3, H, W): sums over rows of pixels are fast
    falling = points[..., 1:, 1:] - points[..., :-1, :-1]
    rising = points[..., :-1, 1:] - points[..., 1:, :-1]
    normals = cross_product(falling, rising)  # (..., 3, H - 1, W - 1)
    normals = normals / normals.square().sum(-3, keepdim=True).sqrt().clamp(min=1e-30)
    known = valid[..., 1:, 1:] & valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1]
    normals = pad(normals, (1, 1, 1, 1))  # (..., 3, H + 1, W + 1)
    known = pad(known, (1, 1, 1, 1))

    def cosine(rows: int, columns: int) -> Tensor:
        """Return the cosine between each corner and the corner `rows` below and `columns` to the right of it."""
        first = (..., slice(0, height + 1 - rows), slice(max(-columns, 0), width + 1 - max(columns, 0)))
        second = (..., slice(rows, height + 1), slice(max(columns, 0), width + 1 - max(-columns, 0)))
        return torch.where(known[first] & known[second], (normals[first] * normals[second]).sum(-3), 1)

    across, down = cosine(0, 1), cosine(1, 0)
    pairs = [across[..., 1:, :], down[..., :-1], down[..., 1:], cosine(1, 1), cosine(1, -1)]
    smallest = reduce(torch.minimum, pairs, across[..., :-1, :])
    return torch.rad2deg(torch.arccos(smallest.clamp(-1, 1)))


def cross_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross products of vectors in planes. `torch.linalg.cross` takes ten times as long on a CPU.

    (..., 3, H, W)
    """
    (ax, ay, az), (bx, by, bz) = a.unbind(-3), b.unbind(-3)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -3)


def window_max(values: Tensor, radius: int) -> Tensor:
    """Return the maximum of each square window of 2·radius + 1 pixels. (..., H, W)"""
    values = pad(values, (radius, radius, radius, radius), value=-torch.inf)
    for dim in (-2, -1):  # by doubling, which is faster than `max_pool2d` on a CPU
        width, side = 1, 2 * radius + 1
        while width < side:
            step = min(width, side - width)
            length = values.shape[dim] - step
            values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
            width += step
    return values

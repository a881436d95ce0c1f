"""Data of a frame for the browser: a subsampled cloud, a thumbnail, the camera.

A packet is self-contained and binary, little endian:

    4 bytes      length of the header, a multiple of 4
    header       JSON, padded with spaces; "arrays" gives offset after the header and length of each array in bytes
    points       float32 (N, 3), world coordinates
    colors       uint8 (N, 3): red, green, blue
    marks        uint8 (N,): sum of `PixelMark`
    conf         float32 (N,), confidence ≥ 1
    picture      JPEG: image, inverse depth and confidence side by side

The points are a random sample of the pixels in random order, so the first M points are also a random sample. A browser
with many frames drops the last points of each frame.
"""

import json
import math
import struct
from enum import IntFlag

import cv2
import numpy as np

from streamvggt.app.tracking import Track
from streamvggt.choices import PointSource
from streamvggt.export import ResultFrame
from streamvggt.export.options import black_mask, white_mask
from streamvggt.export.sky import sky_mask
from streamvggt.export.video import ColorRanges, side_by_side

MAX_FRAME_POINTS = 60_000
"""Maximum number of points per frame."""

MAX_SCENE_POINTS = 1_200_000
"""Approximate maximum number of points in the browser: frame k contributes MAX_SCENE_POINTS / (k + 1)."""

BYTES_PER_POINT = {"points": 12, "colors": 3, "marks": 1, "conf": 4}

PICTURE_WIDTH = 280
"""Maximum width of each of the three images in pixels."""


class PixelMark(IntFlag):
    """Properties of a pixel by which the viewer hides it (`viewer.html`)."""

    SKY = 1
    EDGE = 2
    WHITE = 4
    BLACK = 8


def pack(
    frame: ResultFrame,
    position: int,
    source: PointSource,
    ranges: ColorRanges,
    tracks: list[Track],
) -> bytes:
    """Create the packet of the frame at a stream position."""
    chosen = sample_pixels(frame, position, source)
    points, conf = frame.world_points(source)
    points = points.reshape(-1, 3).take(chosen, 0).astype("<f4")
    distance = median_distance(frame, points)
    arrays = {
        "points": points,
        "colors": frame.image.reshape(-1, 3).take(chosen, 0),
        "marks": pixel_marks(frame, source).ravel().take(chosen),
        "conf": conf.ravel().take(chosen).astype("<f4"),
        "picture": np.frombuffer(thumbnail(frame, ranges), np.uint8),
    }
    header = {
        "position": position,
        "name": frame.name,
        "time": frame.time,
        "num_points": len(chosen),
        "distance": distance,
        "spacing": distance / frame.intrinsics[0, 0] * math.sqrt(conf.size / max(len(chosen), 1)),
        "pose": pose_text(frame),
        "cam_from_world": frame.cam_from_world.ravel().tolist(),
        "intrinsics": frame.intrinsics.ravel().tolist(),
        "image_size": frame.image.shape[:2],
        "tracks": [[t.x, t.y, t.visible, *(t.world or ())] for t in tracks],
    }
    return pack_arrays(header, arrays)


def pixel_marks(frame: ResultFrame, source: PointSource) -> np.ndarray:
    """Return the sum of `PixelMark` of each pixel. Uint8. (H, W)"""
    masks = {
        PixelMark.SKY: sky_mask(frame.image),
        PixelMark.EDGE: frame.edge_mask(source),
        PixelMark.WHITE: white_mask(frame.image),
        PixelMark.BLACK: black_mask(frame.image),
    }
    return sum(np.uint8(mark) * mask.view(np.uint8) for mark, mask in masks.items())


def median_distance(frame: ResultFrame, points: np.ndarray) -> float:
    """Return the median distance of world points (N, 3) from the camera, of a sample. 0 without points."""
    distances = np.linalg.norm(points[:2000] - camera_center(frame), axis=1)
    return float(np.median(distances)) if len(points) else 0.0


def pose_text(frame: ResultFrame) -> str:
    """Return position and horizontal field of view of the camera in words."""
    fov = 2 * math.degrees(math.atan(frame.image.shape[1] / 2 / frame.intrinsics[0, 0]))
    return f"Camera at ({', '.join(f'{x:.3f}' for x in camera_center(frame))}), field of view {fov:.0f}°"


def camera_center(frame: ResultFrame) -> np.ndarray:
    """Return the camera position in world coordinates. (3,)"""
    return -frame.cam_from_world[:, :3].T @ frame.cam_from_world[:, 3]


def pack_arrays(header: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """Create a packet of a header and arrays. Each array starts at a multiple of 4 bytes."""
    places, parts, offset = {}, [], 0
    for name, array in arrays.items():
        content = array.tobytes()
        places[name] = (offset, len(content))
        content += bytes(-len(content) % 4)
        parts.append(content)
        offset += len(content)
    text = json.dumps({**header, "arrays": places}, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def unpack_arrays(packet: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the header and the arrays of a packet as bytes."""
    (length,) = struct.unpack_from("<I", packet)
    header = json.loads(packet[4 : 4 + length])
    content = np.frombuffer(packet, np.uint8, offset=4 + length)
    return header, {name: content[start : start + size] for name, (start, size) in header.pop("arrays").items()}


def truncate(packet: bytes, num_points: int) -> bytes:
    """Return the packet with at most `num_points` points, for a viewer that has reached its point limit."""
    header, arrays = unpack_arrays(packet)
    if header["num_points"] <= num_points:
        return packet
    for name, size in BYTES_PER_POINT.items():
        arrays[name] = arrays[name][: num_points * size]
    return pack_arrays({**header, "num_points": num_points}, arrays)


def sample_pixels(frame: ResultFrame, position: int, source: PointSource) -> np.ndarray:
    """Return row-major indices of a random sample of the usable pixels in random order. Deterministic per position."""
    usable = np.flatnonzero(frame.valid_mask(source))
    return np.random.default_rng(position).permutation(usable)[
        : min(MAX_FRAME_POINTS, MAX_SCENE_POINTS // (position + 1))
    ]


def thumbnail(frame: ResultFrame, ranges: ColorRanges) -> bytes:
    """Return a JPEG of image, inverse depth (red is near) and confidence (bright is high) side by side."""
    strip = side_by_side(frame, ranges)
    height, width = frame.image.shape[:2]
    scale = min(PICTURE_WIDTH / width, 1)
    if scale < 1:
        strip = cv2.resize(strip, (3 * round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return jpeg.tobytes()


def updated_ranges(before: ColorRanges | None, frame: ResultFrame) -> ColorRanges:
    """Return the color ranges of the next thumbnail, smoothed over frames to avoid flicker."""
    depth, conf = frame.predicted("depth")
    usable = frame.valid_mask("depth")[::4, ::4]
    values = np.stack([1 / depth[::4, ::4][usable], np.log(conf[::4, ::4][usable])])
    values.sort(axis=1)
    count = values.shape[1]
    # Ten times faster than np.percentile, and accurate enough for colors.
    low, high = values[:, [count // 50, -1 - count // 50]].T if count else np.array([[0.0, 0.0], [1.0, 1.0]])
    if before is not None:
        low = 0.9 * np.array([before.inverse_depth[0], before.conf[0]]) + 0.1 * low
        high = 0.9 * np.array([before.inverse_depth[1], before.conf[1]]) + 0.1 * high
    return ColorRanges((low[0], high[0]), (low[1], high[1]))

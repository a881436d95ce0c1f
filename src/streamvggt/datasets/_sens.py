"""Read ScanNet's .sens files: one recording with color images, depth and poses.

Little endian, without padding: version (uint32, 4) · length of the sensor name (uint64) and the name · intrinsics and
extrinsics of the color camera, then of the depth camera (4 × 16 float32) · compression of color and of depth (2 ×
int32) · width and height of color, then of depth (4 × uint32) · depth units per meter (float32) · number of frames
(uint64). Each frame: world-from-camera (16 float32) · two time stamps (uint64) · bytes of color and of depth (2 ×
uint64) · the color image · the depth image. Data after the frames (the inertial sensor) are not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

VERSION = 4
FILES_OF_COLOR = {1: ".png", 2: ".jpg"}
RAW_DEPTH, ZLIB_DEPTH = 0, 1


@dataclass(frozen=True)
class SensHeader:
    """Properties of all frames. Sizes are height and width. Intrinsics are in pixels. (3, 3)"""

    color_intrinsics: np.ndarray
    depth_intrinsics: np.ndarray
    color_suffix: str
    depth_compression: int
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    units_per_meter: float
    num_frames: int


@dataclass(frozen=True)
class SensFrame:
    """Contents of one frame.

    Attributes:
        world_from_cam: World-from-camera pose, OpenCV axes, in meters. Not finite where tracking failed. (4, 4)
        color: Encoded image file.
        depth: Depth along the optical axis in meters, 0 where unknown. (H, W) float32
    """

    world_from_cam: np.ndarray
    color: bytes
    depth: np.ndarray


class SensFile:
    """Read a .sens file frame by frame.

        with SensFile(path) as recording:
            for frame in recording: ...

    Raises:
        ValueError: If the file is not a .sens file of version 4, has a compression that only ScanNet's C++ code reads,
            or is truncated.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO = path.open("rb")
        try:
            self.header = self._read_header()
        except Exception:
            self._file.close()
            raise
        self._first_frame = self._file.tell()

    def __enter__(self) -> SensFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[SensFrame]:
        header = self.header
        self._file.seek(self._first_frame)
        for _ in range(header.num_frames):
            world_from_cam = np.array(self._unpack("16f"), np.float32).reshape(4, 4)
            _, _, color_bytes, depth_bytes = self._unpack("4Q")
            color, depth = self._bytes(color_bytes), self._bytes(depth_bytes)
            if header.depth_compression == ZLIB_DEPTH:
                depth = zlib.decompress(depth)
            pixels = np.frombuffer(depth, "<u2").reshape(header.depth_size)
            yield SensFrame(world_from_cam, color, pixels.astype(np.float32) / header.units_per_meter)

    def _read_header(self) -> SensHeader:
        (version,) = self._unpack("I")
        if version != VERSION:
            raise ValueError(f"{self.path} is not a .sens file of version {VERSION}: it begins with {version}")
        (name_length,) = self._unpack("Q")
        self._bytes(name_length)
        color_intrinsics, _, depth_intrinsics, _ = (
            np.array(self._unpack("16f"), np.float64).reshape(4, 4)[:3, :3] for _ in range(4)
        )
        color_compression, depth_compression = self._unpack("2i")
        color_width, color_height, depth_width, depth_height = self._unpack("4I")
        (units_per_meter,) = self._unpack("f")
        (num_frames,) = self._unpack("Q")
        if color_compression not in FILES_OF_COLOR or depth_compression not in (RAW_DEPTH, ZLIB_DEPTH):
            raise ValueError(
                f"{self.path} is compressed as {color_compression} (color) and {depth_compression} (depth); only png "
                "or jpeg and raw or zlib can be read here: export it with ScanNet's SensReader"
            )
        return SensHeader(
            color_intrinsics,
            depth_intrinsics,
            FILES_OF_COLOR[color_compression],
            depth_compression,
            (color_height, color_width),
            (depth_height, depth_width),
            units_per_meter,
            num_frames,
        )

    def _unpack(self, layout: str) -> tuple:
        layout = "<" + layout
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError(f"{self.path} ends in the middle of a frame: download it again")
        return data

"""The file of one frame of a result: fields, writing, and validation on reading.

Files are untrusted: they may be damaged or come from another source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar
from zipfile import ZipFile, is_zipfile

import numpy as np

from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.names import is_plain

FrameT = TypeVar("FrameT", bound=FrameCamera)


class DamagedResult(ValueError):
    """Raised when a file of a result folder is damaged. The message names the file and the fix."""


H, W = "H", "W"
WHOLE, REAL = np.integer, np.floating
FIELDS: dict[str, tuple[type, tuple[int | str, ...]]] = {
    "index": (WHOLE, ()),
    "name": (np.str_, ()),
    "time": (REAL, ()),
    "cam_from_world": (REAL, (3, 4)),
    "intrinsics": (REAL, (3, 3)),
    "original_size": (WHOLE, (2,)),
    "original_from_image": (REAL, (3, 3)),
    "content": (WHOLE, (4,)),
    "image": (np.uint8, (H, W, 3)),
    "valid": (np.bool_, (H, W)),
    "depth": (REAL, (H, W)),
    "depth_conf": (REAL, (H, W)),
    "points": (REAL, (H, W, 3)),
    "points_conf": (REAL, (H, W)),
}
"""Dtypes and shapes of all fields. H×W is equal for all fields of a frame."""

EXTRA = "extra."
"""Prefix of the outputs of further heads (`Prediction.extra`): real arrays of any shape."""

FINITE = ("time", "cam_from_world", "intrinsics", "original_from_image")
OPTIONAL = ("time", "valid", "depth", "depth_conf", "points", "points_conf")


def encode_frame(frame: ResultFrame) -> memoryview:
    """Return the content of a frame file. Confidences are stored in half precision."""
    arrays = {field.name: getattr(frame, field.name) for field in fields(frame) if field.name != "extra"}
    arrays |= {EXTRA + name: value for name, value in frame.extra.items()}
    arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    for name in arrays.keys() & {"depth_conf", "points_conf"}:
        arrays[name] = np.minimum(arrays[name], np.finfo(np.float16).max).astype(np.float16)
    archive = BytesIO()
    with ZipFile(archive, "w") as file:  # as `np.savez`, which takes almost twice as long for arrays of a small frame
        for name, array in arrays.items():
            file.writestr(f"{name}.npy", _npy_header(array.dtype.str, array.shape) + array.tobytes())
    return archive.getbuffer()


@lru_cache(maxsize=256)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the start of a .npy file, before the elements in C order."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def load_frame(path: Path, kind: type[FrameT]) -> FrameT:
    """Load the fields of `kind` from a frame file. Other fields are neither read nor checked.

    Raises:
        DamagedResult: If the file cannot be read, a checksum does not match, or a field is invalid.
    """
    try:
        with open(path, "rb") as file, np.load(_archive(file), allow_pickle=False) as arrays:
            # The zip archive has a checksum per field. Reading the last byte verifies the checksum.
            names = [field.name for field in fields(kind) if field.name != "extra"]
            found = {name: arrays[name] for name in names if name in arrays}
            check_fields(found, names)
            values = {name: _decode(array) for name, array in found.items()}
            if any(field.name == "extra" for field in fields(kind)):
                values["extra"] = _read_extra(arrays)
            return kind(**values)
    except Exception as error:  # zipfile and numpy raise many types, including MemoryError and RecursionError
        raise DamagedResult(
            f"cannot read {path}: {str(error) or type(error).__name__}. If it is damaged, remove it and the frames "
            "after it, and continue with --resume"
        ) from error


def _archive(file: BinaryIO) -> BinaryIO:
    """Return `file` if it is a zip archive. NumPy advises to unpickle other files."""
    if not is_zipfile(file):
        raise ValueError("expected an archive of arrays, got other content")
    file.seek(0)
    return file


def check_fields(arrays: dict[str, np.ndarray], names: list[str]) -> None:
    """Validate the content of a frame file.

    Args:
        arrays: Arrays by field name.
        names: Required field names.

    Raises:
        ValueError: If a field is missing, or has an invalid dtype, shape or range.
    """
    size = dict(zip((H, W), arrays["image"].shape, strict=False)) if "image" in arrays else {}
    for name in names:
        if name not in arrays:
            if name not in OPTIONAL:
                raise ValueError(f"{name}: expected in the file, got none")
            continue
        array, (kind, shape) = arrays[name], FIELDS[name]
        expected = tuple(size.get(length, length) for length in shape)
        if not np.issubdtype(array.dtype, kind) or array.shape != expected:
            raise ValueError(f"{name}: expected {kind.__name__} {expected}, got {array.dtype} {array.shape}")
        if name in FINITE and not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got {array.tolist()}")
    if (arrays["original_size"] < 1).any():
        raise ValueError(f"original_size: expected positive numbers, got {arrays['original_size'].tolist()}")
    if size:
        top, left, bottom, right = arrays["content"]
        if not (0 <= top < bottom <= size[H] and 0 <= left < right <= size[W]):
            raise ValueError(f"content: expected a part of {size[H]}×{size[W]}, got {arrays['content'].tolist()}")


def _read_extra(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of further heads.

    Raises:
        ValueError: If an output is not a real array.
    """
    extra = {name.removeprefix(EXTRA): arrays[name] for name in arrays if name.startswith(EXTRA)}
    for name, array in extra.items():
        if not is_plain(name) or not np.issubdtype(array.dtype, REAL):
            raise ValueError(f"{EXTRA}{name[:40]}: expected a plain name and real numbers, got {array.dtype}")
    return extra


def _decode(array: np.ndarray) -> object:
    if array.ndim == 0:
        return array.item()
    if array.ndim == 1:
        return tuple(array.tolist())
    return array.astype(np.float32) if array.dtype == np.float16 else array

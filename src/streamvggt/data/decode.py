"""Read files of data sets to arrays. Errors name the damaged file, and no file content is executed.

H×W pixels.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR

from streamvggt import files


class DataError(ValueError):
    """Raised for invalid data set files. The message names the file, the expected and the actual content."""


DAMAGED_ARRAY = (
    *(ValueError, EOFError, MemoryError, OverflowError, RecursionError, TypeError, SyntaxError),
    *(pickle.UnpicklingError, AttributeError, IndexError, struct.error),
)
"""Exceptions of numpy and pickle for files of other formats, or headers with invalid sizes."""

STRUCTURE_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
"""Exceptions of Python, numpy, h5py and torch for missing keys, wrong types, and wrong numbers or shapes of values."""


@contextmanager
def decoding(path: Path, expected: str) -> Iterator[None]:
    """Convert `STRUCTURE_ERRORS` of a block that interprets the content of a file to `DataError`.

    Args:
        path: File whose content the block interprets.
        expected: Expected content, for the message.
    """
    try:
        yield
    except DataError:
        raise
    except (*STRUCTURE_ERRORS, csv.Error) as error:
        got = f"no {error}" if isinstance(error, KeyError) else f"something else ({error})"
        raise DataError(f"{path}: expected {expected}, got {got}. Download or prepare it again.") from error


def read_image(path: Path) -> np.ndarray:
    """Read an image of any format, detected by content, with EXIF orientation and without alpha. (H, W, 3) uint8 RGB"""
    return _decode(path, cv2.IMREAD_COLOR_RGB)


def read_stored_color(path: Path) -> np.ndarray:
    """Read an image as `read_image`, but without applying the EXIF orientation."""
    return _decode(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def write_rgb(path: Path, image: np.ndarray, kind: str | None = None) -> None:
    """Write an image in the format of its suffix or `kind`: ".png", or ".jpg" with quality 95. (H, W, 3) uint8 RGB"""
    kind = kind or path.suffix
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if kind.lower() in (".jpg", ".jpeg") else []  # JPEG only
    _, content = cv2.imencode(kind, image[..., ::-1], options)
    path.write_bytes(content)


def read_png16(path: Path) -> np.ndarray:
    """Read a 16-bit image with one channel. (H, W) uint16"""
    return _one_channel(path, np.uint16)


def read_mask(path: Path) -> np.ndarray:
    """Read an 8-bit image with one channel. (H, W) uint8"""
    return _one_channel(path, np.uint8)


def read_exr(path: Path) -> np.ndarray:
    """Read an EXR image with one channel, or several equal ones, as Blender writes depth. (H, W) float32"""
    _read_bytes(path)  # raises the system's error for missing files
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: damaged, or no EXR file ({error})") from error
    gray = [pixels for name, pixels in channels.items() if name != "A"]
    if not gray or any(not np.array_equal(pixels, gray[0], equal_nan=True) for pixels in gray[1:]):
        raise DataError(f"{path}: one channel was expected, it has {sorted(channels)}")
    return np.asarray(gray[0], np.float32)


def write_exr(path: Path, values: np.ndarray) -> None:
    """Write one channel, as `read_exr` reads it. (H, W)"""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Y": np.ascontiguousarray(values, np.float32)}) as file:
        file.write(str(path))


def read_npy(path: Path) -> np.ndarray:
    """Read one array."""
    try:
        return np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise DataError(f"{path}: damaged, or no array of numbers ({error})") from error


def read_npz(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Read the named arrays of an archive, or all arrays.

    Object arrays, which numpy stores as pickles, may contain numbers, strings, arrays and Python containers. A pickle
    with other content is rejected and never executed.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:  # other arrays may be large
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [key for key in keys if key not in there]
            if missing:
                raise DataError(f"{path}: no {', '.join(missing)} in it, only {', '.join(there)}")
            return {key: _read_array(archive.read(f"{key}.npy")) for key in keys or there}
    except (*DAMAGED_ARRAY, zipfile.BadZipFile, zlib.error, NotImplementedError, KeyError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, or no archive of arrays ({error})") from error


def read_table(path: Path, columns: int, *, rows: int = 0, skip: int = 0) -> np.ndarray:
    """Read numbers from a text file, separated by whitespace.

    Args:
        path: The file.
        columns: Numbers per line.
        rows: Minimum number of lines.
        skip: Number of header lines.

    Returns:
        float64. (N, columns)

    Raises:
        DataError: If the file contains other content.
    """
    lines = f"{rows} lines" if rows else "lines"
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of empty files
            values = np.loadtxt(path, ndmin=2, skiprows=skip, encoding="utf-8-sig")
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{path}: expected {lines} of {columns} numbers, got something else ({error}).") from error
    if not values.size:
        values = np.zeros((0, columns))
    if values.shape[1] != columns or len(values) < rows:
        raise DataError(f"{path}: expected {lines} of {columns} numbers, got {len(values)} of {values.shape[1]}.")
    return values


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file. Errors for missing or damaged content name the file."""
    with open(path, "rb"):
        pass  # raises the system's error for missing files
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (OSError, MemoryError, *STRUCTURE_ERRORS) as error:
        raise DataError(f"{path}: damaged, or not the HDF5 file that was expected ({error})") from error


def read_hdf5(path: Path, key: str) -> np.ndarray:
    """Read one array of an HDF5 file. Raises `DataError` if it is missing or a group."""
    with open_hdf5(path) as file:
        return file[key][()]


def strings(values: h5py.Dataset) -> list[str]:
    """Decode strings of an HDF5 file in any encoding. An empty list may be stored as numbers."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values[()].tolist()]


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file, without comments, which begin with #."""
    return [line for line in read_text(path).splitlines() if not line.startswith("#")]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file as `files.read_text`. Raises `DataError` if it has another encoding."""
    try:
        return files.read_text(path)
    except ValueError as error:
        raise DataError(str(error)) from error


def read_json(path: Path):
    try:
        return json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged, or no JSON ({error})") from error


def _decode(path: Path, flags: int) -> np.ndarray:
    content = _read_bytes(path)
    if _is_truncated(content):
        raise DataError(f"{path}: the image is cut off after {len(content)} bytes; fetch or prepare it again")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except (cv2.error, MemoryError) as error:  # for example an image with too many pixels for OpenCV
        raise DataError(f"{path}: it cannot be decoded ({str(error).strip()})") from error
    if image is None:
        raise DataError(f"{path}: damaged, or not an image ({len(content)} bytes)")
    return image


def _one_channel(path: Path, dtype: type) -> np.ndarray:
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != dtype or image.ndim != 2:
        wanted = f"{np.dtype(dtype).itemsize * 8}-bit image of one channel"
        raise DataError(f"{path}: a {wanted} was expected, it is {image.dtype} of shape {image.shape}")
    return image


def _is_truncated(content: bytes) -> bool:
    """Whether a JPEG or PNG is incomplete. OpenCV silently fills missing data.

    In a JPEG scan, byte 0xFF is followed only by 0 or a restart marker. So an end marker must follow the last start of
    a scan.
    """
    if content.startswith(b"\xff\xd8"):
        return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda") or b"\xff\xda" not in content
    return content.startswith(b"\x89PNG") and b"IEND" not in content[-1024:]


def _read_bytes(path: Path) -> bytes:
    return Path(path).read_bytes()


def _read_array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array format {version}")
    shape, _, dtype = readers[version](file)
    if not dtype.hasobject:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    objects = _SafeUnpickler(file, encoding="latin1").load()
    if not isinstance(objects, np.ndarray) or objects.shape != shape:
        raise ValueError("the pickle contains no array of that shape")
    return objects


class _SafeUnpickler(pickle.Unpickler):
    """Unpickle numpy arrays, numbers and Python containers. Everything else is rejected."""

    ALLOWED = frozenset(
        {
            *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
            *(("numpy", name) for name in ("ndarray", "dtype")),
            *(("builtins", name) for name in ("dict", "list", "tuple", "set", "frozenset", "int", "float", "complex")),
            ("collections", "OrderedDict"),
            ("collections", "defaultdict"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str):
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a number, array or container")
        return super().find_class(module, name)

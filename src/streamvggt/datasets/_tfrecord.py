"""Read records of the Waymo Open Dataset without its library, which requires an old TensorFlow.

Only the required fields of the messages are declared. Protobuf skips the others.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamvggt.data.decode import DataError

MESSAGES = {
    "Transform": {"transform": (1, "double*")},
    "CameraCalibration": {
        "name": (1, "int32"),
        "intrinsic": (2, "double*"),
        "extrinsic": (3, "Transform"),
        "width": (4, "int32"),
        "height": (5, "int32"),
    },
    "LaserCalibration": {
        "name": (1, "int32"),
        "beam_inclinations": (2, "double*"),
        "beam_inclination_min": (3, "double"),
        "beam_inclination_max": (4, "double"),
        "extrinsic": (5, "Transform"),
    },
    "Context": {
        "name": (1, "string"),
        "camera_calibrations": (2, "CameraCalibration*"),
        "laser_calibrations": (3, "LaserCalibration*"),
    },
    "CameraImage": {"name": (1, "int32"), "image": (2, "bytes"), "pose": (3, "Transform")},
    "RangeImage": {"range_image_compressed": (2, "bytes"), "range_image_pose_compressed": (4, "bytes")},
    "Laser": {"name": (1, "int32"), "ri_return1": (2, "RangeImage")},
    "MatrixShape": {"dims": (1, "int32*")},
    "MatrixFloat": {"data": (1, "float*"), "shape": (2, "MatrixShape")},
    "Frame": {
        "context": (1, "Context"),
        "pose": (3, "Transform"),
        "images": (4, "CameraImage*"),
        "lasers": (5, "Laser*"),
    },
}
"""Fields of each message: number and type. * marks repeated fields."""


@cache
def message(name: str) -> type:
    """Return the class of a message."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="waymo.proto", package="waymo", syntax="proto2")
    for message_name, fields in MESSAGES.items():
        declared = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in MESSAGES:
                how = {"type": field.TYPE_MESSAGE, "type_name": f".waymo.{kind}"}
            else:
                how = {"type": getattr(field, f"TYPE_{kind.upper()}")}
            declared.field.add(name=field_name, number=number, label=label, **how)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"waymo.{name}"))


def records(path: Path) -> Iterator[bytes]:
    """Yield the contents of a TFRecord file: length (8 bytes), checksum (4), content, checksum (4), repeated.

    Raises:
        DataError: If the file is truncated.
    """
    with open(path, "rb") as file:
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            content, end = file.read(length), file.read(4)
            if len(head) < 12 or len(content) < length or len(end) < 4:
                raise DataError(f"{path}: cut off; fetch it again")
            yield content


def frames(path: Path) -> Iterator:
    """Yield the messages `Frame` of a segment in temporal order.

    Raises:
        DataError: If a record is truncated or is not a `Frame`.
    """
    for content in records(path):
        frame = message("Frame")()
        try:
            frame.ParseFromString(content)
        except Exception as error:  # the error class of protobuf depends on its build
            raise DataError(f"{path}: a record is not a frame of the perception data set ({error})") from error
        yield frame


def matrix(compressed: bytes) -> np.ndarray:
    """Decompress a `MatrixFloat`."""
    values = message("MatrixFloat")()
    values.ParseFromString(zlib.decompress(compressed))
    return np.array(values.data, np.float32).reshape(values.shape.dims)


def transform(values) -> np.ndarray:
    """Return a `Transform` as a matrix. (4, 4)"""
    return np.array(values.transform).reshape(4, 4)

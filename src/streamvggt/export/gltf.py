"""Coloured points and triangles as a binary glTF 2.0 file.

https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POINTS, TRIANGLES = 0, 4  # modes of a primitive
VERTICES, INDICES = 34962, 34963  # targets of a buffer view
FLOAT, UNSIGNED_INT = 5126, 5125  # types of a component
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942


@dataclass(frozen=True)
class Shape:
    """What one mesh of the file shows.

    positions: in glTF axes, float32. (N, 3)
    colors: sRGB, as in photos, uint8. (N, 3)
    triangles: three vertices each, uint32; None: the vertices are points. (F, 3)
    """

    name: str
    positions: np.ndarray
    colors: np.ndarray
    triangles: np.ndarray | None = None


def glb_bytes(shapes: Sequence[Shape]) -> bytes:
    """The file of shapes with at least one vertex each; they show their colours as they are, without lamps."""
    buffer = Buffer()
    meshes = []
    for shape in shapes:
        position = buffer.add(shape.positions.astype("<f4"), FLOAT, VERTICES, has_bounds=True)
        color = buffer.add(linear_from_srgb(shape.colors), FLOAT, VERTICES)
        primitive = {"attributes": {"POSITION": position, "COLOR_0": color}, "material": 0, "mode": POINTS}
        if shape.triangles is not None:
            primitive["indices"] = buffer.add(shape.triangles.astype("<u4").ravel(), UNSIGNED_INT, INDICES)
            primitive["mode"] = TRIANGLES
        meshes.append({"name": shape.name, "primitives": [primitive]})
    content = b"".join(buffer.parts)
    tree = {
        "asset": {"version": "2.0", "generator": "streamvggt"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"name": mesh["name"], "mesh": number} for number, mesh in enumerate(meshes)],
        "meshes": meshes,
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0}, "extensions": {"KHR_materials_unlit": {}}}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(content)}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(content)
    header = struct.pack("<4sIIII", b"glTF", 2, length, len(text), JSON_CHUNK)
    return b"".join([header, text, struct.pack("<II", len(content), BINARY_CHUNK), content])


class Buffer:
    """The binary part of a file, and the accessors and views that say what is in it."""

    def __init__(self):
        self.parts: list[bytes] = []
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add(self, array: np.ndarray, component_type: int, target: int, has_bounds: bool = False) -> int:
        """Append vectors (N, 3) or numbers (N,) of four bytes each; the number of their accessor."""
        offset = sum(view["byteLength"] for view in self.views)
        self.views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        bounds = {"min": array.min(0).tolist(), "max": array.max(0).tolist()} if has_bounds else {}
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": component_type,
                "count": len(array),
                "type": kind,
                **bounds,
            }
        )
        self.parts.append(array.tobytes())
        return len(self.accessors) - 1


def linear_from_srgb(colors: np.ndarray) -> np.ndarray:
    """Light of photo colours in [0, 1], float32: glTF's vertex colours are linear, and 8 bits would crush dark ones.

    Readers take floats for what they are; some cut 16-bit numbers to 8. uint8 to float32, any shape.
    """
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype("<f4")[colors]

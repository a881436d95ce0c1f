"""Write colored points and triangles as a binary glTF 2.0 file.

Reference: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
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
    """Content of one mesh.

    Attributes:
        positions: Vertices in glTF axes, float32. (N, 3)
        colors: sRGB, uint8. (N, 3)
        triangles: Vertex indices, uint32. None draws the vertices as points. (F, 3)
    """

    name: str
    positions: np.ndarray
    colors: np.ndarray
    triangles: np.ndarray | None = None


def glb_bytes(shapes: Sequence[Shape]) -> bytes:
    """Return the file content of shapes with at least one vertex each. The material is unlit."""
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
    """Binary chunk of a file with its accessors and buffer views."""

    def __init__(self):
        self.parts: list[bytes] = []
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add(self, array: np.ndarray, component_type: int, target: int, has_bounds: bool = False) -> int:
        """Append vectors (N, 3) or scalars (N,) of four bytes each. Return the accessor index."""
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
    """Convert sRGB uint8 to linear float32 in [0, 1] of any shape. glTF vertex colors are linear.

    Eight bits are too coarse for dark linear colors, and some readers truncate 16-bit colors to 8 bits.
    """
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype("<f4")[colors]

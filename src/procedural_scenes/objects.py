"""Object templates: boxes, ellipsoids and upright cylinders in a unit cuboid.

Object axes: x right, y down, z to the front, in [-1, 1]. The object stands at y = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MAX_BOXES = 5
MAX_ROUND = 3

Part = tuple[float, float, float, float, float, float]
"""Center and half sizes along x, y, z, in units of the object's half sizes."""


@dataclass(frozen=True)
class ObjectTemplate:
    """An object class.

    Attributes:
        size: Minimum and maximum half sizes along x, y, z in meters.
        indoors: Sampling weight indoors.
        outdoors: Sampling weight outdoors.
        place: "floor", "wall" or "air".
        boxes: Box parts.
        ellipsoids: Ellipsoid parts.
        cylinders: Cylinder parts.
        accent: Indices of the parts (boxes, balls, cylinders) with the second material.
        even: Whether the sizes along x and z are equal.
    """

    name: str
    size: tuple[tuple[float, float, float], tuple[float, float, float]]
    indoors: float
    outdoors: float
    place: str = "floor"
    boxes: tuple[Part, ...] = ()
    ellipsoids: tuple[Part, ...] = ()
    cylinders: tuple[Part, ...] = ()
    accent: tuple[int, ...] = ()
    even: bool = False


WHOLE = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
LEG = 0.08
BLUEPRINTS = (
    ObjectTemplate("crate", ((0.15, 0.15, 0.15), (0.5, 0.5, 0.5)), 2, 2, boxes=(WHOLE,)),
    ObjectTemplate("cupboard", ((0.3, 0.5, 0.2), (0.8, 1.1, 0.35)), 2, 0.5, boxes=(WHOLE,)),
    ObjectTemplate(
        "table",
        ((0.4, 0.45, 0.35), (0.9, 0.6, 0.6)),
        2,
        0.7,
        boxes=((0, -0.25, 0, 1, 0.07, 1), *((x, 0.41, z, LEG, 0.59, LEG) for x in (-0.9, 0.9) for z in (-0.9, 0.9))),
        ellipsoids=((-0.5, -0.54, 0.2, 0.2, 0.22, 0.2),),
        cylinders=((0.4, -0.63, -0.2, 0.14, 0.31, 0.16),),
        accent=(5, 6),
    ),
    ObjectTemplate(
        "chair",
        ((0.2, 0.4, 0.2), (0.3, 0.55, 0.3)),
        2,
        0.5,
        boxes=(
            (0, 0.1, 0, 1, 0.08, 1),
            (0, -0.5, -0.9, 1, 0.5, 0.1),
            (-0.9, 0.58, 0, 0.1, 0.42, 0.9),
            (0.9, 0.58, 0, 0.1, 0.42, 0.9),
        ),
        accent=(2, 3),
    ),
    ObjectTemplate(
        "shelf",
        ((0.35, 0.6, 0.15), (0.8, 1.0, 0.25)),
        2,
        0,
        boxes=(
            (-0.95, 0, 0, 0.05, 1, 1),
            (0.95, 0, 0, 0.05, 1, 1),
            (0, -0.9, 0, 0.9, 0.05, 1),
            (0, -0.1, 0, 0.9, 0.05, 1),
            (0, 0.8, 0, 0.9, 0.05, 1),
        ),
        ellipsoids=((0.4, 0.5, 0.2, 0.3, 0.25, 0.6),),
        cylinders=((-0.4, -0.4, 0, 0.2, 0.25, 0.6), (0.3, -0.35, 0, 0.15, 0.2, 0.5)),
        accent=(5, 6, 7),
    ),
    ObjectTemplate(
        "sofa",
        ((0.7, 0.35, 0.35), (1.1, 0.45, 0.5)),
        1.5,
        0.2,
        boxes=(
            (0, 0.5, 0.1, 0.8, 0.5, 0.9),
            (0, 0, -0.8, 1, 1, 0.2),
            (-0.9, 0.3, 0.1, 0.12, 0.7, 0.9),
            (0.9, 0.3, 0.1, 0.12, 0.7, 0.9),
        ),
        ellipsoids=((-0.5, -0.15, -0.4, 0.22, 0.3, 0.2),),
        accent=(4,),
    ),
    ObjectTemplate("column", ((0.12, 0.4, 0.12), (0.3, 1.2, 0.3)), 1.2, 1, cylinders=(WHOLE,), even=True),
    ObjectTemplate("bin", ((0.15, 0.2, 0.15), (0.3, 0.4, 0.3)), 1, 1, cylinders=(WHOLE,), even=True),
    ObjectTemplate("ball", ((0.15, 0.15, 0.15), (0.45, 0.45, 0.45)), 1.5, 1.2, ellipsoids=(WHOLE,)),
    ObjectTemplate(
        "lamp",
        ((0.18, 0.6, 0.18), (0.3, 0.9, 0.3)),
        1,
        0.7,
        ellipsoids=((0, -0.8, 0, 1, 0.2, 1),),
        cylinders=((0, 0.95, 0, 0.8, 0.05, 0.8), (0, 0.15, 0, 0.12, 0.8, 0.12)),
        accent=(1, 2),
        even=True,
    ),
    ObjectTemplate(
        "figure",
        ((0.22, 0.7, 0.18), (0.32, 0.95, 0.28)),
        1,
        1.5,
        ellipsoids=((0, -0.78, 0, 0.45, 0.22, 0.5), (0, -0.2, 0, 1, 0.45, 0.9)),
        cylinders=((0, 0.55, 0, 0.55, 0.45, 0.55),),
        accent=(2,),
    ),
    ObjectTemplate(
        "tower",
        ((0.2, 0.3, 0.2), (0.45, 0.7, 0.45)),
        1.2,
        1,
        boxes=((0, 0.6, 0, 1, 0.4, 1), (0.1, -0.1, -0.1, 0.7, 0.3, 0.75), (-0.1, -0.6, 0, 0.5, 0.2, 0.4)),
        ellipsoids=((0, -0.9, 0, 0.2, 0.1, 0.2),),
        accent=(1, 3),
    ),
    ObjectTemplate("partition", ((0.5, 0.7, 0.05), (1.2, 1.2, 0.1)), 0.8, 0.8, boxes=(WHOLE,)),
    ObjectTemplate(
        "picture",
        ((0.2, 0.2, 0.02), (0.8, 0.6, 0.05)),
        4,
        0,
        place="wall",
        boxes=((0, 0, -0.2, 1, 1, 0.8), (0, 0, 0.1, 0.88, 0.85, 0.9)),
        accent=(0,),
    ),
    ObjectTemplate("floating box", ((0.1, 0.1, 0.1), (0.4, 0.4, 0.4)), 1, 0.7, place="air", boxes=(WHOLE,)),
    ObjectTemplate("floating can", ((0.08, 0.1, 0.08), (0.25, 0.4, 0.25)), 0.6, 0.5, place="air", cylinders=(WHOLE,)),
    ObjectTemplate("floating egg", ((0.1, 0.1, 0.1), (0.3, 0.4, 0.3)), 0.6, 0.5, place="air", ellipsoids=(WHOLE,)),
    ObjectTemplate(
        "tree",
        ((0.7, 1.3, 0.7), (2.0, 3.5, 2.0)),
        0,
        3,
        ellipsoids=((0.1, -0.5, 0, 0.9, 0.5, 1), (-0.3, -0.15, 0.2, 0.7, 0.35, 0.7)),
        cylinders=((0, 0.4, 0, 0.12, 0.6, 0.12),),
        accent=(2,),
        even=True,
    ),
    ObjectTemplate("bush", ((0.3, 0.3, 0.3), (1.0, 0.8, 1.0)), 0.2, 1.5, ellipsoids=((0, 0.2, 0, 1, 0.8, 1),)),
    ObjectTemplate(
        "car",
        ((0.8, 0.65, 1.9), (0.95, 0.8, 2.3)),
        0,
        1.5,
        boxes=(
            (0, 0.15, 0, 1, 0.45, 1),
            (0, -0.6, -0.1, 0.85, 0.4, 0.5),
            (0, 0.75, 0.6, 0.98, 0.25, 0.15),
            (0, 0.75, -0.6, 0.98, 0.25, 0.15),
        ),
        accent=(1, 2, 3),
    ),
    ObjectTemplate(
        "house",
        ((1.5, 1.4, 1.5), (4.0, 3.5, 3.5)),
        0,
        2.5,
        boxes=(
            (0, 0.1, 0, 0.95, 0.9, 0.9),
            (0, -0.85, 0, 1, 0.08, 1),
            (0.3, 0.6, 0.91, 0.15, 0.4, 0.02),
            (-0.4, 0.2, 0.91, 0.2, 0.2, 0.02),
            (0.5, -0.92, -0.3, 0.1, 0.08, 0.1),
        ),
        accent=(1, 2, 3),
    ),
    ObjectTemplate(
        "arch",
        ((0.6, 0.9, 0.2), (1.6, 1.6, 0.5)),
        0.4,
        1,
        boxes=((-0.8, 0.15, 0, 0.2, 0.85, 0.8), (0.8, 0.15, 0, 0.2, 0.85, 0.8), (0, -0.85, 0, 1, 0.15, 1)),
        accent=(2,),
    ),
    ObjectTemplate("slab", ((0.5, 0.08, 0.5), (1.5, 0.2, 1.5)), 0.3, 1, boxes=(WHOLE,)),
)


@dataclass(frozen=True)
class TemplateTable:
    """The n object templates as tensors.

    Attributes:
        weights: Sampling weights indoors and outdoors. (2, n)
        size: Minimum and maximum half sizes. (n, 2, 3)
        even: See `ObjectTemplate`. (n,) bool
        on_wall: Whether the object is at a wall. (n,) bool
        in_air: Whether the object is in the air. (n,) bool
        boxes: Centers and half sizes of box parts; unused slots have size 0. (n, MAX_…, 6)
        rounds: Centers and half sizes of ellipsoid and cylinder parts; unused slots have size 0. (n, MAX_…, 6)
        box_accent: Box parts with the second material. (n, MAX_…) bool
        round_accent: Round parts with the second material. (n, MAX_…) bool
        is_ball: Whether a round part is an ellipsoid, else a cylinder. (n, MAX_ROUND) bool
    """

    weights: Tensor
    size: Tensor
    even: Tensor
    on_wall: Tensor
    in_air: Tensor
    boxes: Tensor
    rounds: Tensor
    box_accent: Tensor
    round_accent: Tensor
    is_ball: Tensor


@lru_cache(maxsize=4)
def catalogue(device: torch.device) -> TemplateTable:
    def padded(parts: tuple[Part, ...], count: int) -> list[Part]:
        assert len(parts) <= count
        return [*parts, *[(0.0,) * 6] * (count - len(parts))]

    def accents(blueprint: ObjectTemplate, first: int, count: int) -> list[bool]:
        return [first + part in blueprint.accent for part in range(count)]

    every = BLUEPRINTS
    return TemplateTable(
        weights=torch.tensor([[b.indoors for b in every], [b.outdoors for b in every]], device=device),
        size=torch.tensor([b.size for b in every], device=device),
        even=torch.tensor([b.even for b in every], device=device),
        on_wall=torch.tensor([b.place == "wall" for b in every], device=device),
        in_air=torch.tensor([b.place == "air" for b in every], device=device),
        boxes=torch.tensor([padded(b.boxes, MAX_BOXES) for b in every], device=device, dtype=torch.float32),
        rounds=torch.tensor(
            [padded(b.ellipsoids + b.cylinders, MAX_ROUND) for b in every], device=device, dtype=torch.float32
        ),
        box_accent=torch.tensor([accents(b, 0, MAX_BOXES) for b in every], device=device),
        round_accent=torch.tensor([accents(b, len(b.boxes), MAX_ROUND) for b in every], device=device),
        is_ball=torch.tensor([[part < len(b.ellipsoids) for part in range(MAX_ROUND)] for b in every], device=device),
    )

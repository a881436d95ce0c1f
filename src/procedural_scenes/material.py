"""Surface materials: two overlaid patterns of the texture atlas, and a palette."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from procedural_scenes.rng import SceneRNG
from procedural_scenes.texture import NUM_KINDS, POSTERS, VARIANTS, Atlas


@dataclass(frozen=True)
class Materials:
    """Materials with leading dimensions (...).

    Attributes:
        palette: Linear RGB: two colors mixed by the pattern's first channel, one overlaid by the second. (..., 3, 3)
        pattern: Index of the main pattern in the atlas, as float. (...)
        detail: Index of the detail pattern in the atlas, as float. (...)
        pattern_rate: Periods of the main pattern per meter. (...)
        detail_rate: Periods of the detail pattern per meter. (...)
        detail_strength: Brightness amplitude of the detail. (...)
        turn: Angle of the pattern on the surface in radians. (...)
        shift: Offset of the pattern in periods. (..., 2)
        gloss: Strength of view-dependent highlights. (...)
    """

    palette: Tensor
    pattern: Tensor
    detail: Tensor
    pattern_rate: Tensor
    detail_rate: Tensor
    detail_strength: Tensor
    turn: Tensor
    shift: Tensor
    gloss: Tensor

    def packed(self) -> Tensor:
        """Return one row per material, so that a pixel needs a single lookup. (..., WIDTH)"""
        columns = [self.palette.flatten(-2)]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            columns.append(value if field.name == "shift" else value[..., None])
        return torch.cat(columns, -1)

    @staticmethod
    def unpacked(rows: Tensor) -> Materials:
        palette, *numbers, shift, gloss = rows.split([9, 1, 1, 1, 1, 1, 1, 2, 1], -1)
        return Materials(palette.unflatten(-1, (3, 3)), *[n.squeeze(-1) for n in numbers], shift, gloss.squeeze(-1))

    def where(self, condition: Tensor, other: Materials) -> Materials:
        """Select these materials where the condition (...) is true, else the others."""
        return Materials.unpacked(torch.where(condition[..., None], self.packed(), other.packed()))

    def albedo(self, atlas: Atlas, uv: tuple[Tensor, Tensor], pixel_size: Tensor) -> Tensor:
        """Return the linear color at surface positions.

        Args:
            atlas: The texture atlas.
            uv: Surface coordinates in meters. Two of (...)
            pixel_size: Size of a pixel on the surface in meters. (...)

        Returns:
            (..., 3)
        """
        cos, sin = self.turn.cos(), self.turn.sin()
        along, across = cos * uv[0] + sin * uv[1], cos * uv[1] - sin * uv[0]

        def sample(pattern: Tensor, rate: Tensor) -> Tensor:
            place = along * rate + self.shift[..., 0], across * rate + self.shift[..., 1]
            return atlas.lookup(pattern.int(), place, pixel_size * rate)

        coarse, fine = sample(self.pattern, self.pattern_rate), sample(self.detail, self.detail_rate)
        first, second, accent = self.palette.unbind(-2)
        color = torch.lerp(first, second, coarse[..., :1])
        color = torch.lerp(color, accent, coarse[..., 1:])
        return color * (1 + self.detail_strength[..., None] * (2 * fine[..., :1] - 1))


def sample_materials(
    dice: SceneRNG, shape: tuple[int, ...], period: tuple[float, float], posters: Tensor | None = None
) -> Materials:
    """Sample random materials. (B, *shape)

    Args:
        dice: Random numbers.
        shape: Shape per scene.
        period: Minimum and maximum pattern period in meters.
        posters: Where to use a poster pattern. (B, *shape) bool
    """
    hue, value = dice.uniform(shape=shape), dice.uniform(0.3, 1.0, shape)
    saturation = dice.uniform(0, 1, shape)
    contrast = dice.uniform(0.35, 0.9, shape)
    other_value = torch.where(value > 0.55, value * (1 - contrast), value + (1 - value) * contrast)
    other_hue = torch.where(
        dice.bernoulli(0.25, shape), dice.uniform(shape=shape), hue + dice.uniform(-0.06, 0.06, shape)
    )
    palette = torch.stack(
        [
            rgb_from_hsv(hue, saturation, value),
            rgb_from_hsv(other_hue, saturation * dice.uniform(0.5, 1, shape), other_value),
            rgb_from_hsv(dice.uniform(shape=shape), dice.uniform(0, 0.8, shape), dice.uniform(0.1, 0.95, shape)),
        ],
        -2,
    )
    kind = dice.integer(NUM_KINDS, shape)
    if posters is not None:
        kind = torch.where(posters, POSTERS[0] + dice.integer(len(POSTERS), shape), kind)
    pattern_rate = 1 / dice.log_uniform(*period, shape)
    quarter_turns = dice.integer(4, shape) * (math.pi / 2)
    return Materials(
        palette=0.05 + 0.8 * palette**2.2,
        pattern=(kind + NUM_KINDS * dice.integer(VARIANTS, shape)).float(),
        detail=dice.integer(NUM_KINDS * VARIANTS, shape).float(),
        pattern_rate=pattern_rate,
        # Finer than the pattern, or coarser, for stains over several pattern periods.
        detail_rate=pattern_rate * torch.where(dice.bernoulli(0.6, shape), 3.7, 0.27),
        detail_strength=dice.uniform(0.1, 0.6, shape),
        turn=torch.where(dice.bernoulli(0.75, shape), quarter_turns, dice.uniform(0, 2 * math.pi, shape)),
        shift=dice.uniform(shape=(*shape, 2)),
        gloss=torch.where(dice.bernoulli(0.3, shape), dice.uniform(0.1, 0.5, shape), 0.0),
    )


def rgb_from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Convert hue (in turns), saturation and value to RGB. (..., 3)"""
    k = (torch.tensor([5.0, 3.0, 1.0], device=hue.device) + 6 * hue[..., None]) % 6
    away = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * away)

"""What surfaces look like: two patterns of the atlas over each other, and a palette."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from procedural_scenes.rng import SceneRNG
from procedural_scenes.texture import NUM_KINDS, POSTERS, VARIANTS, Atlas


@dataclass(frozen=True)
class Materials:
    """Materials of leading dimensions (...).

    palette: linear RGB: two colours that the pattern's first number mixes, one that the second lays over. (..., 3, 3)
    pattern, detail: numbers of patterns in the atlas, as floats. (...)
    pattern_rate, detail_rate: periods per metre. (...)
    detail_strength: how much the detail brightens and darkens. (...)
    turn: angle of the pattern on the surface. (...)
    shift: of the pattern, in periods. (..., 2)
    gloss: strength of highlights, which depend on where one looks from. (...)
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
        """As one row of numbers each, so that a pixel finds its material with one look. (..., WIDTH)"""
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
        """These where the condition (...) holds, else the others."""
        return Materials.unpacked(torch.where(condition[..., None], self.packed(), other.packed()))

    def albedo(self, atlas: Atlas, uv: tuple[Tensor, Tensor], pixel_size: Tensor) -> Tensor:
        """Linear colour at places of the surfaces.

        Args:
            uv: in metres along the surface. Two of (...)
            pixel_size: what a pixel covers there, in metres. (...)

        Returns:
            (..., 3)
        """
        cos, sin = self.turn.cos(), self.turn.sin()
        along, across = cos * uv[0] + sin * uv[1], cos * uv[1] - sin * uv[0]

        def said(pattern: Tensor, rate: Tensor) -> Tensor:
            place = along * rate + self.shift[..., 0], across * rate + self.shift[..., 1]
            return atlas.lookup(pattern.int(), place, pixel_size * rate)

        coarse, fine = said(self.pattern, self.pattern_rate), said(self.detail, self.detail_rate)
        first, second, accent = self.palette.unbind(-2)
        colour = torch.lerp(first, second, coarse[..., :1])
        colour = torch.lerp(colour, accent, coarse[..., 1:])
        return colour * (1 + self.detail_strength[..., None] * (2 * fine[..., :1] - 1))


def sample_materials(
    dice: SceneRNG, shape: tuple[int, ...], period: tuple[float, float], posters: Tensor | None = None
) -> Materials:
    """Random materials. (B, *shape)

    Args:
        period: smallest and largest size of a pattern before it repeats, in metres.
        posters: where the pattern shall look like a picture. (B, *shape) bool
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
        # Finer than the pattern, or coarser: stains and wear over several repetitions of it.
        detail_rate=pattern_rate * torch.where(dice.bernoulli(0.6, shape), 3.7, 0.27),
        detail_strength=dice.uniform(0.1, 0.6, shape),
        turn=torch.where(dice.bernoulli(0.75, shape), quarter_turns, dice.uniform(0, 2 * math.pi, shape)),
        shift=dice.uniform(shape=(*shape, 2)),
        gloss=torch.where(dice.bernoulli(0.3, shape), dice.uniform(0.1, 0.5, shape), 0.0),
    )


def rgb_from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colour of hue (in turns), saturation and value. (..., 3)"""
    k = (torch.tensor([5.0, 3.0, 1.0], device=hue.device) + 6 * hue[..., None]) % 6
    away = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * away)

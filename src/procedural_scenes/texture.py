"""Surface patterns: an atlas that is created once and sampled with mip levels.

A pattern has two channels in [0, 1]. A material maps them to a color with its palette. Detail has several scales,
because a material overlays two patterns and every pattern has fine grain.
T patterns · n×n texels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 256
VARIANTS = 4
NUM_LEVELS = int(math.log2(SIZE)) + 1


@dataclass(frozen=True)
class Atlas:
    """All patterns with their mip levels.

    Attributes:
        texels: Ordered by pattern, level and row. (T · texels per pattern, 2)
        first_of_level: Offset of each level within a pattern. (levels,) int32
    """

    texels: Tensor
    first_of_level: Tensor

    @property
    def texels_per_pattern(self) -> int:
        return sum((SIZE >> level) ** 2 for level in range(NUM_LEVELS))

    def lookup(self, pattern: Tensor, uv: tuple[Tensor, Tensor], footprint: Tensor) -> Tensor:
        """Sample patterns trilinearly. Patterns repeat with period 1.

        Args:
            pattern: Pattern index, int32. (...)
            uv: Position in periods. Two of (...)
            footprint: Pixel size in periods. (...)

        Returns:
            Values in [0, 1]. (..., 2)
        """
        level = (footprint * SIZE).clamp(1, SIZE).log2()
        finer = level.floor().clamp(max=NUM_LEVELS - 2)
        first, blend = pattern * self.texels_per_pattern, level - finer
        finer = finer.int()
        near, near_weights = self._texel_corners(first, uv, finer)
        far, far_weights = self._texel_corners(first, uv, finer + 1)
        index = torch.stack(near + far, -1)
        weights = torch.stack([w * (1 - blend) for w in near_weights] + [w * blend for w in far_weights], -1)
        # embedding_bag computes the weighted sum of the eight texels in one pass.
        mixed = F.embedding_bag(
            index.flatten(0, -2), self.texels, mode="sum", per_sample_weights=weights.flatten(0, -2)
        )
        return mixed.unflatten(0, pattern.shape)

    def _texel_corners(
        self, first: Tensor, uv: tuple[Tensor, Tensor], level: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the four texels around positions, and their bilinear weights."""
        size = SIZE >> level
        first = first + self.first_of_level[level]
        x, y = uv[0] * size - 0.5, uv[1] * size - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = x - x0, y - y0
        last = size - 1  # a power of two minus one, so `&` wraps around
        left, top = x0.int() & last, y0.int() & last
        right, bottom = (left + 1) & last, (top + 1) & last
        top, bottom = first + top * size, first + bottom * size
        fxy = fx * fy
        return [top + left, top + right, bottom + left, bottom + right], [1 - fx - fy + fxy, fx - fxy, fy - fxy, fxy]


@lru_cache(maxsize=4)
def atlas(device: torch.device) -> Atlas:
    """Return the cached atlas on a device."""
    patterns = _patterns().to(device)  # (T, 2, n, n)
    levels = [F.avg_pool2d(patterns, 1 << level) if level else patterns for level in range(NUM_LEVELS)]
    texels = torch.cat([level.flatten(2) for level in levels], -1)  # (T, 2, texels)
    starts = [sum((SIZE >> below) ** 2 for below in range(level)) for level in range(NUM_LEVELS)]
    return Atlas(texels.mT.reshape(-1, 2).contiguous(), torch.tensor(starts, dtype=torch.int32, device=device))


@lru_cache(maxsize=1)
def _patterns() -> Tensor:
    """Create `VARIANTS` patterns of every kind. (T, 2, n, n)"""
    generator = torch.Generator().manual_seed(20240)
    kinds = (_clouds, _tiles, _bricks, _planks, _dots, _plaid, _cells, _marble, _poster, _text, _speckle, _checks)
    made = [torch.stack(kind(generator)) for _ in range(VARIANTS) for kind in kinds]
    grain = torch.stack([_noise(generator, 0.8) for _ in made])
    patterns = torch.stack(made)
    patterns[:, 0] += 0.25 * (grain - 0.5)
    return patterns.clamp(0, 1)


POSTERS = (8, 9)
"""Pattern kinds for posters."""
NUM_KINDS = 12

# Each kind returns two seamless (n, n) fields in [0, 1].


def _clouds(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _noise(generator, _uniform(generator, 1.2, 2.0)), _noise(generator, 1.0)


def _tiles(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    columns, rows = 2 ** _one_of(generator, 1, 4), 2 ** _one_of(generator, 1, 4)
    return _blocks(generator, columns, rows, shift=0.0, gap=_uniform(generator, 0.02, 0.06))


def _bricks(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows = 2 ** _one_of(generator, 2, 4)
    return _blocks(generator, rows // 2, rows, shift=0.5, gap=_uniform(generator, 0.05, 0.1))


def _planks(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    value, gap = _blocks(generator, 1, 2 ** _one_of(generator, 2, 4), shift=0.37, gap=0.04)
    return 0.6 * value + 0.4 * _noise(generator, 1.2, stretch=10), gap


def _dots(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = _one_of(generator, 3, 9)
    x, y = _grid()
    column, row = (x * count).floor(), (y * count).floor()
    jitter = torch.rand(3, count, count, generator=generator)[:, row.long(), column.long()]
    away = torch.hypot(x * count - column - 0.35 - 0.3 * jitter[0], y * count - row - 0.35 - 0.3 * jitter[1])
    inside = (away < 0.15 + 0.18 * jitter[2]).float()
    return 0.7 * _noise(generator, 1.5), inside


def _plaid(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    stripes = torch.rand(2, SIZE // 8, generator=generator).repeat_interleave(8, 1)
    wide = torch.rand(2, 8, generator=generator).repeat_interleave(SIZE // 8, 1)
    lines = 0.4 * stripes + 0.6 * wide
    if _uniform(generator, 0, 1) < 0.5:
        return lines[0, :, None].expand(SIZE, SIZE), 0.3 * lines[1, :, None].expand(SIZE, SIZE)
    return (lines[0, :, None] + lines[1]) / 2, ((lines[0, :, None] - lines[1]).abs() > 0.4).float()


def _cells(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = _one_of(generator, 12, 60)
    seeds = torch.rand(3, count, 1, 1, generator=generator)
    x, y = _grid()
    across, down = (x - seeds[0] + 0.5) % 1 - 0.5, (y - seeds[1] + 0.5) % 1 - 0.5
    nearest, which = torch.hypot(across, down).topk(2, 0, largest=False)
    edge = ((nearest[1] - nearest[0]) * math.sqrt(count) < _uniform(generator, 0.05, 0.15)).float()
    return seeds[2, which[0], 0, 0], edge


def _marble(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = _grid()
    waves = _one_of(generator, 1, 4) * x + _one_of(generator, 0, 3) * y + 2 * _noise(generator, 1.8)
    value = (1 + (2 * math.pi * waves).sin()) / 2
    return value, (value > 0.93).float()


def _poster(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = _grid()
    value, accent = _noise(generator, 1.8) * 0.5, torch.zeros(SIZE, SIZE)
    for _ in range(_one_of(generator, 15, 40)):
        cx, cy, across, down, paint, kind = torch.rand(6, generator=generator).tolist()
        dx, dy = ((x - cx + 0.5) % 1 - 0.5) / (0.03 + 0.17 * across), ((y - cy + 0.5) % 1 - 0.5) / (0.03 + 0.17 * down)
        inside = torch.hypot(dx, dy) < 1 if kind < 0.4 else torch.maximum(dx.abs(), dy.abs()) < 1
        value = torch.where(inside, torch.tensor(paint), value)
        accent = torch.where(inside, torch.tensor(float(paint * 7 % 1 < 0.35)), accent)
    return value, accent


def _text(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows = 2 ** _one_of(generator, 3, 5)
    glyphs = (torch.rand(rows * 4, 64, generator=generator) < 0.55).float()
    words = (torch.rand(rows, 16, generator=generator) < 0.75).float().repeat_interleave(4, 1).repeat_interleave(4, 0)
    glyphs = glyphs * words
    glyphs[3::4] = 0  # between the lines
    ink = glyphs.repeat_interleave(SIZE // (rows * 4), 0).repeat_interleave(SIZE // 64, 1)
    return 0.3 * _noise(generator, 1.5), ink


def _speckle(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _noise(generator, 0.6), (_noise(generator, 0.9) > _uniform(generator, 0.6, 0.75)).float()


def _checks(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = 2 * _one_of(generator, 1, 5)
    x, y = _grid()
    odd = ((x * count).floor() + (y * count).floor()) % 2
    return 0.8 * odd + 0.2 * _noise(generator, 1.5), 0.5 * _noise(generator, 1.2)


def _blocks(generator: torch.Generator, columns: int, rows: int, shift: float, gap: float) -> tuple[Tensor, Tensor]:
    """Return rows of blocks with random values, with every second row shifted, and the gaps between them."""
    x, y = _grid()
    row = (y * rows).floor()
    along = (x * columns + shift * row) % columns
    value = torch.rand(rows, columns, generator=generator)[row.long(), along.long()]
    in_gap = ((along % 1) * rows / columns < gap) | ((y * rows) % 1 < gap)
    return value, in_gap.float()


def _noise(generator: torch.Generator, falloff: float, stretch: float = 1.0) -> Tensor:
    """Return noise whose amplitude is frequency^-falloff: 0 is white, 2 is smooth. The mean is about 0.5."""
    white = torch.fft.fft2(torch.randn(SIZE, SIZE, generator=generator))
    frequency = torch.fft.fftfreq(SIZE) * SIZE
    size = torch.hypot(frequency[:, None], frequency * stretch).clamp(min=1)
    field = torch.fft.ifft2(white * size**-falloff).real
    return (0.5 + 0.25 * (field - field.mean()) / field.std()).clamp(0, 1)


def _grid() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(*[(torch.arange(SIZE) + 0.5) / SIZE] * 2, indexing="ij")
    return x, y


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _one_of(generator: torch.Generator, low: int, high: int) -> int:
    """Sample an integer in [low, high]."""
    return int(torch.randint(low, high + 1, (), generator=generator))

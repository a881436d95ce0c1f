"""Random numbers that depend only on a scene's seed.

A generator per scene requires a Python loop. A generator per batch makes a scene depend on its batch. Here a number is
a hash of (seed, purpose, counter). All scenes of a batch are sampled together, with results independent of the batch.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

BUFFER_SIZE = 512
"""Number of values hashed in advance, because a GPU needs the same time for one value as for many."""


class SceneRNG:
    """Random number generator for B scenes. Equal seeds and purpose give equal numbers."""

    def __init__(self, seeds: Tensor, purpose: str):
        """Create a generator.

        Args:
            seeds: int64, on the device of the results. (B,)
            purpose: Generators with different purposes are independent.
        """
        self.key = _mix(seeds ^ _mix(torch.full_like(seeds, zlib.crc32(purpose.encode()))))
        self.stock = seeds.new_empty((len(seeds), 0), dtype=torch.float32)
        self.num_hashed = 0

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample uniformly in [low, high). Tensors must broadcast to the result. (B, *shape)"""
        return low + (high - low) * self._numbers(math.prod(shape)).reshape(-1, *shape)

    def _numbers(self, count: int) -> Tensor:
        """Return the next numbers in [0, 1). (B, count)"""
        if self.stock.shape[1] < count:
            more = max(count, BUFFER_SIZE)
            position = torch.arange(self.num_hashed, self.num_hashed + more, device=self.key.device)
            bits = _mix(self.key[:, None] ^ _mix(position)) & 0xFFFFFF  # 24 bits: exact in float32
            self.stock = torch.cat([self.stock, bits.float() / 2**24], 1)
            self.num_hashed += more
        numbers, self.stock = self.stock[:, :count], self.stock[:, count:]
        return numbers

    def log_uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample uniformly in the logarithm. (B, *shape)"""
        return self.uniform(math.log(low), math.log(high), shape).exp()

    def normal(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample from the standard normal distribution. (B, *shape)"""
        radius = (-2 * (1 - self.uniform(shape=shape)).log()).sqrt()
        return radius * (2 * math.pi * self.uniform(shape=shape)).cos()

    def bernoulli(self, probability: float | Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample True with the given probability. (B, *shape) bool"""
        return self.uniform(shape=shape) < probability

    def integer(self, count: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample an integer in [0, count). (B, *shape) int64"""
        return (self.uniform(shape=shape) * count).long()

    def categorical(self, weights: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Sample indices with probabilities proportional to weights.

        Args:
            weights: Non-negative, not all zero. (B, n) or (n,)
            shape: Shape per scene.

        Returns:
            (B, *shape) int64
        """
        steps = (weights / weights.sum(-1, keepdim=True)).cumsum(-1)  # (B, n) or (n,)
        steps = steps.expand(len(self.key), -1).reshape(-1, *(1,) * len(shape), steps.shape[-1])
        return (self.uniform(shape=shape)[..., None] >= steps[..., :-1]).sum(-1)


def _mix(x: Tensor) -> Tensor:
    """Apply the finalizer of splitmix64: every output bit depends on every bit of `x`. int64, wrapping."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right without sign extension."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

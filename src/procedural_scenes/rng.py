"""Random numbers that depend on a scene's seed and nothing else.

A generator per scene would need a Python loop, one generator per batch would make a scene depend on its neighbours.
So a number here is a hash of (seed, purpose, how many numbers came before): all scenes of a batch throw at once, and
scene 7 gets the same numbers alone as among a hundred.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

BUFFER_SIZE = 512
"""How many numbers are hashed ahead: a GPU takes as long for one as for many."""


class SceneRNG:
    """A throw for every one of B scenes; two dice of the same seeds and purpose throw the same numbers."""

    def __init__(self, seeds: Tensor, purpose: str):
        """
        Args:
            seeds: int64, on the device where the numbers are wanted. (B,)
            purpose: dice of different purposes are independent.
        """
        self.key = _mix(seeds ^ _mix(torch.full_like(seeds, zlib.crc32(purpose.encode()))))
        self.stock = seeds.new_empty((len(seeds), 0), dtype=torch.float32)
        self.num_hashed = 0

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform in [low, high); tensors must broadcast to the result. (B, *shape)"""
        return low + (high - low) * self._numbers(math.prod(shape)).reshape(-1, *shape)

    def _numbers(self, count: int) -> Tensor:
        """The next numbers in [0, 1). (B, count)"""
        if self.stock.shape[1] < count:
            more = max(count, BUFFER_SIZE)
            position = torch.arange(self.num_hashed, self.num_hashed + more, device=self.key.device)
            bits = _mix(self.key[:, None] ^ _mix(position)) & 0xFFFFFF  # 24 bits: exact in float32
            self.stock = torch.cat([self.stock, bits.float() / 2**24], 1)
            self.num_hashed += more
        numbers, self.stock = self.stock[:, :count], self.stock[:, count:]
        return numbers

    def log_uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform in the logarithm. (B, *shape)"""
        return self.uniform(math.log(low), math.log(high), shape).exp()

    def normal(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Of mean 0 and deviation 1. (B, *shape)"""
        radius = (-2 * (1 - self.uniform(shape=shape)).log()).sqrt()
        return radius * (2 * math.pi * self.uniform(shape=shape)).cos()

    def bernoulli(self, probability: float | Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """True with the given probability. (B, *shape) bool"""
        return self.uniform(shape=shape) < probability

    def integer(self, count: int, shape: tuple[int, ...] = ()) -> Tensor:
        """One of 0 … count-1. (B, *shape) int64"""
        return (self.uniform(shape=shape) * count).long()

    def categorical(self, weights: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """An index, as often as its weight says.

        Args:
            weights: not negative, not all zero. (B, n) or (n,)

        Returns:
            (B, *shape) int64
        """
        steps = (weights / weights.sum(-1, keepdim=True)).cumsum(-1)  # (B, n) or (n,)
        steps = steps.expand(len(self.key), -1).reshape(-1, *(1,) * len(shape), steps.shape[-1])
        return (self.uniform(shape=shape)[..., None] >= steps[..., :-1]).sum(-1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64: every bit of the result depends on every bit of `x`. int64, wrapping."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right without keeping the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

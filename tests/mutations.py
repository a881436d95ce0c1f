"""Damage for tests of readers: of bytes, of JSON text, and of nested Python values. The same seed, the same damage."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

HUGE, DEEP = "\0huge", "\0deep"  # stand in a value for what json.dumps refuses to write
VALUES = [
    None,
    True,
    0,
    -1,
    2**31,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "../../outside",
    "\ud800",
    "x" * 10_000,
    [],
    {},
    [None],
    {"x": [1]},
    HUGE,
    *(f"{DEEP}{depth}" for depth in (100, 900, 100_000)),
]


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies of a file's bytes: bits flipped, cut, overwritten, spliced, chunks swapped."""
    random = Random(seed)
    for number in range(count):
        yield BYTE_DAMAGE[number % len(BYTE_DAMAGE)](data, random)


def _flip_one(data: bytes, random: Random) -> bytes:
    return _flip(data, random, 1)


def _flip_many(data: bytes, random: Random) -> bytes:
    return _flip(data, random, random.randint(2, 50))


def _flip(data: bytes, random: Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def _overwrite(data: bytes, random: Random) -> bytes:
    start, fill = _place(data, random), random.choice([b"\0", b"\xff", b"\x7f", None])
    length = random.choice([1, 2, 4, 8, 64])
    new = random.randbytes(length) if fill is None else fill * length
    return data[:start] + new + data[start + length :]


def _splice(data: bytes, random: Random) -> bytes:
    start, place = random.randrange(len(data)), _place(data, random)
    return data[:place] + data[start : start + random.randint(1, 200)] + data[place:]


def _swap(data: bytes, random: Random) -> bytes:
    a, b, c = sorted(random.sample(range(len(data) + 1), 3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _place(data: bytes, random: Random) -> int:
    """Every other one is in the header, where it matters."""
    return random.randrange(min(len(data), random.choice([200, len(data)])))


BYTE_DAMAGE: list[Callable[[bytes, Random], bytes]] = [_flip_one, _flip_many, _cut, _overwrite, _splice, _swap]


def wrong(value: Any, count: int, seed: int, values: list[Any] = VALUES) -> Iterator[tuple[str, Any]]:
    """`count` copies of a nested value, in each of which one entry is another value, missing or twice; and where."""
    random = Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(value)
        parent, key, name = random.choice(list(_entries(changed, "")))
        way = random.randrange(8)
        if way == 0:
            del parent[key]
        elif way == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(random.choice(values))
        yield name, changed


def _entries(value: Any, name: str) -> Iterator[tuple[Any, Any, str]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        yield value, key, f"{name}.{key}"
        yield from _entries(entry, f"{name}.{key}")


def as_json(value: Any) -> bytes:
    """JSON with numbers of any length and lists of any depth."""
    text = json.dumps(value)
    text = text.replace(json.dumps(HUGE), "9" * 5000)
    for depth in (100, 900, 100_000):
        text = text.replace(json.dumps(f"{DEEP}{depth}"), "[" * depth + "]" * depth)
    return text.encode()

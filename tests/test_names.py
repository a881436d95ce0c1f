"""Names of files: what is made storable stays in its folder, is text, fits, and is left alone if it did before."""

import os
from random import Random

import pytest

from streamvggt.names import MOST_BYTES, is_plain, storable


@pytest.mark.parametrize(
    "name", ["IMG_0012", "frame_000120", "写真0", "café (2)", "1548266469.98765", ".x", "12:30:05"]
)
def test_usual_names_stay(name):
    assert is_plain(name) and storable(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "C:x", "a\nb", "a\0", "\udcff"])
def test_other_names_are_rejected_and_replaced(name):
    assert not is_plain(name) and is_plain(storable(name))


def test_a_long_name_is_cut_between_characters():
    assert storable("L" * 247) == "L" * MOST_BYTES
    assert storable("x" + "写" * 100) == "x" + "写" * 66  # three bytes each


def test_every_name_can_be_stored():
    random = Random(0)
    letters = [*map(chr, range(0x180)), *"写é😀\u0301\u200b\u2028\ufeff\uffff\U0010ffff", *10 * "./\\: \n\0"]
    for _ in range(500):
        text = "".join(random.choices(letters, k=random.choice((1, 2, 5, 60, 300))))
        for name in (text, os.fsdecode(random.randbytes(random.choice((1, 2, 5, 60, 300))))):
            stored = storable(name)
            assert is_plain(stored) and len(stored.encode()) <= MOST_BYTES + 1, repr(name)

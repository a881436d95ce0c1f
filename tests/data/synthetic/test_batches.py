"""The world as training data."""

import pytest
import torch

from streamvggt.data.synthetic.batches import WorldBatches


def test_a_batch_is_its_number():
    data = WorldBatches(size=42, frames=(2, 3), max_images=4)
    a, b = data[5], WorldBatches(size=42, frames=(2, 3), max_images=4)[5]
    assert torch.equal(a.images, b.images)
    assert data[6].images.shape != a.images.shape or not torch.equal(data[6].images, a.images)
    other = WorldBatches(split="val", size=42, frames=(2, 3), max_images=4)[5]
    assert not torch.equal(other.depth, a.depth)


def test_lengths_and_shapes_vary_within_their_bounds():
    data = WorldBatches(size=28, aspects=(1.0, 0.5, 2.0), frames=(1, 4), max_images=4)
    seen = [data[index].images.shape for index in range(24)]
    assert {shape[1] for shape in seen} == {1, 2, 3, 4}
    assert all(shape[0] == 4 // shape[1] for shape in seen)
    assert {tuple(shape[-2:]) for shape in seen} == {(28, 28), (14, 28), (28, 14)}


def test_bounds_that_make_no_batch_are_refused():
    with pytest.raises(ValueError, match=r"frames=\(3, 9\) must be"):
        WorldBatches(frames=(3, 9), max_images=8)

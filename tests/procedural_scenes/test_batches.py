"""The world as training data."""

import pytest
import torch

from procedural_scenes.batches import SyntheticBatches


def test_a_batch_is_its_number():
    data = SyntheticBatches(size=42, num_frames=(2, 3), max_images_per_process=4)
    a, b = data[5], SyntheticBatches(size=42, num_frames=(2, 3), max_images_per_process=4)[5]
    assert torch.equal(a.images, b.images)
    assert data[6].images.shape != a.images.shape or not torch.equal(data[6].images, a.images)
    other = SyntheticBatches(split="val", size=42, num_frames=(2, 3), max_images_per_process=4)[5]
    assert not torch.equal(other.depth, a.depth)


def test_lengths_and_shapes_vary_within_their_bounds():
    data = SyntheticBatches(size=28, aspect_ratios=(1.0, 0.5, 2.0), num_frames=(1, 4), max_images_per_process=4)
    seen = [data[index].images.shape for index in range(24)]
    assert {shape[1] for shape in seen} == {1, 2, 3, 4}
    assert all(shape[0] == 4 // shape[1] for shape in seen)
    assert {tuple(shape[-2:]) for shape in seen} == {(28, 28), (14, 28), (28, 14)}


def test_bounds_that_make_no_batch_are_rejected():
    with pytest.raises(ValueError, match=r"num_frames=\(3, 9\) must be"):
        SyntheticBatches(num_frames=(3, 9), max_images_per_process=8)

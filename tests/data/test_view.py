"""Views, batches, and the way between them."""

import dataclasses

import pytest
import torch

from streamvggt.data.view import View, concatenate, stack
from streamvggt.geometry.pointmap import project


def view(height=4, width=6, is_metric=True) -> View:
    depth = torch.rand(height, width, dtype=torch.float64) + 1
    depth[0, 0] = 0
    intrinsics = torch.tensor([[5.0, 0, width / 2], [0, 5, height / 2], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(3, 4, dtype=torch.float64)
    pose[:, 3] = torch.rand(3)
    return View(torch.rand(3, height, width), depth, depth > 0, depth < 0, intrinsics, pose, is_metric)


def test_a_batch_gives_back_the_views_it_was_stacked_of():
    views = [[view(), view()], [view(is_metric=False), view(is_metric=False)], [view(), view()]]
    batch = stack(views)
    assert batch.images.shape == (3, 2, 3, 4, 6)
    assert (batch.num_sequences, batch.num_frames) == (3, 2)
    for sequence in range(3):
        for frame in range(2):
            back, given = batch.view(sequence, frame), views[sequence][frame]
            for field in dataclasses.fields(View):
                a, b = getattr(back, field.name), getattr(given, field.name)
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_points_project_onto_their_pixels_with_their_depth():
    batch = stack([[view(), view()]])
    pixels, depth = project(batch.points().flatten(2, 3), batch.cameras)
    grid = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="xy"), -1).double().flatten(0, 1)
    known = batch.valid.flatten(2)
    torch.testing.assert_close(depth[known], batch.depth[batch.valid])
    torch.testing.assert_close(pixels[known], grid.expand_as(pixels)[known])
    torch.testing.assert_close(batch.view(0, 1).points(), batch.points()[0, 1])


def test_stack_names_the_mismatch():
    with pytest.raises(ValueError, match="no views"):
        stack([])
    with pytest.raises(ValueError, match="different lengths"):
        stack([[view()], [view(), view()]])
    with pytest.raises(ValueError, match="different sizes"):
        stack([[view(), view(8)]])
    with pytest.raises(ValueError, match="mixes metric"):
        stack([[view(), view(is_metric=False)]])


def test_concatenated_batches_keep_their_order_and_lose_what_one_lacks():
    first, second = stack([[view()]]), stack([[view()], [view()]])
    first = dataclasses.replace(first, tracks=torch.zeros(1, 1, 5, 2))
    both = concatenate([first, second])
    assert both.num_sequences == 3 and both.tracks is None
    assert torch.equal(both.depth[2], second.depth[1])


def test_to_takes_every_tensor_along():
    moved = stack([[view()]]).to("meta")
    assert moved.images.device.type == moved.valid.device.type == moved.is_metric.device.type == "meta"
    assert moved.tracks is None

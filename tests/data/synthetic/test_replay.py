"""Rendered once, used several times: still a function of the number, still true geometry."""

import pytest
import torch

from streamvggt.data.synthetic.batches import WorldBatches
from streamvggt.data.synthetic.replay import Replay, vary
from streamvggt.data.synthetic.scene import WorldStyle

WORLD = WorldBatches(size=28, aspects=[1.0], frames=(3, 3), max_images=3, style=WorldStyle(moving_share=0.0))


class Counting:
    def __init__(self, seed=0):
        self.seed, self.asked = seed, []

    def __getitem__(self, index):
        self.asked.append(index)
        return WORLD[index]


def test_the_same_number_is_the_same_batch_whatever_was_asked_before():
    one, other = Replay(WORLD, times=2, window=3), Replay(WORLD, times=2, window=3)
    in_order = [one[k].images for k in range(8)]
    assert all(torch.equal(other[k].images, in_order[k]) for k in (7, 2, 5, 0))


def test_each_rendering_serves_several_times_and_few_are_held():
    source = Counting()
    replay = Replay(source, times=4, window=5)
    for k in range(60):
        replay[k]
    assert max(source.asked) <= 59 // 4
    assert len(source.asked) == len(set(source.asked))  # in order of numbers nothing is rendered twice
    assert len(source.asked) > 10
    assert len(replay._held) <= 5


def test_variations_keep_the_geometry():
    """Points of a varied batch are those of the batch, in the order of its frames."""
    batch = WORLD[0]
    points, orders = batch.points(), set()
    for seed in range(12):
        varied = vary(batch, torch.Generator().manual_seed(seed))
        order = [
            next(t for t in range(3) if torch.equal(varied.cam_from_world[0, s], batch.cam_from_world[0, t]))
            for s in range(3)
        ]
        orders.add(tuple(order))
        torch.testing.assert_close(varied.points(), points[:, order], equal_nan=True)
        assert torch.equal(varied.valid, batch.valid[:, order])
        assert varied.images.min() >= 0 and varied.images.max() <= 1
        assert not torch.equal(varied.images, batch.images[:, order])
    assert {(0, 1, 2), (2, 1, 0)} <= orders and len(orders) > 3


def test_no_window_is_an_error():
    with pytest.raises(ValueError, match="times=0"):
        Replay(WORLD, times=0)


def test_sequences_grow():
    world = WorldBatches(size=28, aspects=[1.0], frames=(2, 8), growth=100, max_images=8)
    assert {world[k].num_frames for k in range(10)} == {2}
    assert max(world[k].num_frames for k in range(50, 60)) <= 5
    assert max(world[k].num_frames for k in range(100, 120)) == 8

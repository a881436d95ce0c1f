"""Random numbers: independent of the company, different by purpose, and of the distribution they name."""

import torch

from procedural_scenes.rng import SceneRNG
from procedural_scenes.texture import atlas


def test_a_scene_throws_the_same_alone_and_in_company():
    many, one = SceneRNG(torch.arange(10, 20), "test"), SceneRNG(torch.tensor([13]), "test")
    for _ in range(3):
        assert torch.equal(many.uniform(shape=(4, 2))[3:4], one.uniform(shape=(4, 2)))


def test_throws_purposes_and_seeds_are_unrelated():
    seeds = torch.arange(2000)
    dice = SceneRNG(seeds, "a")
    rows = [dice.uniform(), dice.uniform(), SceneRNG(seeds, "b").uniform(), SceneRNG(seeds + (1 << 40), "a").uniform()]
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(4)
    assert correlation.abs().max() < 0.1
    throws = dice.uniform(shape=(5,))
    assert (torch.corrcoef(throws.T) - torch.eye(5)).abs().max() < 0.1


def test_distributions():
    dice = SceneRNG(torch.arange(20000), "test")
    uniform = dice.uniform(2, 4)
    assert uniform.min() >= 2 and uniform.max() < 4 and abs(uniform.mean() - 3) < 0.02
    normal = dice.normal()
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03
    picks = dice.categorical(torch.tensor([1.0, 0.0, 3.0])).bincount(minlength=3) / 20000
    torch.testing.assert_close(picks, torch.tensor([0.25, 0.0, 0.75]), atol=0.02, rtol=0)
    assert dice.integer(5).unique().tolist() == [0, 1, 2, 3, 4]


def test_patterns_repeat_without_a_seam_and_far_away_become_their_mean():
    patterns = atlas(torch.device("cpu"))
    which = torch.arange(len(patterns.texels) // patterns.texels_per_pattern, dtype=torch.int32)
    u, v = torch.rand(2, len(which))
    fine = torch.full_like(u, 1e-4)
    torch.testing.assert_close(
        patterns.lookup(which, (u, v), fine), patterns.lookup(which, (u + 1, v - 2), fine), atol=2e-3, rtol=0
    )
    far = torch.full_like(u, 1.0)
    torch.testing.assert_close(patterns.lookup(which, (u, v), far), patterns.lookup(which, (v, u), far))
    means = patterns.texels.view(len(which), -1, 2)[:, :65536].mean(1)
    torch.testing.assert_close(patterns.lookup(which, (u, v), far), means, atol=1e-4, rtol=0)

"""True correspondences: what they are, what they teach, and that training alone knows of them."""

import pytest
import torch

from streamvggt.data.synthetic.scene import WorldStyle
from streamvggt.data.synthetic.world import SyntheticWorld
from streamvggt.data.view import Batch
from streamvggt.losses.distill import DistillLoss
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.training.auxiliary import (
    Correspondence,
    Matches,
    attention_error,
    feature_error,
    find_matches,
    place_error,
)
from streamvggt.training.optim import Optimisation
from streamvggt.training.supervision import Measurements, Teacher
from streamvggt.training.trainer import Trainer, scale_gradient


@pytest.fixture(scope="module")
def rooms() -> Batch:
    style = WorldStyle(outdoor_share=0.0, moving_share=0.0)
    return SyntheticWorld("val", style=style).batch(0, 6, 3, 70, 98, num_tracks=512)


def test_matches_are_where_the_worlds_own_tracks_go(rooms):
    """A track that starts in a patch's middle pixel and is seen again ends in the patch that is the match."""
    first = torch.zeros(3, dtype=torch.int64)
    matches = find_matches(rooms, 14, first)  # from each frame into the first
    apart = []
    for sequence in range(6):
        for frame in (1, 2):
            at = rooms.tracks[sequence, frame]  # (K, 2) of points of the first frame
            both = rooms.visibility[sequence, frame] & rooms.visibility[sequence, 0]
            near = (at - 7) % 14
            near = torch.minimum(near, 14 - near).amax(-1) < 1  # pixels from the middle one
            inside = (at >= 0).all(-1) & (at[:, 0] < 98) & (at[:, 1] < 70)
            for k in (both & near & inside).nonzero()[:, 0].tolist():
                patch = int(at[k, 1] // 14) * 7 + int(at[k, 0] // 14)
                if not matches.seen[sequence, frame, patch]:
                    continue
                start = rooms.tracks[sequence, 0, k]
                found = matches.patch[sequence, frame, patch]
                middle = torch.stack([found % 7, found // 7]) * 14 + 6.5
                apart.append((middle - start).abs().max())
    apart = torch.stack(apart)
    assert len(apart) >= 20
    # Half a patch, and what up to a pixel beside the middle makes; more where the surface is seen at a slant.
    assert apart.median() < 7
    assert (apart < 9).float().mean() > 0.85


def test_matches_show_the_same_thing_and_mostly_exist(rooms):
    matches = find_matches(rooms, 14, torch.arange(3) - 1)
    assert not matches.seen[:, 0].any()  # there is no frame before the first
    ids = rooms.object_ids[:, :, 7::14, 7::14].flatten(2)
    there = ids[:, matches.frame].gather(2, matches.patch)
    agree = (ids == there)[matches.seen].float().mean()
    assert agree > 0.8  # the middle of the found patch may already show a neighbour
    assert 0.3 < matches.seen[:, 1:].float().mean() < 1


def test_what_is_hidden_or_moved_does_not_match(rooms):
    import dataclasses

    nearer = rooms.depth.clone()
    nearer[:, 0] *= 0.5  # something stands before everything in the first frame
    hidden = dataclasses.replace(rooms, depth=nearer)
    before = find_matches(rooms, 14, torch.zeros(3, dtype=torch.int64)).seen[:, 1:].float().mean()
    after = find_matches(hidden, 14, torch.zeros(3, dtype=torch.int64)).seen[:, 1:].float().mean()
    assert after < before / 5


def by_hand() -> Matches:
    """Two frames of two patches; each patch of the second frame has its match crosswise in the first."""
    return Matches(
        torch.tensor([[[0, 1], [1, 0]]]),
        torch.zeros(1, 2, 2, 2),
        torch.tensor([[[False, False], [True, True]]]),
        torch.tensor([0, 0]),
    )


def test_attention_that_looks_at_the_match_costs_nothing():
    eye = torch.eye(6)
    k = eye[None] * 200  # one special token and two patches per frame, every key a direction of its own
    q = torch.zeros(1, 6, 6)
    q[0, 4], q[0, 5] = eye[2], eye[1]  # the second frame's patches look at the first frame's other patch
    assert attention_error(q, k, by_hand(), 1, causal=False) < 1e-6
    assert attention_error(q, k, by_hand(), 1, causal=True) < 1e-6
    q[0, 4], q[0, 5] = eye[1], eye[2]
    assert attention_error(q, k, by_hand(), 1, causal=False) > 50


def test_attention_spread_evenly_costs_the_log_of_the_keys_in_sight():
    q, k = torch.zeros(1, 6, 6), torch.randn(1, 6, 6)
    assert attention_error(q, k, by_hand(), 1, causal=False).item() == pytest.approx(torch.tensor(6.0).log().item())
    forward = Matches(by_hand().patch.flip(1), by_hand().place, by_hand().seen.flip(1), torch.tensor([1, 1]))
    assert attention_error(q, k, forward, 1, causal=False) > 0
    assert attention_error(q, k, forward, 1, causal=True) == 0  # a later frame is not in sight


def test_places_are_compared_where_there_are_matches(rooms):
    """The places agree with the numbers of the patches; an error of known size costs its size."""
    matches = find_matches(rooms, 14, torch.zeros(3, dtype=torch.int64))
    pixel = (matches.place * 98 / 2 + torch.tensor([97, 69]) / 2).round()
    there = pixel // 14
    assert torch.equal((there[..., 1] * 7 + there[..., 0])[matches.seen].long(), matches.patch[matches.seen])
    said = torch.cat([torch.full((6, 3, 5, 2), 9.0), matches.place], 2).flatten(1, 2)  # special tokens say anything
    assert place_error(said, matches, 5, causal=False) == 0
    wrong = said + torch.tensor([0.1, -0.2])
    assert place_error(wrong, matches, 5, causal=False).item() == pytest.approx(0.3, rel=1e-4)


def test_features_that_tell_patches_apart_cost_little():
    features = torch.eye(2)[None].repeat(1, 2, 1, 1)  # (1, 2 frames, 2 patches, 2 channels)
    features[:, 1] = features[:, 1].flip(1)
    assert feature_error(features, by_hand(), 0.07) < 1e-5
    assert feature_error(features.flip(1)[:, :, :1].expand(-1, -1, 2, -1), by_hand(), 0.07).item() == pytest.approx(
        torch.tensor(2.0).log().item()
    )


def test_training_alone_knows_of_it(tmp_path, planes, fresh):
    """The losses fall, are logged, and validation and the saved network are those of the network alone."""
    model = fresh("all")
    names = set(model.state_dict())
    trainer = Trainer(
        model=model,
        supervision=Measurements(),
        loss=MultiTaskLoss(),
        data=planes(num_tracks=0),
        validation=planes(num_tracks=0),
        num_validation_batches=1,
        validate_every=40,
        optimisation=Optimisation(lr=3e-3, steps=40, warmup_steps=2, clip_apart=["camera_head.*"]),
        output_dir=tmp_path,
        log_every=1,
        auxiliary=Correspondence(attention=1.0, features=1.0, channels=16),
        gradient_scales={"camera_head": 0.05},
    )
    said = [{name: float(value) for name, value in step.items()} for step in trainer.steps(40)]
    assert said[-1]["attention"] < 0.8 * said[0]["attention"]
    assert said[-1]["place"] < 0.97 * said[0]["place"]
    assert said[-1]["features"] < 0.8 * said[0]["features"]
    total = sum(said[0][name] for name in ("camera", "depth", "points", "attention", "place", "features"))
    assert said[0]["loss"] == pytest.approx(total, rel=1e-4)
    assert set(trainer.network.state_dict()) == names
    assert all(not block.attn._forward_pre_hooks for block in model.aggregator.global_blocks)


def test_a_frozen_shared_encoder_is_refused(tmp_path, planes, fresh):
    with pytest.raises(ValueError, match="auxiliary losses need an encoder that learns"):
        Trainer(
            model=fresh(),
            supervision=Teacher(fresh("all")),
            loss=DistillLoss(track=None),
            data=planes(),
            optimisation=Optimisation(lr=1e-3, steps=1, freeze=["aggregator.patch_embed.*"]),
            output_dir=tmp_path,
            auxiliary=Correspondence(),
        )


def test_a_scaled_gradient_leaves_the_heads_own_alone(fresh, planes):
    images = planes()[0].images

    def gradients(scale):
        model = fresh("all")
        if scale is not None:
            scale_gradient(model, "camera_head", scale)
        model(images, heads=("camera",)).pose_enc.square().sum().backward()
        return model.camera_head.pose_branch.fc2.weight.grad, model.aggregator.camera_token.grad

    own, trunk = gradients(None)
    own_scaled, trunk_scaled = gradients(0.05)
    assert torch.equal(own, own_scaled)
    torch.testing.assert_close(trunk_scaled, 0.05 * trunk, rtol=1e-4, atol=1e-9)
    with pytest.raises(ValueError, match="'camera', which the network has not"):
        scale_gradient(fresh(), "camera", 0.1)

"""Losses from true geometry: what they compare, and that only training uses them."""

import math
from dataclasses import replace

import pytest
import torch

from procedural_scenes.scene import SceneConfig
from procedural_scenes.world import SyntheticScenes
from streamvggt.data.view import Batch
from streamvggt.losses.distill import DistillLoss
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.model.weights import load_model
from streamvggt.training.auxiliary import GeometryLosses
from streamvggt.training.geometry_errors import attention_error, deep_error, feature_error, position_error
from streamvggt.training.gradients import scale_gradient
from streamvggt.training.matches import Targets, find_matches
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth, Teacher
from streamvggt.training.trainer import Trainer


@pytest.fixture(scope="module")
def rooms() -> Batch:
    style = SceneConfig(outdoor_prob=0.0, moving_prob=0.0)
    return SyntheticScenes("val", style=style).batch(0, 6, 3, 70, 98, num_tracks=512)


def test_matches_are_where_the_worlds_own_tracks_go(rooms):
    """A track that starts in the middle of a patch and is seen again ends at the place of the match."""
    matches = find_matches(rooms, 14)
    apart = []
    for sequence in range(6):
        for frame in (1, 2):
            start, end = rooms.tracks[sequence, 0], rooms.tracks[sequence, frame]  # (K, 2)
            both = rooms.visibility[sequence, 0] & rooms.visibility[sequence, frame]
            near = ((start - 7) % 14).minimum(14 - (start - 7) % 14).amax(-1) < 1  # pixels from the middle one
            inside = (start >= 0).all(-1) & (start[:, 0] < 98) & (start[:, 1] < 70)
            for k in (both & near & inside).nonzero()[:, 0].tolist():
                patch = int(start[k, 1] // 14) * 7 + int(start[k, 0] // 14)
                if matches.visible[sequence, 0, frame, patch]:
                    place = matches.position[sequence, 0, frame, patch] * 98 / 2 + torch.tensor([97, 69]) / 2
                    apart.append((place - end[k]).abs().max())
    apart = torch.stack(apart)
    assert len(apart) >= 20
    assert apart.median() < 2  # up to a pixel beside the middle; more where the surface is seen at a slant
    assert (apart < 4).float().mean() > 0.85


def test_matches_show_the_same_thing_and_mostly_exist(rooms):
    matches = find_matches(rooms, 14)
    assert not matches.visible.diagonal(dim1=1, dim2=2).any()  # a frame does not match itself
    nearest = Targets.of(matches, (70, 98), 14)
    found = nearest.patches.gather(-1, nearest.weights.argmax(-1, keepdim=True))[..., 0]  # (B, S, S, h·w)
    ids = rooms.instance_ids[:, :, 7::14, 7::14].flatten(2)
    there = ids[:, None].expand(-1, 3, -1, -1).gather(3, found)
    assert (ids[:, :, None] == there)[matches.visible].float().mean() > 0.8  # the patch's middle may show a neighbor
    assert 0.3 < matches.visible[:, 1:, 0].float().mean() < 1


def test_what_is_hidden_or_moved_does_not_match(rooms):
    nearer = rooms.depth.clone()
    nearer[:, 0] *= 0.5  # something stands before everything in the first frame
    hidden = replace(rooms, depth=nearer)
    before, after = (find_matches(batch, 14).visible[:, 1:, 0].float().mean() for batch in (rooms, hidden))
    assert after < before / 5


def test_bilinear_targets_average_to_the_place(rooms):
    """The centers of the four patches, weighted, are the place, unless it is beyond the outermost centers."""
    matches = find_matches(rooms, 14)
    targets = Targets.of(matches, (70, 98), 14)
    torch.testing.assert_close(targets.weights.sum(-1), torch.ones_like(targets.weights[..., 0]))
    centers = torch.stack([targets.patches % 7, targets.patches // 7], -1) * 14 + 6.5
    mean = (centers * targets.weights[..., None]).sum(-2)
    pixel = matches.position * 98 / 2 + torch.tensor([97, 69]) / 2
    inner = matches.visible & ((pixel >= 6.5) & (pixel <= torch.tensor([90.5, 62.5]))).all(-1)
    assert inner.any()
    torch.testing.assert_close(mean[inner], pixel[inner], atol=1e-3, rtol=0)


def by_hand(later: bool = True) -> Targets:
    """Two frames of two patches; each patch of one frame has its match crosswise in the other.

    later: only those of the second frame count, else only those of the first.
    """
    patches = torch.tensor([1, 0]).expand(1, 2, 2, 2)[..., None].expand(-1, -1, -1, -1, 4)
    seen = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    seen[:, (1, 0) if later else (0, 1), (0, 1) if later else (1, 0)] = torch.tensor([[True], [False]])
    return Targets(patches, torch.tensor([1.0, 0, 0, 0]).expand(1, 2, 2, 2, 4), seen)


def heads(x: torch.Tensor) -> torch.Tensor:
    return x[:, None].expand(-1, 2, -1, -1)


def test_attention_to_the_match_has_no_loss():
    eye = torch.eye(6)
    k = eye[None] * 500  # one special token and two patches per frame, every key a direction of its own
    q = torch.zeros(1, 6, 6)
    q[0, 4], q[0, 5] = eye[2], eye[1]  # the second frame's patches attend to the first frame's other patch
    for causal in (False, True):
        assert attention_error(heads(q), heads(k), by_hand(), 1, causal) < 1e-6
    q[0, 4], q[0, 5] = eye[1], eye[2]
    assert attention_error(heads(q), heads(k), by_hand(), 1, causal=False) > 100


def test_attention_spread_evenly_costs_the_log_of_the_keys():
    """Head 0 chooses among all 6 keys in sight, head 1 among the 2 patches of the other frame."""
    q, k = torch.zeros(1, 2, 6, 6), torch.randn(1, 2, 6, 6)
    assert attention_error(q, k, by_hand(), 1, causal=False).item() == pytest.approx(math.log(6) + math.log(2))
    assert attention_error(q, k, by_hand(later=False), 1, causal=False).item() == pytest.approx(math.log(2))
    assert attention_error(q, k, by_hand(later=False), 1, causal=True) == 0  # a later frame is not in sight


def test_places_are_compared_where_there_are_matches(rooms):
    matches = find_matches(rooms, 14)
    output = matches.position[:, :, 0].clone()
    assert position_error(output, matches, causal=False) == 0
    output += torch.where(matches.visible[:, :, 0, :, None], torch.tensor([0.1, -0.2]), 9.0)  # elsewhere anything goes
    assert position_error(output, matches, causal=False).item() == pytest.approx(0.3, rel=1e-4)


def test_distinct_features_have_a_small_loss():
    features = torch.eye(2)[None].repeat(1, 2, 1, 1)  # (1, 2 frames, 2 patches, 2 channels)
    features[:, 1] = features[:, 1].flip(1)
    assert feature_error(features, by_hand(), 0.07) < 1e-5
    assert feature_error(torch.ones_like(features), by_hand(), 0.07).item() == pytest.approx(math.log(2))


def test_read_outs_that_are_the_geometry_cost_nothing(rooms):
    known = GroundTruth()(rooms, ("camera", "depth", "points"), None, None)
    read = torch.zeros(6, 3, 35, 6)
    read[..., 2:5] = known.prediction.points[:, :, 7::14, 7::14].flatten(2, 3)
    read[..., 5] = known.prediction.depth[:, :, 7::14, 7::14, 0].flatten(2, 3).log()
    read = torch.where(rooms.valid[:, :, 7::14, 7::14].flatten(2, 3)[..., None], read, 99.0)
    assert deep_error(read, known, 14) < 1e-5
    assert deep_error(read + 0.1, known, 14) > 0.1


def test_auxiliary_losses_affect_training_only(tmp_path, planes, fresh):
    """The losses fall, are logged, and validation and the saved network are those of the network alone."""
    model = fresh(False)
    names = set(model.state_dict())
    trainer = Trainer(
        model=model,
        supervision=GroundTruth(),
        loss=MultiTaskLoss(),
        data=planes(num_tracks=0),
        validation=planes(num_tracks=0),
        num_validation_batches=1,
        validate_every=40,
        optim=OptimConfig(lr=3e-3, steps=40, warmup_steps=2, separate_clip=["camera_head.*"]),
        output_dir=tmp_path,
        log_every=1,
        auxiliary_loss=GeometryLosses(attention=1.0, features=1.0, channels=16),
        gradient_scales={"camera_head": 0.05},
    )
    output = [{name: float(value) for name, value in step.items()} for step in trainer.steps(40)]
    assert output[-1]["attention"] < 0.8 * output[0]["attention"]
    assert output[-1]["place"] < 0.97 * output[0]["place"]
    assert output[-1]["features"] < 0.8 * output[0]["features"]
    assert output[-1]["deep"] < 0.8 * output[0]["deep"]
    total = sum(output[0][name] for name in ("camera", "depth", "points", *trainer.auxiliary_loss.names))
    assert output[0]["loss"] == pytest.approx(total, rel=1e-4)
    trainer.save()
    trainer.save_weights("final")
    for path in (tmp_path / "final", tmp_path / "last.pt"):
        assert set(load_model(path, causal=False).state_dict()) == names
    assert any(name.startswith("auxiliary.") for name in trainer.network.state_dict())
    assert all(not block.attn._forward_pre_hooks for block in model.aggregator.global_blocks)


def test_a_frozen_shared_encoder_is_rejected(tmp_path, planes, fresh):
    with pytest.raises(ValueError, match="auxiliary losses need a trainable encoder"):
        Trainer(
            model=fresh(),
            supervision=Teacher(fresh(False)),
            loss=DistillLoss(track=None),
            data=planes(),
            optim=OptimConfig(lr=1e-3, steps=1, freeze=["aggregator.patch_embed.*"]),
            output_dir=tmp_path,
            auxiliary_loss=GeometryLosses(),
        )


def test_a_scaled_gradient_leaves_the_heads_own_alone(fresh, planes):
    images = planes()[0].images

    def gradients(scale):
        model = fresh(False)
        if scale is not None:
            scale_gradient(model, "camera_head", scale)
        model(images, heads=("camera",)).pose_enc.square().sum().backward()
        return model.camera_head.pose_branch.fc2.weight.grad, model.aggregator.camera_token.grad

    own, trunk = gradients(None)
    own_scaled, trunk_scaled = gradients(0.05)
    assert torch.equal(own, own_scaled)
    torch.testing.assert_close(trunk_scaled, 0.05 * trunk, rtol=1e-4, atol=1e-9)
    with pytest.raises(ValueError, match="the network has no module 'camera'"):
        scale_gradient(fresh(), "camera", 0.1)

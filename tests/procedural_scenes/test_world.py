"""What the procedural world promises about whole batches and sequences."""

import dataclasses
import tracemalloc

import pytest
import torch

from procedural_scenes import SyntheticScenes, SyntheticSource
from procedural_scenes.clip import sample_fov
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneConfig, sample_setup
from procedural_scenes.trajectory import FRAMES_PER_SECOND
from procedural_scenes.world import SPLITS, render_frames
from streamvggt.data.view import stack
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import project

SIZE = (42, 56)
STILL = SceneConfig(moving_prob=0.0)


@pytest.fixture(scope="module")
def batch():
    return SyntheticScenes("train").batch(0, 6, 4, *SIZE, num_tracks=16)


def same(a, b, sequences=slice(None)):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "images":
            close(x, y[sequences])
        else:
            assert (x is None and y is None) or torch.equal(x, y[sequences]), field.name


def close(a, b):
    """Equal but for the last digit of powers and exponentials: wide and narrow instructions of a processor differ."""
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_the_same_index_gives_the_same_batch_and_another_another(batch):
    world = SyntheticScenes("train")
    again = world.batch(0, 6, 4, *SIZE, num_tracks=16)
    same(again, batch)
    assert torch.equal(again.images, batch.images)
    assert not torch.equal(world.batch(1, 6, 4, *SIZE).depth, batch.depth)
    assert not torch.equal(SyntheticScenes("train", seed=1).batch(0, 6, 4, *SIZE).depth, batch.depth)


def test_a_sequence_does_not_depend_on_its_neighbors(batch):
    same(SyntheticScenes("train").batch(0, 2, 4, *SIZE, num_tracks=16), batch, slice(0, 2))


def test_shapes_ranges_and_validity(batch):
    B, S, H, W, K = 6, 4, *SIZE, 16
    assert batch.images.shape == (B, S, 3, H, W) and batch.images.dtype == torch.float32
    assert batch.depth.shape == batch.valid.shape == batch.sky.shape == batch.instance_ids.shape == (B, S, H, W)
    assert batch.intrinsics.shape == (B, S, 3, 3) and batch.cam_from_world.shape == (B, S, 3, 4)
    assert batch.tracks.shape == (B, S, K, 2) and batch.visibility.shape == (B, S, K)
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    for value in (batch.images, batch.depth, batch.cam_from_world, batch.tracks):
        assert value.isfinite().all()
    assert torch.equal(batch.valid, batch.depth > 0)
    assert torch.equal(batch.sky, batch.instance_ids == 0) and torch.equal(batch.sky, ~batch.valid)
    assert batch.is_metric.all()
    R = batch.cam_from_world[..., :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    center = batch.intrinsics[..., :2, 2]
    assert (center == torch.tensor([W / 2, H / 2])).all()


def test_sky_is_seen_in_the_open_only():
    indoors = SyntheticScenes("val", style=SceneConfig(outdoor_prob=0.0)).batch(0, 12, 2, 28, 28)
    outdoors = SyntheticScenes("val", style=SceneConfig(outdoor_prob=1.0)).batch(0, 12, 2, 28, 28)
    assert not indoors.sky.any()
    share = outdoors.sky.float().mean()
    assert 0.03 < share < 0.6
    # Above the horizon, not below: rows get less sky downwards.
    rows = outdoors.sky.float().mean((0, 1, 3))
    assert rows[:7].mean() > rows[-7:].mean()


@pytest.mark.parametrize("size", [(70, 28), (28, 70), (30, 45)])
def test_any_size_and_portrait(size):
    batch = SyntheticScenes("train").batch(0, 2, 2, *size, num_tracks=4)
    assert batch.images.shape[-2:] == size
    focal = batch.intrinsics[..., 0, 0]
    assert torch.equal(focal, batch.intrinsics[..., 1, 1])
    fov = 2 * torch.atan(max(size) / 2 / focal).rad2deg()
    assert (fov > 34.9).all() and (fov < 90.1).all()


def test_no_scene_is_in_two_splits_or_worlds_or_batches():
    seeds = [
        SyntheticScenes(split, seed).scene_seeds(index, 7)
        for split in SPLITS
        for seed in (0, 1, (1 << 20) - 1)
        for index in (0, 1, (1 << 24) - 1)
    ]
    seeds = torch.cat(seeds)
    assert len(seeds.unique()) == len(seeds) and (seeds >= 0).all()


def test_wrong_numbers_are_rejected():
    with pytest.raises(ValueError, match="split"):
        SyntheticScenes("training")
    with pytest.raises(ValueError, match="seed"):
        SyntheticScenes(seed=-1)
    with pytest.raises(ValueError, match="index"):
        SyntheticScenes().scene_seeds(1 << 24, 1)


def test_a_sequence_is_the_same_however_it_is_cut():
    world = SyntheticScenes("test", style=SceneConfig(moving_prob=1.0))
    whole = next(world.sequence(0, 11, 28, 42, chunk=11))
    cut = list(world.sequence(0, 11, 28, 42, chunk=4))
    assert [part.num_frames for part in cut] == [4, 4, 3]
    for name in ("depth", "instance_ids", "cam_from_world"):
        assert torch.equal(torch.cat([getattr(part, name) for part in cut], 1), getattr(whole, name)), name
    close(torch.cat([part.images for part in cut], 1), whole.images)
    late = next(world.sequence(0, 11, 28, 42, start=7, chunk=4))
    close(late.images, whole.images[:, 7:])


def test_one_lap_ends_where_it_began_and_two_come_by_twice():
    world = SyntheticScenes("test", style=STILL)
    position = {}
    for laps in (0, 1, 2):
        parts = world.sequence(3, 401, 14, 14, num_laps=laps, chunk=401, start=0)
        position[laps] = next(parts).cameras.world_from_cam[0, :, :, 3]
    shake = 0.05
    assert (position[0] - position[0][0]).norm(dim=-1).max() < shake
    assert (position[1][400] - position[1][0]).norm() < 2 * shake
    assert (position[1][200] - position[1][0]).norm() > 4 * shake
    assert (position[2][200] - position[2][0]).norm() < 2 * shake


def test_long_sequences_need_no_more_memory_than_short_ones():
    world = SyntheticScenes("test")

    def peak(num_frames):
        tracemalloc.start()
        held = max(
            len(batch.images[0]) for batch in world.sequence(0, num_frames, 14, 14, chunk=8, start=num_frames - 24)
        )
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held, size

    peak(24)
    (held_short, short), (held_long, long) = peak(24), peak(100_000)
    assert held_short == held_long == 8
    assert long < 2 * short + 100_000


def test_the_source_reads_what_the_sequence_shows():
    world = SyntheticScenes("val")
    source = SyntheticSource(world, num_scenes=3, num_frames=100, height=28, width=42)
    assert source.scenes == ["scene_000000", "scene_000001", "scene_000002"]
    assert list(source.frames("scene_000001")) == list(range(100))
    views = [source.read("scene_000001", frame) for frame in (50, 51)]
    sequence = next(world.sequence(1, 100, 28, 42, start=50, chunk=2))
    same(stack([views]), sequence)
    with pytest.raises(KeyError, match="scene_7"):
        source.read("scene_7", 0)
    with pytest.raises(IndexError, match="100"):
        source.read("scene_000000", 100)


def test_neighboring_frames_share_much_but_not_all_and_cameras_keep_their_distance():
    """Over 60 scenes, measured on pixels: the share of a frame's surface points that the next camera has in view."""
    style = SceneConfig(moving_prob=0.0)
    seeds = SyntheticScenes("val").scene_seeds(5, 60)
    batch = SyntheticScenes("val", style=style).batch(5, 60, 5, 28, 28)
    shared = overlap(batch)
    assert shared.quantile(0.1) > 0.4
    assert shared.median() < 0.95
    assert ((shared > 0.4) & (shared < 0.95)).float().mean() > 0.55

    assert (batch.depth[batch.valid] > 0.1).all()
    nearest_tenth = batch.depth.masked_fill(~batch.valid, 60).flatten(2).quantile(0.1, -1)
    assert nearest_tenth.min() > 0.25
    assert batch.depth.max() < 120

    # Outside of everything that stands there: with a fair margin from every thing's own cuboid.
    stage = sample_setup(seeds, style)
    poses = stage.scenes.item_poses(torch.zeros(60, 1))[:, 0]
    away = batch.cameras.world_from_cam[..., 3][:, :, None] - poses[:, None, ..., 3]
    local = (poses[:, None, ..., :3].mT @ away[..., None])[..., 0].abs()
    distance = (local - stage.scenes.half[:, None]).clamp(min=0).norm(dim=-1)
    assert distance[stage.scenes.present[:, None].expand_as(distance)].min() > 0.25

    moved = batch.cameras.world_from_cam[..., 3].diff(dim=1).norm(dim=-1).mean(1)
    typical = torch.stack([depth[valid].median() for depth, valid in zip(batch.depth, batch.valid, strict=True)])
    assert (moved / typical).median() > 0.03  # parallax to learn from


def overlap(batch):
    """Share of a frame's known pixels whose points lie in the next frame's image. (B · (S-1),)"""
    following = Cameras(batch.cam_from_world[:, 1:], batch.intrinsics[:, 1:])
    pixels, depth = project(batch.points()[:, :-1].flatten(2, 3), following)
    H, W = batch.depth.shape[-2:]
    inside = ((pixels > -0.5) & (pixels < torch.tensor([W, H]) - 0.5)).all(-1) & (depth > 0)
    known = batch.valid[:, :-1].flatten(2)
    return ((inside & known).sum(-1) / known.sum(-1).clamp(min=1)).flatten()


def test_trajectories_are_smooth():
    world = SyntheticScenes("train")
    stage = sample_setup(world.scene_seeds(0, 40), world.style)
    times = (torch.arange(300) / FRAMES_PER_SECOND).expand(40, -1)
    poses = stage.trajectories.cam_from_world(times)
    turned = torch.arccos((((poses[:, 1:, :, :3] * poses[:, :-1, :, :3]).sum((-1, -2)) - 1) / 2).clamp(-1, 1))
    assert turned.max() < 0.2  # radians per 30th of a second
    fov = sample_fov(SceneRNG(stage.scenes.seeds, "clip"), SceneConfig())
    slow = render_frames(stage, times[:, :2], fov, (14, 14))
    moved = slow.cameras.world_from_cam[..., 3].diff(dim=1).norm(dim=-1)
    assert moved.max() < 0.3

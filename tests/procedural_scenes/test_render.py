"""The renderer against geometry: formulas by hand, frames against each other, tracks against things."""

import math
from dataclasses import replace

import pytest
import torch

from procedural_scenes.clip import sample_clip_times, sample_fov
from procedural_scenes.environment import NUM_FACES
from procedural_scenes.render import render, select
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneConfig, sample_setup
from procedural_scenes.tracks import sample_tracks
from procedural_scenes.world import SyntheticScenes, intrinsics_from_fov
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import pixel_grid, project, unproject

H, W = 56, 70


def stage_of(count, index=0, **style):
    return sample_setup(SyntheticScenes("test").scene_seeds(index, count), SceneConfig(**style))


def filmed(stage, num_frames, size=(H, W), times=None):
    dice = SceneRNG(stage.scenes.seeds, "clip")
    fov = sample_fov(dice, SceneConfig())
    if times is None:
        times = sample_clip_times(stage, SceneConfig(), dice, fov, num_frames)
    intrinsics = intrinsics_from_fov(fov, size)[:, None].expand(-1, times.shape[1], -1, -1)
    cameras = Cameras(stage.trajectories.cam_from_world(times), intrinsics)
    return times, cameras, render(stage.scenes, cameras, times, size)


def plain(scenes):
    """Without what depends on where one looks from or on the moment: highlights, haze, noise, flicker, shadows."""
    zero = torch.zeros_like(scenes.sensors.noise)
    return replace(
        scenes,
        materials=replace(scenes.materials, gloss=torch.zeros_like(scenes.materials.gloss)),
        lights=replace(scenes.lights, haze=zero, color=torch.zeros_like(scenes.lights.color)),
        sensors=replace(scenes.sensors, noise=zero, flicker=zero),
    )


def by_hand():
    """A room of 8 × 6 meters, 3 high, and in it a ball of radius 0.5 at (0, -1, 2) and nothing else."""
    scenes = stage_of(1, outdoor_prob=0.0, moving_prob=0.0).scenes
    boxes = scenes.num_boxes
    part_half = torch.zeros_like(scenes.part_half)
    part_half[:, boxes] = 0.5
    part_center = torch.zeros_like(scenes.part_center)
    is_ball = torch.zeros_like(scenes.is_ball)
    is_ball[:, 0] = True
    center = torch.zeros_like(scenes.center)
    center[:, 0] = torch.tensor([0.0, -1.0, 2.0])
    shells = replace(
        scenes.shells,
        half=torch.tensor([[4.0, 3.0]]),
        height=torch.tensor([3.0]),
        round=torch.tensor([False]),
    )
    return replace(scenes, shells=shells, part_half=part_half, part_center=part_center, is_ball=is_ball, center=center)


@pytest.fixture(scope="module")
def rays():
    """An upright camera at (0, -1.2, -1.5) that looks along z, and its pixels' rays of depth 1. (P, 3)"""
    intrinsics = intrinsics_from_fov(torch.tensor([math.radians(80)]), (H, W))
    pose = torch.eye(3, 4)
    pose[:, 3] = torch.tensor([0.0, 1.2, 1.5])
    grid = pixel_grid(H, W, torch.zeros(1, dtype=torch.float64)).flatten(0, 1)
    focal = intrinsics[0, 0, 0].double()
    directions = torch.cat([(grid - torch.tensor([W / 2, H / 2])) / focal, torch.ones(H * W, 1)], -1)
    return Cameras(pose[None, None], intrinsics[:, None]), directions


def test_a_ball_in_a_room_against_the_formulas(rays):
    cameras, direction = rays
    pictures = render(by_hand(), cameras, torch.zeros(1, 1), (H, W))
    x, y, _ = direction.unbind(-1)
    inf = torch.tensor(torch.inf, dtype=torch.float64)
    floor = torch.where(y > 0, 1.2 / y, inf)
    ceiling = torch.where(y < 0, -1.8 / y, inf)
    side = 4 / x.abs()
    expected = torch.minimum(torch.minimum(floor, ceiling), side).clamp(max=4.5)  # the wall at z = 3
    # The ball, seen from the camera, is at (0, 0.2, 3.5): |t·d - c|² = 0.25.
    center = torch.tensor([0.0, 0.2, 3.5], dtype=torch.float64)
    a, b, c = (direction**2).sum(-1), direction @ center, center @ center - 0.25
    inside = b * b - a * c
    ball = torch.where(inside > 0, (b - inside.clamp(min=0).sqrt()) / a, inf)
    expected = torch.minimum(expected, ball)
    rim = inside.abs() < 1e-4  # where a float cannot say on which side it is
    depth, ids = pictures.depth.flatten().double(), pictures.instance_ids.flatten()
    torch.testing.assert_close(depth[~rim], expected[~rim], rtol=2e-6, atol=1e-5)
    assert torch.equal(ids[~rim] == 1 + NUM_FACES, ball[~rim] < torch.inf)
    assert (ball < torch.inf).sum() > 50


def test_a_cylinder_and_a_turned_box_against_their_surfaces(rays):
    """Points that are seen lie on the surface, and every ray that misses the thing passes it outside."""
    cameras, _ = rays
    scenes = by_hand()
    item_rotation = scenes.rotation.clone()
    quarter = math.sqrt(0.5)
    item_rotation[:, 0] = torch.tensor([[quarter, -quarter, 0], [quarter, quarter, 0], [0, 0, 1.0]])
    for kind in ("cylinder", "box"):
        part_half = torch.zeros_like(scenes.part_half)
        part_half[:, 0 if kind == "box" else scenes.num_boxes] = torch.tensor([0.4, 0.7, 0.4])
        thing = replace(scenes, rotation=item_rotation, part_half=part_half, is_ball=torch.zeros_like(scenes.is_ball))
        pictures = render(thing, cameras, torch.zeros(1, 1), (H, W))
        points = unproject(pictures.depth, cameras)[0, 0]
        local = (points - scenes.center[0, 0]) @ item_rotation[0, 0]
        x, y, z = (local / torch.tensor([0.4, 0.7, 0.4])).abs().unbind(-1)
        out = torch.maximum(torch.hypot(x, z), y) if kind == "cylinder" else torch.maximum(torch.maximum(x, y), z)
        seen = pictures.instance_ids[0, 0] == 1 + NUM_FACES
        assert seen.sum() > 80
        torch.testing.assert_close(out[seen], torch.ones_like(out[seen]), rtol=0, atol=2e-5)
        # Walk along every other ray: never inside.
        origin = cameras.world_from_cam[0, 0, :, 3]
        for share in torch.linspace(0, 1, 60):
            step = ((origin + share * (points - origin) - scenes.center[0, 0]) @ item_rotation[0, 0]).div(
                torch.tensor([0.4, 0.7, 0.4])
            )
            x, y, z = step.abs().unbind(-1)
            out = torch.maximum(torch.hypot(x, z), y) if kind == "cylinder" else torch.maximum(torch.maximum(x, y), z)
            assert (out[~seen] > 1 - 1e-4).all()


def test_frames_agree_on_the_surfaces_they_share():
    """Points of frame i, where frame j's camera sees them: cast a ray exactly there, and it ends at the point."""
    stage = stage_of(6, moving_prob=0.0)
    times, cameras, pictures = filmed(stage, 3)
    points = unproject(pictures.depth, cameras)
    agree, total = 0, 0
    for i, j in ((0, 1), (1, 0), (1, 2), (2, 0)):
        other = Cameras(cameras.cam_from_world[:, j], cameras.intrinsics[:, j])
        pixels, depth = project(points[:, i].flatten(1, 2), other)
        known = (pictures.depth[:, i] > 0).flatten(1)
        inside = ((pixels > 0) & (pixels < torch.tensor([W - 1.0, H - 1.0]))).all(-1) & (depth > 0.1) & known
        # Shift the principal point so that the place is a pixel center: one picture of one pixel per place.
        for scene in range(6):
            some = inside[scene].nonzero()[:, 0][::97]
            K = other.intrinsics[scene].repeat(len(some), 1, 1)
            K[:, :2, 2] -= pixels[scene, some]
            one = Cameras(other.cam_from_world[scene].expand(1, len(some), 3, 4), K[None])
            picture = render(
                select(stage.scenes, torch.tensor([scene])), one, times[scene, j].expand(1, len(some)), (1, 1)
            )
            there, expected = picture.depth[0, :, 0, 0], depth[scene, some]
            clear = there > 0
            # What is seen there is the point, or something before it; never something behind it.
            assert (there[clear] < expected[clear] * (1 + 2e-3) + 1e-4).all()
            ids = pictures.instance_ids[scene, i].flatten()[some]
            hit = clear & ((there - expected).abs() < 1e-4 * expected + 1e-5)
            same = picture.instance_ids[0, :, 0, 0] == ids
            assert same[hit].float().mean() > 0.98 if hit.any() else True
            agree, total = agree + int(hit.sum()), total + len(some)
    assert total > 300 and agree / total > 0.6


def test_texture_sticks_to_surfaces():
    """The same point has the same color from two places near each other, with all that depends on the look off."""
    stage = stage_of(8, moving_prob=0.0)
    stage = replace(stage, scenes=plain(stage.scenes))
    _, cameras, pictures = filmed(stage, 2, (84, 84), times=torch.tensor([[1.0, 1.4]]).expand(8, -1))
    points = unproject(pictures.depth, cameras)
    other = Cameras(cameras.cam_from_world[:, 1], cameras.intrinsics[:, 1])
    pixels, depth = project(points[:, 0].flatten(1, 2), other)
    grid = pixels / (84 - 1) * 2 - 1

    def there(values):
        return torch.nn.functional.grid_sample(values, grid[:, None], align_corners=True, padding_mode="border")[
            :, :, 0
        ]

    inside = (grid.abs() < 0.98).all(-1) & (depth > 0.1) & (pictures.depth[:, 0] > 0).flatten(1)
    inside &= (there(pictures.depth[:, 1:])[:, 0] - depth).abs() < 0.01 * depth
    difference = (there(pictures.images[:, 1]) - pictures.images[:, 0].flatten(2)).abs().mean(1)
    assert inside.float().mean() > 0.5
    difference = difference[inside]
    spread = pictures.images[:, 0].flatten(2).std(-1).mean()
    assert difference.median() < 0.02
    assert difference.mean() < 0.35 * spread


def test_there_is_detail_on_the_surfaces():
    """Within one face or thing, neighboring pixels differ: else there is nothing to match."""
    stage = stage_of(16)
    stage = replace(stage, scenes=plain(stage.scenes))
    _, _, pictures = filmed(stage, 1)
    ids, images = pictures.instance_ids[:, 0], pictures.images[:, 0]
    same = (ids[:, :, 4:] == ids[:, :, :-4]) & (ids[:, :, 4:] > 0)
    step = (images[..., 4:] - images[..., :-4]).abs().mean(1)
    assert step[same].mean() > 0.03
    assert (step[same] > 0.01).float().mean() > 0.6


@pytest.fixture(scope="module")
def moving():
    stage = stage_of(12, moving_prob=1.0)
    times, cameras, pictures = filmed(stage, 4)
    tracks = sample_tracks(stage.scenes, cameras, times, pictures, 64, SceneRNG(stage.scenes.seeds, "tracks"))
    return stage, times, cameras, pictures, tracks


def test_tracks_start_at_pixels_of_the_first_frame_and_are_seen_there(moving):
    *_, tracks = moving
    first = tracks.positions[:, 0]
    torch.testing.assert_close(first, first.round(), atol=2e-3, rtol=0)
    assert tracks.visibility[:, 0].float().mean() > 0.995
    assert 0.3 < tracks.visibility[:, 1:].float().mean() < 0.99


def test_a_visible_track_is_where_the_depth_map_has_its_point(moving):
    _, _, cameras, pictures, tracks = moving
    positions, depth = project(tracks.points, cameras)
    assert torch.equal(positions, tracks.positions)
    nearest = positions.round().long()
    x, y = nearest[..., 0].clamp(0, W - 1), nearest[..., 1].clamp(0, H - 1)
    around = torch.nn.functional.pad(pictures.depth.flatten(0, 1)[:, None], (1, 1, 1, 1), "replicate")
    around = torch.nn.functional.unfold(around, 3).unflatten(0, pictures.depth.shape[:2])  # (B, S, 9, HW)
    around = around.gather(-1, (y * W + x)[:, :, None].expand(-1, -1, 9, -1))
    low, high = around.amin(2), around.amax(2)
    attended_frames = tracks.visibility
    agrees = (depth > 0.97 * low) & (depth < 1.03 * high)
    assert agrees[attended_frames].float().mean() > 0.97
    # A point in the image that is not visible has something before it, mostly by more than a pixel's difference.
    inside = ((positions >= 0) & (positions <= torch.tensor([W - 1.0, H - 1.0]))).all(-1) & (depth > 0.1)
    hidden = inside & ~attended_frames
    assert hidden.sum() > 20
    before = low[hidden] < depth[hidden] * 0.999
    assert before.float().mean() > 0.9


def test_tracks_follow_moving_things(moving):
    stage, times, _, pictures, tracks = moving
    ids = pictures.instance_ids[:, 0].flatten(1)
    pixel = tracks.positions[:, 0].round().long()
    item = ids.gather(1, pixel[..., 1] * W + pixel[..., 0]) - 1 - NUM_FACES
    moves = stage.scenes.moves.gather(1, item.clamp(min=0)) & (item >= 0)
    travelled = (tracks.points[:, -1] - tracks.points[:, 0]).norm(dim=-1)
    assert (travelled[~moves] < 1e-5).all()
    assert moves.sum() > 5
    assert (travelled[moves] > 0.02).float().mean() > 0.6
    # A thing is rigid: the distance between two of its points stays.
    poses = stage.scenes.item_poses(times)
    for scene, point in moves.nonzero().tolist():
        pose = poses[scene, :, item[scene, point]]
        local = (pose[:, :, :3].mT @ (tracks.points[scene, :, point] - pose[:, :, 3])[..., None])[..., 0]
        torch.testing.assert_close(local, local[:1].expand_as(local), atol=2e-5, rtol=0)


def test_texture_moves_with_its_thing(rays):
    """A camera that stands still, a ball that moves and turns: its points keep their colors."""
    cameras, _ = rays
    scenes = plain(by_hand())
    ambient = torch.ones_like(scenes.lights.sky_ambient)
    sway = torch.zeros_like(scenes.sway)
    sway[:, 0, 1, 0] = 0.8
    moving = replace(
        scenes,
        lights=replace(scenes.lights, sky_ambient=ambient, ground_ambient=ambient),
        sway=sway,
        spin=torch.full_like(scenes.spin, 0.02),
        rate=torch.full_like(scenes.rate, 0.1),
        present=torch.arange(scenes.num_items)[None] == 0,
    )
    times = torch.tensor([[0.0, 1.2]])
    both = Cameras(cameras.cam_from_world.expand(1, 2, 3, 4), cameras.intrinsics.expand(1, 2, 3, 3))
    pictures = render(moving, both, times, (H, W))
    tracks = sample_tracks(moving, both, times, pictures, 3000, SceneRNG(scenes.seeds, "tracks"))
    grid = tracks.positions[0] / torch.tensor([W - 1, H - 1]) * 2 - 1

    def there(values):
        return torch.nn.functional.grid_sample(values[0], grid[:, None], align_corners=True)[:, :, 0]

    on_ball = (there(pictures.instance_ids.float()[:, :, None])[:, 0] - 1 - NUM_FACES).abs().amax(0) < 1e-3
    on_ball &= tracks.visibility[0].all(0)
    first, second = there(pictures.images)
    assert on_ball.sum() > 60
    assert (tracks.positions[0, 1] - tracks.positions[0, 0])[on_ball].norm(dim=-1).median() > 3
    spread = first[:, on_ball].std(1).mean()
    assert (first - second)[:, on_ball].abs().mean() < 0.5 * spread


def test_things_that_move_are_rendered_where_they_are(moving):
    stage, times, cameras, pictures, _ = moving
    points = unproject(pictures.depth, cameras)
    poses = stage.scenes.item_poses(times)
    item = pictures.instance_ids - 1 - NUM_FACES
    for scene, frame, y, x in (item >= 0).nonzero()[::501].tolist():
        which = item[scene, frame, y, x]
        pose = poses[scene, frame, which]
        local = pose[:, :3].T @ (points[scene, frame, y, x] - pose[:, 3])
        assert (local.abs() <= stage.scenes.half[scene, which] * 1.001 + 1e-4).all()


def test_rendering_in_chunks_changes_nothing(monkeypatch):
    from procedural_scenes import raycast
    from procedural_scenes import render as renderer

    stage = stage_of(2)
    _, _, whole = filmed(stage, 3)
    monkeypatch.setitem(renderer.CHUNK_PIXELS, "cpu", 1)
    monkeypatch.setitem(raycast.CHUNK_ELEMENTS, "cpu", 1)
    _, _, pieces = filmed(stage, 3)
    assert torch.equal(whole.depth, pieces.depth) and torch.equal(whole.instance_ids, pieces.instance_ids)
    # Powers and exponentials of a last digit's difference: the processor's wide and narrow ones.
    torch.testing.assert_close(whole.images, pieces.images, atol=1e-5, rtol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_shows_the_same_world():
    world = SyntheticScenes("test")
    here, there = (world.batch(0, 4, 3, H, W, 8, device).to("cpu") for device in ("cpu", "cuda"))
    close = (here.depth - there.depth).abs() < 1e-3 * here.depth + 1e-4
    assert close.float().mean() > 0.99
    assert (here.images - there.images).abs().mean() < 0.01

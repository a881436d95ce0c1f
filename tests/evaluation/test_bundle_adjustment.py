"""Bundle adjustment brings cameras of the procedural world nearer to the truth, or leaves them as they are."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from small_models import tiny

from procedural_scenes import SyntheticScenes
from procedural_scenes.scene import SceneConfig
from streamvggt.evaluation.pose_metrics import auc, relative_pose_errors
from streamvggt.evaluation.tracks import HeadTracks, farthest_cameras, get_track_provider
from streamvggt.geometry.camera import Cameras, compose_poses, invert_pose
from streamvggt.geometry.pointmap import project
from streamvggt.geometry.rotation import matrix_from_quaternion
from streamvggt.refinement.bundle_adjustment import BundleAdjustmentError, Tracks, adjust, triangulate
from streamvggt.refinement.sift import frame_pairs, merge_matches, sift_keypoints, sift_tracks

WORLD = SyntheticScenes("val", style=SceneConfig(moving_prob=0.0))
SIZE = (168, 224)


def disturbed(cameras: Cameras, degrees: float = 2.0, seed: int = 0) -> Cameras:
    """Cameras as a network might say them: turned, shifted by a twentieth of their spread, of a wrong focal length."""
    generator = torch.Generator().manual_seed(seed)
    poses = cameras.cam_from_world.double()
    num_frames = len(poses)
    half = torch.randn(num_frames, 3, generator=generator).double() * torch.deg2rad(torch.tensor(degrees)) / 2
    turn = matrix_from_quaternion(torch.cat([half, torch.ones(num_frames, 1).double()], -1))
    centers = invert_pose(poses)[..., 3]
    spread = (centers - centers.mean(0)).norm(dim=-1).mean()
    shift = torch.randn(num_frames, 3, 1, generator=generator).double() * spread / 20
    intrinsics = cameras.intrinsics.double().clone()
    intrinsics[:, 0, 0] *= 1.05
    intrinsics[:, 1, 1] *= 1.05
    return Cameras(compose_poses(torch.cat([turn, shift], -1), poses), intrinsics)


def area(poses: torch.Tensor, true: torch.Tensor) -> float:
    return auc(torch.maximum(*relative_pose_errors(poses, true)), 15)


@pytest.mark.parametrize("scene", [0, 3, 4])
def test_true_tracks_with_noise_and_outliers_improve_the_poses(scene):
    batch = WORLD.batch(scene, 1, 6, *SIZE, num_tracks=200)
    true = Cameras(batch.cam_from_world[0], batch.intrinsics[0])
    generator = torch.Generator().manual_seed(scene)
    positions = batch.tracks[0] + 0.3 * torch.randn(batch.tracks[0].shape, generator=generator)
    is_wrong = torch.rand(positions.shape[:2], generator=generator) < 0.1
    positions[is_wrong] = torch.rand(positions.shape, generator=generator)[is_wrong] * 200
    start = disturbed(true, seed=scene)
    refined = adjust(start, Tracks(positions, batch.visibility[0]), SIZE, batch.depth[0])
    poses = refined.cameras.cam_from_world
    assert refined.end_error < 0.5 < refined.start_error
    assert area(poses, true.cam_from_world) > area(start.cam_from_world, true.cam_from_world) + 0.2


def test_sift_improves_the_poses():
    batch = WORLD.batch(3, 1, 4, *SIZE)
    true = Cameras(batch.cam_from_world[0], batch.intrinsics[0])
    start = disturbed(true)
    poses = adjust(start, sift_tracks(batch.images[0], start), SIZE, batch.depth[0]).cameras.cam_from_world
    assert area(poses, true.cam_from_world) > area(start.cam_from_world, true.cam_from_world) + 0.2


def test_too_little_to_go_by_is_reported():
    batch = WORLD.batch(3, 1, 4, *SIZE, num_tracks=200)
    cameras = Cameras(batch.cam_from_world[0], batch.intrinsics[0])
    with pytest.raises(BundleAdjustmentError, match="has 10 inlier points"):
        adjust(cameras, Tracks(batch.tracks[0, :, :10], torch.ones(4, 10, dtype=torch.bool)), SIZE, batch.depth[0])
    with pytest.raises(BundleAdjustmentError, match="has 0 inlier points"):
        adjust(cameras, Tracks(torch.rand(4, 0, 2), torch.ones(4, 0, dtype=torch.bool)), SIZE, batch.depth[0])
    with pytest.raises(BundleAdjustmentError, match="not finite"):
        broken = Cameras(cameras.cam_from_world * torch.nan, cameras.intrinsics)
        adjust(broken, Tracks(batch.tracks[0], batch.visibility[0]), SIZE)
    still = Cameras(cameras.cam_from_world[:1].expand(4, 3, 4), cameras.intrinsics)
    with pytest.raises(BundleAdjustmentError):  # no baseline, no distance
        adjust(still, Tracks(batch.tracks[0, :1].expand(4, -1, -1), batch.visibility[0]), SIZE)


def test_rays_meet_where_the_points_are():
    batch = WORLD.batch(0, 1, 3, 28, 42)
    cameras = Cameras(batch.cam_from_world[0].double(), batch.intrinsics[0].double())
    points = batch.points()[0, 0, ::7, ::7].reshape(-1, 3).double()
    positions, _ = project(points.expand(3, -1, -1), cameras)
    seen = torch.ones(3, len(points), dtype=torch.bool)
    seen[2, 0] = seen[1, 1] = False
    positions[2, 0] = 1e4
    torch.testing.assert_close(triangulate(cameras, positions, seen), points, atol=1e-6, rtol=1e-6)
    seen[1, 0] = False
    assert triangulate(cameras, positions, seen)[0].isnan().all()


def test_matches_are_joined_to_tracks_and_contradictions_dropped():
    keypoints = [np.array([[frame, 0], [frame, 1], [frame, 2]], np.float32) for frame in range(3)]
    matches = {
        (0, 1): np.array([[0, 0], [1, 1]]),
        (1, 2): np.array([[0, 0], [1, 1]]),
        (0, 2): np.array([[2, 1]]),  # so points 1 and 2 of frame 0 would be one
    }
    tracks = merge_matches(keypoints, matches)
    assert tracks.seen.tolist() == [[True]] * 3
    assert tracks.positions[:, 0].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert merge_matches(keypoints, {}).seen.shape == (3, 0)


def test_cameras_that_are_farthest_apart():
    centers = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [4.9, 0, 0], [-3, 0, 0]])
    poses = torch.cat([torch.eye(3).expand(5, 3, 3), -centers[..., None]], -1)
    assert farthest_cameras(Cameras(poses, torch.eye(3).expand(5, 3, 3)), 3) == [0, 2, 4]


def test_the_track_head_follows_keypoints_of_frames_in_the_order_of_the_sequence():
    images = WORLD.batch(3, 1, 3, 56, 56).images[0]
    batch_cameras = WORLD.batch(3, 1, 3, 56, 56)
    cameras = Cameras(batch_cameras.cam_from_world[0], batch_cameras.intrinsics[0])
    tracks = HeadTracks(tiny(dtype=torch.float32))(images, cameras)
    start = 0
    for frame in farthest_cameras(cameras, 3):
        keypoints = torch.from_numpy(sift_keypoints(images[frame])[0])
        own = tracks.positions[frame, start : start + len(keypoints)]
        torch.testing.assert_close(own, keypoints)  # a point is where it was requested
        start += len(keypoints)
    assert start == tracks.seen.shape[1] > 0


def test_lightglue_is_used_where_it_is_installed(monkeypatch):
    """Against a stand-in with LightGlue's interface: it finds the same three corners in all images."""
    places = torch.tensor([[[1.0, 2], [3, 4], [5, 6]]])

    class Part:
        def __init__(self, **options):
            pass

        def eval(self):
            return self

        def to(self, device):
            return self

    class ALIKED(Part):
        def extract(self, image):
            return {"keypoints": places}

    class LightGlue(Part):
        def __call__(self, pair):
            assert set(pair) == {"image0", "image1"}
            return {"matches": [torch.tensor([[0, 0], [2, 2]])]}

    module = ModuleType("lightglue")
    module.ALIKED, module.LightGlue, module.__spec__ = ALIKED, LightGlue, object()
    monkeypatch.setitem(sys.modules, "lightglue", module)
    model = tiny(heads=("camera", "depth"))
    tracks = get_track_provider("auto", model)(torch.zeros(3, 3, 28, 28), None)
    assert tracks.seen.tolist() == [[True, True]] * 3
    assert tracks.positions[1].tolist() == [[1, 2], [5, 6]]


def test_providers_that_are_not_there_are_named():
    model = tiny(heads=("camera", "depth"))
    assert get_track_provider("auto", model) is sift_tracks
    assert isinstance(get_track_provider("auto", tiny()), HeadTracks)
    for name, words in (("head", "no track head"), ("lightglue", "not installed"), ("orb", "unknown")):
        with pytest.raises(ValueError, match=words):
            get_track_provider(name, model)


def test_long_sequences_are_matched_at_distances_of_powers_of_two():
    assert len(frame_pairs(40)) == 40 * 39 / 2
    pairs = frame_pairs(50)
    assert {second - first for first, second in pairs} == {1, 2, 4, 8, 16, 32}
    assert len(pairs) == 49 + 48 + 46 + 42 + 34 + 18

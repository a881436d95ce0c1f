"""ARKitScenes from its download, in both forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.encode import millimeters, write_image, write_png
from streamvggt.data.transforms import crop
from streamvggt.datasets import prepare
from streamvggt.datasets._arkit import Recording, rotate_view
from streamvggt.datasets.arkitscenes import ARKitScenes
from streamvggt.datasets.arkitscenes_highres import ARKitScenesHighRes

SCENE = "40000001"
Z_UP_FROM_Y_DOWN = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def upright_clip(num_frames):
    """In a world with z upwards, the principal point away from the middle."""
    (clip,) = world_clips(1, num_frames, 52, 72)
    clip = [crop(view, 6, 0, (64, 48)) for view in clip]
    return [
        replace(
            view,
            cam_from_world=torch.cat([view.cam_from_world[:, :3] @ Z_UP_FROM_Y_DOWN.T, view.cam_from_world[:, 3:]], -1),
        )
        for view in clip
    ]


CLIP = upright_clip(4)
TIMES = [999.8, 999.9, 1000.0, 1000.1]


def write_raw(raw, clip, split="Training", color_delay=0.0, between=True):
    """Thirty color frames a second, ten poses.

    Args:
        color_delay: of the clock of colors, in seconds.
        between: whether there are color frames between those of the clip.
    """
    folder = raw / split / SCENE
    rows = []
    for time, view in zip(TIMES, clip, strict=True):
        pose = view.cam_from_world.double().numpy()
        rows.append([time, *Rotation.from_matrix(pose[:, :3]).as_rotvec(), *pose[:, 3]])
        (fx, _, cx), (_, fy, cy), _ = view.intrinsics.tolist()
        height, width = view.depth.shape
        low = millimeters(view)[1::2, 1::2]
        write_png(folder / f"lowres_depth/{SCENE}_{time:.3f}.png", low)
        write_png(folder / f"highres_depth/{SCENE}_{time:.3f}.png", millimeters(view).repeat(3, 0).repeat(3, 1))
        for delay in (0, 1 / 30, 2 / 30) if between else (0,):
            name = f"{SCENE}_{time + delay + color_delay:.3f}"
            write_image(folder / f"vga_wide/{name}.png", view)
            (folder / "vga_wide_intrinsics").mkdir(exist_ok=True)
            pincam = folder / f"vga_wide_intrinsics/{name}.pincam"
            pincam.write_text(f"{width} {height} {fx} {fy} {cx} {cy}", encoding="utf-8")
    np.savetxt(folder / "lowres_wide.traj", rows)
    return folder


def check(view, truth):
    torch.testing.assert_close(view.intrinsics, truth.intrinsics, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(view.cam_from_world, truth.cam_from_world, rtol=0, atol=1e-4)
    assert view.image.shape == truth.image.shape
    assert (view.image - truth.image).abs().mean() < 0.03


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_recordings_become_the_upright_world(turns, tmp_path):
    """However the tablet was held."""
    write_raw(tmp_path / "raw", [rotate_view(view, turns) for view in CLIP])
    report = prepare("arkitscenes", tmp_path / "raw", tmp_path)
    assert report.prepared == [f"Training/{SCENE}"] and not report.failed
    source = ARKitScenes(tmp_path / ARKitScenes.folder)
    frames = source.frames(SCENE)
    assert frames == [f"{SCENE}_{time:.3f}" for time in TIMES], "ten a second, zeros at the end kept"
    for frame, truth in zip(frames, CLIP, strict=True):
        view = source.read(SCENE, frame)
        check(view, truth)
        # Depth of half the pixels, each of them four times.
        low = rotate_view(truth, turns).depth[1::2, 1::2]
        doubled = torch.rot90(low.repeat_interleave(2, 0).repeat_interleave(2, 1), -turns)
        assert ((view.depth - doubled).abs() <= 0.00051)[view.valid].all()


@pytest.mark.parametrize("turns", [0, 3])
def test_laser_depth_becomes_the_upright_world(turns, tmp_path):
    """Colors may be a millisecond off; frames are called after them."""
    write_raw(tmp_path / "raw/raw", [rotate_view(view, turns) for view in CLIP], split="Validation", color_delay=-0.001)
    report = prepare("arkitscenes_highres", tmp_path / "raw", tmp_path)
    assert report.prepared == [f"Validation/{SCENE}"] and not report.failed
    source = ARKitScenesHighRes(tmp_path / ARKitScenesHighRes.folder, "test")
    # The first colors are before the first pose.
    assert source.frames(SCENE) == [f"{SCENE}_{time - 0.001:.3f}" for time in TIMES[1:]]
    for frame, truth in zip(source.frames(SCENE), CLIP[1:], strict=True):
        view = source.read(SCENE, frame)
        assert (view.image - truth.image).abs().mean() < 0.03
        assert ((view.depth - truth.depth).abs() <= 0.00051)[view.valid].all()
        assert (view.cam_from_world - truth.cam_from_world).abs().max() < 0.02, "a hundredth of the way before it"


def test_the_download_calls_the_test_split_validation(tmp_path):
    write_raw(tmp_path / "raw", CLIP, split="Validation", between=False)
    prepare("arkitscenes", tmp_path / "raw", tmp_path)
    source = ARKitScenes(tmp_path / ARKitScenes.folder, "test")
    assert source.scenes == [SCENE]
    groups = source.groups(SCENE)
    assert groups and all(0 <= number < 4 for group in groups for number in group)
    assert any(group[:2] == [0, 1] for group in groups), "neighbors see the same"


def test_frames_without_pose_or_depth_are_skipped(tmp_path):
    folder = write_raw(tmp_path / "raw", CLIP, between=False)
    (folder / f"lowres_depth/{SCENE}_999.900.png").unlink()
    (folder / f"vga_wide_intrinsics/{SCENE}_1000.000.pincam").unlink()
    rows = np.loadtxt(folder / "lowres_wide.traj")
    rows[0, 0] -= 10  # nothing is known of the ten seconds after it
    np.savetxt(folder / "lowres_wide.traj", rows)
    assert Recording(folder).pose(995.0) is None and Recording(folder).pose(2000.0) is None
    prepare("arkitscenes", tmp_path / "raw", tmp_path)
    assert ARKitScenes(tmp_path / ARKitScenes.folder).frames(SCENE) == [f"{SCENE}_1000.100"]


def test_poses_between_two_are_between_them(tmp_path):
    rows = [[0, 0, 0, 0, 1, 0, 0], [0.1, 0, 0, np.radians(20), 0, 0, 0]]
    np.savetxt(tmp_path / "lowres_wide.traj", rows)
    pose = Recording(tmp_path).pose(0.05)
    np.testing.assert_allclose(Rotation.from_matrix(pose[:3, :3]).as_rotvec(degrees=True), [0, 0, -10], atol=1e-9)
    np.testing.assert_allclose(pose[:3, 3], [-0.5, 0, 0], atol=1e-12)


def test_turning_an_image_moves_no_point():
    view = CLIP[0]
    points = view.points()
    for turns in range(5):
        turned = rotate_view(view, turns)
        torch.testing.assert_close(turned.points(), torch.rot90(points, turns), rtol=0, atol=1e-4)
        assert turned.image.shape[1:] == turned.depth.shape


def test_damage_is_reported(tmp_path):
    folder = write_raw(tmp_path / "raw", CLIP, between=False)
    (folder / f"vga_wide_intrinsics/{SCENE}_999.800.pincam").write_text("640 480 500 500 320 240", encoding="utf-8")
    report = prepare("arkitscenes", tmp_path / "raw", tmp_path)
    assert "999.800.png has (48, 64) pixels, its .pincam says (480, 640)" in report.failed[f"Training/{SCENE}"]
    (folder / "lowres_wide.traj").write_text("1 2 3\n4 5 6\n", encoding="utf-8")
    report = prepare("arkitscenes", tmp_path / "raw", tmp_path)
    assert "lowres_wide.traj: expected 2 lines of 7 numbers, got 2 of 3" in report.failed[f"Training/{SCENE}"]

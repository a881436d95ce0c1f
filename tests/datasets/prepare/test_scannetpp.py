"""ScanNet++ from its download: a painted box of which every picture is known, however bent the lens."""

import cv2
import numpy as np
import pytest
import torch
import trimesh

from streamvggt.data.consistency import agreement
from streamvggt.data.decode import write_rgb
from streamvggt.data.encode import write_png
from streamvggt.datasets import prepare, scannetpp
from streamvggt.datasets._colmap import read_colmap
from streamvggt.datasets.scannetpp import ScanNetpp
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import unproject

SCENE = "036bce3393"
HALF = np.array([3.0, 2, 2.5])  # of the room's sides, meters
# width, height, fx, fy, cx, cy, distortion: as COLMAP writes them, the first pixel's center at (0.5, 0.5)
STILL = (175, 117, 80.0, 81, 88.5, 57, -0.03, 0.006, -0.002, 0.0005)
PHONE = (192, 144, 150.0, 149, 95, 73, 0.05, -0.02, 0.001, -0.0005)
QUATERNIONS = [(0.9, 0.1, -0.42, 0.05), (0.92, 0.05, -0.38, 0.02), (0.88, 0.12, -0.45, 0.0)]  # w, x, y, z
CENTERS = np.array([[0.3, 0.1, -0.2], [0.5, 0.2, -0.1], [0.0, 0.1, 0.1]])


def paint(points):
    """The color of a place on the walls, smooth. (..., 3) → (..., 3) in [0, 1]"""
    waves = np.stack([points @ direction for direction in np.array([[5.0, 3, 2], [-2, 6, 3], [3, -2, 6]])], -1)
    return 0.5 + 0.4 * np.sin(waves)


def hits(origin, rays):
    """Where rays from inside the box meet it. (3,), (..., 3) → (..., 3)"""
    with np.errstate(divide="ignore"):
        distance = ((np.sign(rays) * HALF - origin) / rays).min(-1)
    return origin + distance[..., None] * rays


def pose(quaternion, center):
    """COLMAP's: cam_from_world as quaternion and translation; and world_from_cam."""
    w, *xyz = np.array(quaternion) / np.linalg.norm(quaternion)
    cam_from_world = trimesh.transformations.quaternion_matrix([w, *xyz])
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ center
    return [w, *xyz, *cam_from_world[:3, 3]], np.linalg.inv(cam_from_world)


def photograph(camera, world_from_cam, fisheye):
    """What a bent lens sees of the box. (H, W, 3) uint8"""
    width, height, fx, fy, cx, cy, *distortion = camera
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x + 0.5, y + 0.5], -1).reshape(-1, 1, 2).astype(np.float64)  # centers, as COLMAP counts
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    flat = undistort(pixels, K, np.array(distortion)).reshape(height, width, 2)
    rays = np.concatenate([flat, np.ones((height, width, 1))], -1) @ world_from_cam[:3, :3].T
    return (paint(hits(world_from_cam[:3, 3], rays)) * 255).round().astype(np.uint8)


def write_device(folder, model, camera, names, pictures, masks):
    """The points of every second image of images.txt are left empty, as COLMAP may."""
    (folder / "colmap").mkdir(parents=True)
    width, height, *parameters = camera
    line = f"1 {model} {width} {height} {' '.join(map(str, parameters))}"
    (folder / "colmap/cameras.txt").write_text(f"# Camera list\n{line}\n", encoding="utf-8")
    lines = ["# Image list"]
    for number, name in enumerate(names):
        numbers, world_from_cam = pose(QUATERNIONS[number], CENTERS[number])
        lines += [f"{number + 1} {' '.join(map(str, numbers))} 1 {name}", "" if number % 2 else "10.5 20.5 -1"]
        path = folder / pictures / name
        path.parent.mkdir(exist_ok=True)
        write_rgb(path, photograph(camera, world_from_cam, model == "OPENCV_FISHEYE"), ".png")
        mask = np.full((height, width), 255, np.uint8)
        mask[:, : width // 4] = 0
        write_png((folder / masks / name).with_suffix(".png"), mask)
    (folder / "colmap/images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The download in a tenth of its size."""
    monkeypatch.setattr(scannetpp, "SIZE", (92, 69))
    write_scannetpp(tmp_path / "raw")
    return tmp_path / "raw"


def write_scannetpp(raw):
    scene = raw / "data" / SCENE
    box = trimesh.creation.box(2 * HALF)
    (scene / "scans").mkdir(parents=True)
    box.export(scene / "scans/mesh_aligned_0.05.ply")
    stills = ["DSC00003.JPG", "DSC00001.JPG"]
    write_device(scene / "dslr", "OPENCV_FISHEYE", STILL, stills, "resized_images", "resized_anon_masks")
    phone = ["frame_000000.jpg", "frame_000010.jpg", "frame_000020.jpg"]
    write_device(scene / "iphone", "OPENCV", PHONE, phone, "rgb", "rgb_masks")


def test_bent_images_become_straight_ones_of_the_box(raw, tmp_path):
    report = prepare("scannetpp", raw, tmp_path)
    assert report.prepared == [SCENE] and not report.failed
    source = ScanNetpp(tmp_path / ScanNetpp.folder)
    frames = source.frames(SCENE)
    assert frames == ["DSC00001", "DSC00003", "frame_000000", "frame_000010", "frame_000020"]
    numbers = [1, 0, 0, 1, 2]
    views = [source.read(SCENE, frame) for frame in frames]
    for frame, number, view in zip(frames, numbers, views, strict=True):
        height, width = view.depth.shape
        assert height >= 69 and width >= 92 and min(height - 69, width - 92) <= 1, "covers, and no more"
        K = view.intrinsics
        torch.testing.assert_close(K[:2, 2], torch.tensor([(width - 1) / 2, (height - 1) / 2]), atol=0.01, rtol=0)
        _, world_from_cam = pose(QUATERNIONS[number], CENTERS[number])
        torch.testing.assert_close(
            view.cameras.world_from_cam, torch.tensor(world_from_cam[:3]).float(), atol=1e-5, rtol=0
        )
        assert (view.image.max(0).values > 0.02).all(), "no black corners"
        # Depth: every point lies on the box.
        points = view.points().numpy()
        outside = (np.abs(points) / HALF).max(-1)[view.valid.numpy()]
        assert np.abs(outside - 1).max() < 1e-3, frame
        assert 0.5 < view.valid.float().mean() < 0.9, "the mask's quarter has none"
        assert not view.valid[:, : width // 8].any() and view.valid[:, width // 3 :].all()

        # Colors: of those very points, to a small part of a pixel.
        def paint_error(shift, view=view):
            K = view.intrinsics + torch.tensor([[0, 0, shift[0]], [0, 0, shift[1]], [0, 0, 0]])
            points = unproject(view.depth, Cameras(view.cam_from_world, K)).numpy()
            error = np.abs(paint(points) - view.image.permute(1, 2, 0).numpy()).mean(-1)
            return error[view.valid.numpy()].mean()

        right = paint_error((0, 0))
        for shift in [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)]:
            assert right < 0.75 * paint_error(shift), f"{frame}: colors are {shift} pixels off"
    assert agreement(views[2], views[3]).overlap > 0.3
    assert agreement(views[2], views[3]).consistent_ratio > 0.9


def test_groups_mix_the_cameras_and_runs_do_not(raw, tmp_path):
    prepare("scannetpp", raw, tmp_path)
    source = ScanNetpp(tmp_path / ScanNetpp.folder)
    groups = {group[0]: group[1:] for group in source.groups(SCENE)}
    assert 0 in groups[3] or 3 in groups[0], "a still picture and the phone's of the same pose"
    assert [list(run) for run in source.segments(SCENE)] == [[0, 1], [2, 3, 4]]


def test_a_scene_may_lack_a_device_but_not_its_images(raw, tmp_path):
    phone = raw / "data" / SCENE / "iphone"
    (phone / "rgb").rename(tmp_path / "rgb")
    report = prepare("scannetpp", raw, tmp_path)
    assert "extract the images with the toolkit of ScanNet++" in report.failed[SCENE]
    phone.rename(tmp_path / "iphone")
    assert prepare("scannetpp", raw, tmp_path).prepared == [SCENE]
    assert ScanNetpp(tmp_path / ScanNetpp.folder).frames(SCENE) == ["DSC00001", "DSC00003"]


def test_damage_is_reported(raw, tmp_path):
    colmap = raw / "data" / SCENE / "dslr/colmap"
    cameras = (colmap / "cameras.txt").read_text(encoding="utf-8")
    (colmap / "cameras.txt").write_text(cameras.replace("OPENCV_FISHEYE", "FOV"), encoding="utf-8")
    assert "cameras of the model FOV are not known" in prepare("scannetpp", raw, tmp_path).failed[SCENE]
    (colmap / "cameras.txt").write_text(cameras.replace(" 175 ", " 1752 "), encoding="utf-8")
    assert "cameras.txt says (117, 1752)" in prepare("scannetpp", raw, tmp_path).failed[SCENE]
    (colmap / "images.txt").write_text("1 0.5 what\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"not as COLMAP writes text: .1 0\.5 what"):
        read_colmap(colmap)

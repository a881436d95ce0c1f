"""Spring, MVS-Synth and Virtual KITTI 2: the world as their downloads hold it, prepared and read back, is the world."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import write_exr, write_rgb
from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.transforms import image_array, resize
from streamvggt.datasets import mvs_synth, prepare, spring, virtual_kitti2
from streamvggt.datasets.mvs_synth import MvsSynth
from streamvggt.datasets.spring import Spring
from streamvggt.datasets.virtual_kitti2 import VirtualKitti2


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 3, 60, 80, outdoors=True)[0]


def write_spring(raw, clip):
    folder = raw / "train/0001"
    for part in ("frame_left", "disp1_left", "cam_data"):
        (folder / part).mkdir(parents=True)
    cameras, poses = [], []
    for number, view in enumerate(clip):
        write_rgb(folder / f"frame_left/frame_left_{number + 1:04d}.png", image_array(view.image))
        K = view.intrinsics.double().numpy()
        disparity = np.full((60, 80), np.nan)
        known = view.valid.numpy()
        disparity[known] = K[0, 0] * spring.BASELINE / depth_array(view)[known]
        with h5py.File(folder / f"disp1_left/disp1_left_{number + 1:04d}.dsp5", "w") as file:
            file["disparity"] = disparity.repeat(2, 0).repeat(2, 1)
        cameras.append([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
        poses.append(np.linalg.inv(world_from_cam(view)).flatten())
    np.savetxt(folder / "cam_data/intrinsics.txt", cameras)
    np.savetxt(folder / "cam_data/extrinsics.txt", poses)


def test_spring(tmp_path, clip):
    write_spring(tmp_path / "raw", clip)
    report = prepare("spring", tmp_path / "raw", tmp_path)
    assert report.prepared == ["0001"], report
    source = Spring(tmp_path / Spring.folder)
    assert source.frames("0001") == ["0000", "0001", "0002"]
    for frame, view in zip(source.frames("0001"), clip, strict=True):
        read, true = source.read("0001", frame), resize(view, (40, 30))
        torch.testing.assert_close(read.depth, true.depth * true.valid, rtol=1e-5, atol=0)
        torch.testing.assert_close(read.intrinsics, true.intrinsics)
        torch.testing.assert_close(read.cam_from_world, true.cam_from_world, rtol=0, atol=1e-5)
        assert (read.image - true.image).abs().max() < 0.003


def test_spring_names_the_short_table(tmp_path):
    folder = tmp_path / "raw/0001"
    (folder / "frame_left").mkdir(parents=True)
    (folder / "disp1_left").mkdir()
    (folder / "cam_data").mkdir()
    for number in (1, 2):
        write_rgb(folder / f"frame_left/frame_left_{number:04d}.png", np.zeros((4, 4, 3), np.uint8))
    np.savetxt(folder / "cam_data/intrinsics.txt", [[1, 1, 2, 2]])
    report = prepare("spring", tmp_path / "raw", tmp_path)
    assert "intrinsics.txt: expected 2 lines of 4 numbers, got 1 of 4" in report.failed["0001"]


def write_mvs_synth(raw, clip):
    folder = raw / "0000"
    for part in ("images", "depths", "poses"):
        (folder / part).mkdir(parents=True)
    for number, view in enumerate(clip):
        write_rgb(folder / f"images/{number:04d}.png", image_array(view.image))
        write_exr(folder / f"depths/{number:04d}.exr", np.where(view.valid, depth_array(view), np.inf))
        K = view.intrinsics.double().numpy()
        left_handed = mvs_synth.SWAPPED @ world_from_cam(view)
        assert np.linalg.det(left_handed) < 0
        camera = {"f_x": K[0, 0], "f_y": K[1, 1], "c_x": K[0, 2], "c_y": K[1, 2]}
        camera["extrinsic"] = np.linalg.inv(left_handed).tolist()
        (folder / f"poses/{number:04d}.json").write_text(json.dumps(camera), encoding="utf-8")


def test_mvs_synth(tmp_path, clip):
    write_mvs_synth(tmp_path / "raw", clip)
    shutil.copytree(tmp_path / "raw/0000", tmp_path / "raw/0001")
    report = prepare("mvs_synth", tmp_path / "raw", tmp_path, workers=2)
    assert sorted(report.prepared) == ["0000", "0001"], report
    source = MvsSynth(tmp_path / MvsSynth.folder)
    for frame, view in zip(source.frames("0000"), clip, strict=True):
        read = source.read("0000", frame)
        assert 0.97 < read.valid.sum() / view.valid.sum() < 0.99
        torch.testing.assert_close(read.depth, view.depth * read.valid)
        torch.testing.assert_close(read.cam_from_world, view.cam_from_world, rtol=0, atol=1e-5)
        torch.testing.assert_close(read.intrinsics, view.intrinsics)


def write_virtual_kitti2(raw, clip):
    folder = raw / "Scene01/clone"
    intrinsics, extrinsics = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"], ["frame cameraID r1,1 …"]
    for number, view in enumerate(clip):
        for camera in (0, 1):
            write_image(folder / f"frames/rgb/Camera_{camera}/rgb_{number:05d}.jpg", view)
            centimeters = np.where(view.sky, 65535, np.round(depth_array(view) * 100)).astype(np.uint16)
            write_png(folder / f"frames/depth/Camera_{camera}/depth_{number:05d}.png", centimeters)
            K = view.intrinsics.double().numpy()
            intrinsics.append(f"{number} {camera} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}")
            values = np.linalg.inv(world_from_cam(view)).flatten()
            extrinsics.append(f"{number} {camera} " + " ".join(map(str, values)))
    (folder / "intrinsic.txt").write_text("\n".join(intrinsics), encoding="utf-8")
    (folder / "extrinsic.txt").write_text("\n".join(extrinsics), encoding="utf-8")
    return folder


def test_virtual_kitti2(tmp_path, clip):
    folder = write_virtual_kitti2(tmp_path / "raw", clip)
    report = prepare("virtual_kitti2", tmp_path / "raw", tmp_path)
    assert report.prepared == ["Scene01/clone/Camera_0", "Scene01/clone/Camera_1"], report
    source = VirtualKitti2(tmp_path / VirtualKitti2.folder)
    for scene in source.scenes:
        for frame, view in zip(source.frames(scene), clip, strict=True):
            read = source.read(scene, frame)
            assert (read.depth - view.depth * view.valid).abs().max() <= 0.0051
            assert torch.equal(read.sky, view.sky)
            torch.testing.assert_close(read.cam_from_world, view.cam_from_world, rtol=0, atol=1e-5)
            torch.testing.assert_close(read.intrinsics, view.intrinsics)
    lines = (folder / "extrinsic.txt").read_text(encoding="utf-8").splitlines()
    (folder / "extrinsic.txt").write_text("\n".join(lines[:-1]), encoding="utf-8")
    virtual_kitti2.table.cache_clear()  # a process reads a table once
    other = prepare("virtual_kitti2", tmp_path / "raw", tmp_path / "other")
    assert "has no line of frame 2, camera 1" in other.failed["Scene01/clone/Camera_1"]

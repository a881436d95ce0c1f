"""Hypersim, OmniObject3D, PointOdyssey: the world as their downloads hold it, prepared and read, is the world."""

import csv
import json
import math
from dataclasses import replace

import cv2
import h5py
import numpy as np
import OpenEXR
import pytest
import torch
from scipy.spatial.transform import Rotation

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.consistency import agreement
from streamvggt.data.decode import write_rgb
from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.transforms import image_array
from streamvggt.datasets import hypersim, prepare
from streamvggt.datasets.hypersim import Hypersim
from streamvggt.datasets.omniobject3d import OmniObject3D
from streamvggt.datasets.point_odyssey import PointOdyssey

H, W = 60, 80


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 3, H, W, outdoors=True)[0]


def assert_same(read, true, depth_step=0.0):
    torch.testing.assert_close(read.cam_from_world, true.cam_from_world, rtol=0, atol=1e-4)
    torch.testing.assert_close(read.intrinsics, true.intrinsics, rtol=1e-5, atol=1e-4)
    assert torch.equal(read.valid, true.valid)
    torch.testing.assert_close(read.depth, true.depth * true.valid, rtol=1e-4, atol=0.51 * depth_step)


def hdf5(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = values


METRES = 0.0254
"""Of Hypersim's units."""


def hypersim_row(scene, intrinsics, rotation):
    """A row of the table: the inverse of what a pixel's ray is, sizes as the data set writes them."""
    uv_from_pixel = np.array([[2 / W, 0, 1 / W - 1], [0, -2 / H, 1 - 1 / H], [0, 0, 1]])
    pixel_rays = rotation @ np.linalg.inv(intrinsics)
    cam_from_uv = 1.7 * np.diag([1, -1, -1]) @ pixel_rays @ np.linalg.inv(uv_from_pixel)  # its scale says nothing
    row = {"scene_name": scene, "settings_output_img_width": f"{W}.0", "settings_output_img_height": f"{H}.0"}
    return row | {f"M_cam_from_uv_{i}{j}": repr(float(cam_from_uv[i, j])) for i in range(3) for j in range(3)}


def write_hypersim(raw, clip, scene="ai_007_002", turn=(0, 0, 0), skew=0.0):
    """Lens off the middle and turned, units of inches, OpenGL's axes, distances along rays."""
    detail, images = raw / scene / "_detail", raw / scene / "images"
    K = clip[0].intrinsics.double().numpy()
    K[0, 1] = skew
    rotation = Rotation.from_rotvec(turn).as_matrix()
    row = hypersim_row(scene, K, rotation)
    with open(raw / "metadata_camera_parameters.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, row)
        table.writeheader()
        table.writerow(row)
    detail.mkdir(parents=True)
    (detail / "metadata_scene.csv").write_text(
        f"parameter_name,parameter_value\nmeters_per_asset_unit,{METRES}\n", encoding="utf-8"
    )
    poses = np.stack([world_from_cam(view) for view in clip])
    hdf5(detail / "cam_00/camera_keyframe_orientations.hdf5", poses[:, :3, :3] @ rotation.T * [1, -1, -1])
    hdf5(detail / "cam_00/camera_keyframe_positions.hdf5", poses[:, :3, 3] / METRES)
    for number, view in enumerate(clip):
        frame = f"frame.{number:04d}"
        x, y = (np.arange(W) - K[0, 2]) / K[0, 0], (np.arange(H) - K[1, 2]) / K[1, 1]
        rays = np.stack([*np.meshgrid(x, y), np.ones((H, W))], -1)
        distance = np.linalg.norm(rays * depth_array(view)[..., None], axis=-1)
        there = view.valid.numpy()
        geometry, final = images / "scene_cam_00_geometry_hdf5", images / "scene_cam_00_final_hdf5"
        hdf5(geometry / f"{frame}.depth_meters.hdf5", np.where(there, distance, np.nan).astype(np.float32))
        hdf5(geometry / f"{frame}.render_entity_id.hdf5", np.where(there, 1, -1))
        hdf5(final / f"{frame}.color.hdf5", exposed(view).astype(np.float32) * 3)


def exposed(view):
    """Linear light, as bright as the tone mapping wants it. (H, W, 3)"""
    light = image_array(view.image).astype(float) ** hypersim.GAMMA
    brightness = (light @ [0.3, 0.59, 0.11])[view.valid.numpy()]
    return light * hypersim.TARGET_BRIGHTNESS**hypersim.GAMMA / np.percentile(brightness, 90)


def test_hypersim(tmp_path, clip):
    # A principal point off the middle: with one taken for granted depth would be wrong.
    clip = [
        replace(view, intrinsics=view.intrinsics + torch.tensor([[0, 0, 6.0], [0, 0, -4], [0, 0, 0]])) for view in clip
    ]
    write_hypersim(tmp_path, clip)
    (tmp_path / "ai_007_002/images/scene_cam_00_geometry_hdf5/frame.0001.render_entity_id.hdf5").unlink()  # not needed
    assert prepare("hypersim", tmp_path, tmp_path).prepared == ["ai_007_002/cam_00"]
    source = Hypersim(tmp_path / Hypersim.folder)
    assert source.scenes == ["ai_007_002/cam_00"] and source.frames(source.scenes[0]) == ["000000", "000001", "000002"]
    for frame, view in zip(source.frames(source.scenes[0]), clip, strict=True):
        read = source.read(source.scenes[0], frame)
        assert_same(read, view)
        wanted = torch.from_numpy(exposed(view)).clamp(max=1) ** (1 / 2.2)
        assert (read.image.permute(1, 2, 0) - wanted).abs().max() < 0.003


@pytest.mark.parametrize("turn", [(0, 0, 0), (0.2, -0.1, 0.05)])
def test_hypersim_undoes_a_tilted_lens(tmp_path, clip, turn):
    """The views are the world whatever the lens was turned by, and project into each other."""
    write_hypersim(tmp_path, clip, turn=turn)
    assert prepare("hypersim", tmp_path, tmp_path).prepared == ["ai_007_002/cam_00"]
    source = Hypersim(tmp_path / Hypersim.folder)
    views = [source.read(source.scenes[0], frame) for frame in source.frames(source.scenes[0])]
    for view, truth in zip(views, clip, strict=True):
        assert_same(view, truth)
    assert agreement(views[0], views[1]).consistent_ratio >= agreement(clip[0], clip[1]).consistent_ratio - 0.01


def test_hypersim_leaves_out_skewed_cameras_only_if_it_shows(tmp_path, clip):
    for skew, prepared in ((0.01, True), (5.0, False)):
        raw = tmp_path / str(skew)
        raw.mkdir()
        write_hypersim(raw, clip[:1], skew=skew)
        report = prepare("hypersim", raw, raw)
        assert bool(report.prepared) == prepared and not report.failed
        if not prepared:
            assert "skewed: pixels are off by up to" in report.skipped["ai_007_002/cam_00"]
            assert Hypersim(raw / Hypersim.folder).scenes == []


@pytest.mark.parametrize("column", ["scene_name", "M_cam_from_uv_12", "settings_output_img_width"])
def test_hypersim_names_the_table_and_the_missing_column(tmp_path, clip, column):
    write_hypersim(tmp_path, clip)
    table = tmp_path / hypersim.CAMERAS
    table.write_text(table.read_text(encoding="utf-8").replace(column, "other"), encoding="utf-8")
    hypersim._rows.cache_clear()
    (failure,) = prepare("hypersim", tmp_path, tmp_path / "out").failed.values()
    hypersim._rows.cache_clear()
    assert failure.startswith(f"DataError: {table}: expected ") and f"got no '{column}'" in failure


def test_tone_mapping_bears_bad_light():
    light = np.full((4, 4, 3), 0.5, np.float16)
    light[0, 0], light[0, 1], light[0, 2] = np.nan, np.inf, -1
    image = hypersim.tone_map(light, np.ones((4, 4), bool))
    assert image[0, 0].max() == 0 and image[0, 1].min() == 255 and image[0, 2].max() == 0
    assert (image[1:] == round(255 * hypersim.TARGET_BRIGHTNESS)).all(), "what is there everywhere is 0.8 bright"
    assert not hypersim.tone_map(0 * light[1:], np.ones((3, 4), bool)).any()


def write_omniobject3d(raw, clip, thing="anise_001"):
    render = raw / "anise" / thing / "render"
    (render / "depths").mkdir(parents=True)
    (render / "images").mkdir()
    frames = []
    for number, view in enumerate(clip):
        pixels = np.dstack([image_array(view.image)[..., ::-1], 255 * view.valid.numpy().astype(np.uint8)])
        cv2.imwrite(str(render / "images" / f"r_{number}.png"), pixels)
        depth = np.where(view.valid.numpy(), depth_array(view), np.float32(65504))
        with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": np.dstack([depth] * 3)}) as file:
            file.write(str(render / "depths" / f"r_{number}_depth0001.exr"))
        pose = world_from_cam(view) @ np.diag([1, -1, -1, 1])
        frames.append({"file_path": f"./render/r_{number}", "transform_matrix": pose.tolist()})
    angle = 2 * math.atan(W / 2 / clip[0].intrinsics[0, 0].item())
    (render / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}), encoding="utf-8")


def test_omniobject3d(tmp_path, clip):
    centered = torch.tensor([[0, 0, -0.5], [0, 0, -0.5], [0, 0, 0]])
    clip = [replace(view, intrinsics=view.intrinsics + centered) for view in clip * 4]
    write_omniobject3d(tmp_path, clip)
    assert prepare("omniobject3d", tmp_path, tmp_path).prepared == ["anise_001"]
    root = tmp_path / OmniObject3D.folder
    (root / "scale.json").write_text('{"anise_001": 0.001}', encoding="utf-8")
    source = OmniObject3D(root)
    assert source.frames("anise_001") == [f"r_{number}" for number in range(12)]
    for frame, view in zip(source.frames("anise_001"), clip, strict=True):
        read = source.read("anise_001", frame)
        assert_same(read, view)
        assert (read.image[:, ~view.valid] == 1).all(), "beside the thing it is white"
        assert ((read.image - view.image)[:, view.valid]).abs().max() < 0.003


def write_point_odyssey(raw, clip, scene="dancing"):
    folder = raw / "train" / scene
    for number, view in enumerate(clip):
        depth = np.where(view.sky.numpy(), 65535, (depth_array(view) / 1000 * 65535).round()).astype(np.uint16)
        write_image(folder / "rgbs" / f"rgb_{number:05d}.jpg", view)
        write_png(folder / "depths" / f"depth_{number:05d}.png", depth)
    np.savez(
        folder / "anno.npz",
        intrinsics=np.stack([view.intrinsics.numpy() for view in clip]),
        extrinsics=np.stack([np.linalg.inv(world_from_cam(view)) for view in clip]),
        trajs_2d=np.zeros((3, 4, 2)),
    )


def test_point_odyssey(tmp_path, clip):
    for scene in ("dancing", "girl", "ani"):
        write_point_odyssey(tmp_path, clip, scene)
    (tmp_path / "train/girl/anno.npz").unlink()
    report = prepare("point_odyssey", tmp_path, tmp_path)
    assert report.prepared == ["train/dancing"], "what is in no list is left, and what is damaged stops nothing"
    assert "anno.npz" in report.failed["train/girl"]
    source = PointOdyssey(tmp_path / PointOdyssey.folder)
    assert source.scenes == ["dancing"]
    for frame, view in zip(source.frames("dancing"), clip, strict=True):
        assert_same(source.read("dancing", frame), view, depth_step=1000 / 65535)


def test_point_odyssey_counts_its_cameras(tmp_path, clip):
    write_point_odyssey(tmp_path, clip)
    write_rgb(tmp_path / "train/dancing/rgbs/rgb_00003.jpg", image_array(clip[0].image))
    report = prepare("point_odyssey", tmp_path, tmp_path)
    assert "image 00003 has no camera in anno.npz, which has 3" in report.failed["train/dancing"]

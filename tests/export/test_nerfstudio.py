"""transforms.json, read as nerfstudio's parser reads it and by this repository's own reader."""

import json

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from streamvggt.data.own.nerfstudio import read_transforms
from streamvggt.export import EXPORTERS, Adjustments, ExportOptions, adjusted

ALL = ExportOptions(conf_percentile=0)
PER_FRAME = ("fl_x", "fl_y", "cx", "cy", "h", "w")


@pytest.fixture
def folder(result, tmp_path):
    return EXPORTERS["nerfstudio"](result, tmp_path, ALL)


def test_the_parser_of_nerfstudio_takes_every_frame(scene, folder):
    """The rules of nerfstudio/data/dataparsers/nerfstudio_dataparser.py.

    A value is fixed for all frames or stands in each. A path is relative to the folder. A matrix is 4×4 from OpenGL
    camera axes to the world. Points are in the world before `applied_transform`, which is not written.
    """
    meta = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    assert meta["camera_model"] == "OPENCV" and "applied_transform" not in meta
    assert len(meta["frames"]) == 5
    for entry, frame, pose in zip(meta["frames"], scene.frames, scene.poses, strict=True):
        assert all((name in meta) != (name in entry) for name in PER_FRAME)
        assert isinstance(entry["h"], int) and isinstance(entry["w"], int)
        with Image.open(folder / entry["file_path"]) as image:
            assert image.size == (entry["w"], entry["h"]) == frame.original.shape[1::-1]
        matrix = np.array(entry["transform_matrix"])
        assert matrix.shape == (4, 4)
        cam_from_world = np.diag([1, -1, -1, 1]) @ np.linalg.inv(matrix)
        np.testing.assert_allclose(cam_from_world[:3], pose, atol=1e-9)
        K = frame.original_from_image @ scene.intrinsics
        corner = [entry[name] for name in ("fl_x", "fl_y", "cx", "cy")]
        np.testing.assert_allclose(corner, [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5])
    cloud = trimesh.load(folder / meta["ply_file_path"])
    assert len(cloud.vertices) > 4000 and scene.distance(np.asarray(cloud.vertices)).max() < 1e-4


def test_the_own_reader_finds_the_same_cameras(scene, folder):
    frames = read_transforms(folder)
    assert [frame.name for frame in frames] == [f"images/{frame.name}.jpg" for frame in scene.frames]
    for frame, pose in zip(frames, scene.poses, strict=True):
        world_from_cam = np.asarray(frame.world_from_cam)
        np.testing.assert_allclose(world_from_cam[:3, :3], pose[:, :3].T, atol=1e-9)
        np.testing.assert_allclose(world_from_cam[:3, 3], -pose[:, :3].T @ pose[:, 3], atol=1e-9)


def test_masks_are_handed_on(result, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((60, 75), np.uint8)
    mask[:, :30] = 7
    for camera in result.cameras():
        (masks / f"{camera.name}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    facts = Adjustments(masks=masks)
    options = ExportOptions(conf_percentile=0, adjustments=facts)
    folder = EXPORTERS["nerfstudio"](adjusted(result, facts), tmp_path, options)
    for entry in json.loads((folder / "transforms.json").read_text(encoding="utf-8"))["frames"]:
        written = cv2.imread(str(folder / entry["mask_path"]), cv2.IMREAD_UNCHANGED)
        assert written.shape == (entry["h"], entry["w"]) and set(np.unique(written)) == {0, 255}
        assert written[:, :60].all() and not written[:, 60:].any()

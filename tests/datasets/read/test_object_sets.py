"""CO3Dv2 and WildRGB-D: what their lists and files may hold."""

import json
import shutil

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import DataError
from streamvggt.data.encode import write_png
from streamvggt.datasets import co3d, wildrgbd
from streamvggt.datasets._fixtures import near_mask
from streamvggt.datasets.co3d import CO3D
from streamvggt.datasets.wildrgbd import WildRGBD

CLIPS = world_clips(1, 4, 30, 40)
SETS = pytest.mark.parametrize(("source", "layout"), [(CO3D, co3d), (WildRGBD, wildrgbd)])


@SETS
def test_frames_come_in_the_order_of_time_whatever_the_list_says(source, layout, tmp_path):
    """The published loader takes them from the end, so that every video runs backwards."""
    (place,) = layout.write(tmp_path, CLIPS)
    root = tmp_path / source.folder
    list_path = root / "selected_seqs_train.json"
    selected = json.loads(list_path.read_text(encoding="utf-8"))
    category, sequence = place.scene.split("/", 1)
    numbers = selected[category][sequence]
    selected[category][sequence] = [numbers[2], numbers[0], numbers[3], numbers[1], numbers[0]]
    list_path.write_text(json.dumps(selected), encoding="utf-8")
    read = source(root)
    assert read.frames(place.scene) == place.frames
    centers = [read.read(place.scene, frame).cameras.world_from_cam[:, 3] for frame in place.frames]
    for center, truth in zip(centers, CLIPS[0], strict=True):
        torch.testing.assert_close(center, truth.cameras.world_from_cam[:, 3], atol=1e-4, rtol=0)


@SETS
def test_foreground_is_above_a_tenth_of_full_scale(source, layout, tmp_path):
    (place,) = layout.write(tmp_path, CLIPS)
    read = source(tmp_path / source.folder)
    object_mask = near_mask(CLIPS[0][0]) > 0
    assert torch.equal(read.foreground(place.scene, place.frames[0]), object_mask)
    levels = np.full((30, 40), 25, np.uint8)
    levels[:, :20] = 26
    write_png(read.root / place.scene / f"masks/{place.frames[0]}.png", levels)
    assert read.foreground(place.scene, place.frames[0]).sum() == 30 * 20


@SETS
def test_a_frame_without_depth_is_empty_and_no_error(source, layout, tmp_path):
    """It is replaced by a neighbor when samples are made."""
    (place,) = layout.write(tmp_path, CLIPS)
    read = source(tmp_path / source.folder)
    assert read.replace_empty_depth
    folder = read.root / place.scene
    (depth,) = [*folder.glob(f"depth*/{place.frames[1]}*")]
    write_png(depth, np.zeros((30, 40), np.uint16))
    view = read.read(place.scene, place.frames[1])
    assert not view.valid.any() and (view.depth == 0).all()


def test_a_maximum_depth_that_is_no_number_leaves_none(tmp_path):
    (place,) = co3d.write(tmp_path, CLIPS)
    path = tmp_path / CO3D.folder / place.scene / f"images/{place.frames[0]}.npz"
    for nothing in (np.nan, np.inf):
        camera = dict(np.load(path)) | {"maximum_depth": np.float32(nothing)}
        np.savez(path, **camera)
        assert not CO3D(tmp_path / CO3D.folder).read(place.scene, place.frames[0]).valid.any()


def test_the_broken_box_is_skipped(tmp_path):
    (place,) = wildrgbd.write(tmp_path, CLIPS)
    root = tmp_path / WildRGBD.folder
    shutil.copytree(root / place.scene, root / "box/scenes/scene_257")
    selected = {"box": {"scenes/scene_257": [0, 1], "scenes/scene_001": [0, 1]}, "apple": {}}
    (root / "selected_seqs_train.json").write_text(json.dumps(selected), encoding="utf-8")
    assert WildRGBD(root).scenes == ["box/scenes/scene_001"]


@SETS
def test_damage_names_the_file(source, layout, tmp_path):
    (place,) = layout.write(tmp_path, CLIPS)
    read = source(tmp_path / source.folder)
    folder, frame = read.root / place.scene, place.frames[0]
    (image,) = folder.glob(f"*/{frame}.jpg")
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{frame}.jpg: the image is cut off"):
        read.read(place.scene, frame)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{frame}.jpg"):
        read.read(place.scene, frame)
    image.write_bytes(content)
    (camera_path,) = folder.glob(f"*/{frame}.npz")
    camera = dict(np.load(camera_path))
    np.savez(
        camera_path, **camera | {"camera_intrinsics": camera["camera_intrinsics"] + [[0, 0.1, 0], [0] * 3, [0] * 3]}
    )
    with pytest.raises(DataError, match="skewed"):
        read.read(place.scene, frame)
    camera.pop("camera_pose")
    np.savez(camera_path, **camera)
    with pytest.raises(DataError, match=rf"{frame}.npz: no camera_pose in it, only camera_intrinsics"):
        read.read(place.scene, frame)


@SETS
@pytest.mark.parametrize("wrong", ['["apple"]', '{"apple": ["seq"]}', '{"apple": {"seq": ["x"]}}'])
def test_a_list_of_another_form_is_reported(source, layout, wrong, tmp_path):
    (tmp_path / "selected_seqs_train.json").write_text(wrong, encoding="utf-8")
    with pytest.raises(DataError, match=r"selected_seqs_train.json: expected \{category: \{sequence"):
        source(tmp_path)

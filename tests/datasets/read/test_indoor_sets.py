"""ARKitScenes in both forms, ScanNet++ and ScanNet: what their tables and folders may hold."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import DataError
from streamvggt.datasets import arkitscenes, arkitscenes_highres, scannet, scannetpp
from streamvggt.datasets.arkitscenes import ARKitScenes
from streamvggt.datasets.arkitscenes_highres import ARKitScenesHighRes
from streamvggt.datasets.scannet import ScanNet
from streamvggt.datasets.scannetpp import ScanNetpp, principal_point_excess

CLIPS = world_clips(2, 4, 30, 40)


def change(path, **arrays):
    """Replace arrays of an archive; None removes one."""
    with np.load(path, allow_pickle=True) as archive:
        content = dict(archive) | arrays
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


class Trap:
    """A pickle of it would make a file."""

    def __reduce__(self):
        return open, ("executed", "w")


# ARKitScenes


def test_scenes_with_laser_depth_are_left_to_the_other_set(tmp_path):
    places = arkitscenes.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenes.folder
    both = [place.scene for place in places]
    assert ARKitScenes(root).scenes == both, "the other set need not be there"
    better = tmp_path / ARKitScenesHighRes.folder / "Training"
    (better / both[1]).mkdir(parents=True)
    assert ARKitScenes(root).scenes == both[:1]
    shutil.rmtree(better / both[1])
    (better / both[1]).touch()
    assert ARKitScenes(root).scenes == both, "a file is no scene"


def test_a_group_is_of_its_own_scene_best_first(tmp_path):
    """The published loader takes the number of a group for that of an image, and finds another scene."""
    arkitscenes.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenes.folder
    scene = ARKitScenes(root).scenes[1]
    shares = {0: [(1, 0.2), (3, 0.9)], 2: [(0, 0.5)], 3: []}
    change(root / "Training" / scene / "new_scene_metadata.npz", image_collection=np.array(shares, dtype=object))
    assert [list(group) for group in ARKitScenes(root).groups(scene)] == [[0, 3, 1], [2, 0], [3]]


@pytest.mark.parametrize(("layout", "source"), [(arkitscenes, ARKitScenes), (arkitscenes_highres, ARKitScenesHighRes)])
def test_frames_are_sorted_by_time_and_keep_their_cameras(layout, source, tmp_path):
    (place, _) = layout.write(tmp_path, CLIPS)
    root = tmp_path / source.folder
    assert place.frames[0].endswith("_999.800") and place.frames[3].endswith("_1000.100")
    table = root / "Training" / place.scene / source.table
    order = np.array([2, 0, 3, 1])
    with np.load(table, allow_pickle=True) as archive:
        shuffled = {name: archive[name][order] for name in ("images", "intrinsics", "trajectories")}
    change(table, **shuffled)
    read = source(root)
    assert read.frames(place.scene) == place.frames
    for frame, truth in zip(place.frames, CLIPS[0], strict=True):
        torch.testing.assert_close(
            read.read(place.scene, frame).cam_from_world, truth.cam_from_world, atol=1e-4, rtol=0
        )
    if source is ARKitScenes:  # numbers in groups are of the table
        assert {group[0]: list(group[1:]) for group in read.groups(place.scene)}[0] != [1, 2, 3]
        members = [place.frames[number] for number in read.groups(place.scene)[0]]
        assert members[0] == place.frames[2], "the table's first frame is the third in time"


def test_frames_that_were_never_written_are_skipped(tmp_path):
    """The published preparation lists names of depth images whose color image is a millisecond off."""
    (place, _) = arkitscenes_highres.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenesHighRes.folder
    folder = root / "Training" / place.scene
    (folder / f"vga_wide/{place.frames[1]}.jpg").unlink()
    (folder / f"highres_depth/{place.frames[2]}.png").unlink()
    assert ARKitScenesHighRes(root).frames(place.scene) == [place.frames[0], place.frames[3]]


def test_splits_have_the_published_folders(tmp_path):
    for layout, source, folder in [
        (arkitscenes, ARKitScenes, "Test"),
        (arkitscenes_highres, ARKitScenesHighRes, "Validation"),
    ]:
        places = layout.write(tmp_path, CLIPS)
        root = tmp_path / source.folder
        (root / "Training").rename(root / folder)
        assert source(root, "test").scenes == [place.scene for place in places]
        with pytest.raises(FileNotFoundError, match="Training"):
            source(root, "train")


def test_an_image_of_another_size_than_its_camera_is_an_error(tmp_path):
    (place, _) = arkitscenes.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenes.folder
    table = root / "Training" / place.scene / "new_scene_metadata.npz"
    with np.load(table) as archive:
        turned = archive["intrinsics"][:, [1, 0, 3, 2, 5, 4]]
    change(table, intrinsics=turned)
    with pytest.raises(DataError, match=r"the image has \(30, 40\) pixels, its camera .* \(40, 30\)"):
        ARKitScenes(root).read(place.scene, place.frames[0])


def test_nothing_in_a_table_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (place, _) = arkitscenes.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenes.folder
    change(root / "Training" / place.scene / "new_scene_metadata.npz", image_collection=np.array(Trap(), dtype=object))
    with pytest.raises(DataError, match="not a number, array or container"):
        ARKitScenes(root).groups(place.scene)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("wrong", [{0: [(99, 0.5)]}, {0: 1}, [0, 1]])
def test_groups_of_another_form_are_reported(wrong, tmp_path):
    (place, _) = arkitscenes.write(tmp_path, CLIPS)
    root = tmp_path / ARKitScenes.folder
    table = root / "Training" / place.scene / "new_scene_metadata.npz"
    change(table, image_collection=np.array(wrong, dtype=object) if isinstance(wrong, dict) else np.array(wrong))
    with pytest.raises(DataError, match=r"new_scene_metadata.npz: expected an image_collection"):
        ARKitScenes(root).groups(place.scene)


# ScanNet++


def test_a_clip_stays_with_one_camera(tmp_path):
    """The published loader takes the camera that the group's reference is not of."""
    (place, _) = scannetpp.write(tmp_path, CLIPS)
    read = ScanNetpp(tmp_path / ScanNetpp.folder)
    frames = read.frames(place.scene)
    stills, phone = ([frames[number] for number in run] for run in read.segments(place.scene))
    assert stills == ["DSC00001", "DSC00002"] and phone == ["frame_000000", "frame_000010"]
    only_phone = {"images": np.array(["frame_000000", "frame_000010", "frame_000020", "frame_000030"])}
    change(read.root / place.scene / "new_scene_metadata.npz", **only_phone)
    runs = ScanNetpp(read.root).segments(place.scene)
    assert [list(run) for run in runs] == [[0, 1, 2, 3]], "a scene of one camera has one run"


def test_groups_mix_cameras_best_first(tmp_path):
    (place, _) = scannetpp.write(tmp_path, CLIPS)
    read = ScanNetpp(tmp_path / ScanNetpp.folder)
    shares = {3: [(0, 0.3), (2, 0.8), (1, 0.5)]}
    change(read.root / place.scene / "new_scene_metadata.npz", image_collection=np.array(shares, dtype=object))
    assert [list(group) for group in read.groups(place.scene)] == [[3, 2, 1, 0]]
    assert read.view_sampler.best_first


def test_half_a_pixel_of_the_original_image_is_taken_off():
    """Full still pictures of 1752×1168 scaled to cover 920×690, as published: the center is the center."""
    scale = 690 / 1168
    stored = (1752 / 2 + 0.5) * scale - 0.5  # W/2, scaled as if the first pixel's center were (0, 0)
    width = 1752 * scale
    assert stored - principal_point_excess("DSC00001", 690) == pytest.approx((width - 1) / 2)
    with pytest.raises(DataError, match="neither DSC##### nor frame_######"):
        principal_point_excess("IMG_1", 690)


# ScanNet


def test_only_folders_of_scenes_are_scenes_and_gaps_in_numbers_stay(tmp_path):
    (place, other) = scannet.write(tmp_path, CLIPS)
    root = tmp_path / ScanNet.folder
    (root / "scans_train/notes").mkdir()
    (root / "scans_train/scene9999.zip").touch()
    change(root / "scans_train" / place.scene / "new_scene_metadata.npz", images=np.array(["00003", "00000"]))
    read = ScanNet(root)
    assert read.scenes == [place.scene, other.scene]
    assert read.frames(place.scene) == ["00000", "00003"]
    with pytest.raises(FileNotFoundError, match="scans_test"):
        ScanNet(root, "test")


def test_damage_names_the_file(tmp_path):
    (place, other) = scannet.write(tmp_path, CLIPS)
    root = tmp_path / ScanNet.folder
    folder = root / "scans_train" / place.scene
    read = ScanNet(root)
    pose = np.load(folder / "cam/00000.npz")["pose"]
    change(folder / "cam/00000.npz", pose=pose * np.nan)
    with pytest.raises(DataError, match=r"color/00000.jpg: a finite 4×4 pose"):
        read.read(place.scene, "00000")
    shutil.copy(folder / "depth/00001.png", folder / "color/00001.jpg")  # another kind of image, read by its content
    (folder / "depth/00001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"depth/00001.png: damaged"):
        read.read(place.scene, "00001")
    (root / "scans_train" / other.scene / "new_scene_metadata.npz").unlink()
    with pytest.raises(FileNotFoundError, match=f"{other.scene}/new_scene_metadata.npz"):
        ScanNet(root)


# All of them


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        (arkitscenes, ARKitScenes),
        (arkitscenes_highres, ARKitScenesHighRes),
        (scannetpp, ScanNetpp),
        (scannet, ScanNet),
    ],
)
def test_damaged_images_and_depths_name_the_file(layout, source, tmp_path):
    (place, _) = layout.write(tmp_path, CLIPS)
    read = source(tmp_path / source.folder)
    frame = place.frames[0]
    (image,) = read.root.rglob(f"{place.scene}/*/{frame}.jpg")
    (depth,) = read.root.rglob(f"{place.scene}/*/{frame}.png")
    content = depth.read_bytes()
    for damage, output in [
        (content[: len(content) // 2], rf"{frame}.png: the image is cut off"),
        (cv2.imencode(".png", np.zeros((30, 40), np.uint8))[1].tobytes(), rf"{frame}.png: a 16-bit image"),
        (cv2.imencode(".png", np.zeros((15, 20), np.uint16))[1].tobytes(), r"\(30, 40\) pixels, its depth \(15, 20\)"),
    ]:
        depth.write_bytes(damage)
        with pytest.raises(DataError, match=output):
            read.read(place.scene, frame)
    depth.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{frame}.png"):
        read.read(place.scene, frame)
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{frame}.jpg: (the image is cut off|damaged)"):
        read.read(place.scene, frame)

"""Hypersim, BlendedMVS, MegaDepth, Waymo, OmniObject3D and PointOdyssey: what their lists and files may hold."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import DataError, read_exr, read_npy, write_exr, write_rgb
from streamvggt.datasets import (
    blendedmvs,
    get_module,
    hypersim,
    megadepth,
    omniobject3d,
    point_odyssey,
    source_class,
    waymo,
)
from streamvggt.datasets.blendedmvs import OVERLAP, BlendedMVS
from streamvggt.datasets.hypersim import Hypersim
from streamvggt.datasets.megadepth import SETS, MegaDepth
from streamvggt.datasets.omniobject3d import OmniObject3D
from streamvggt.datasets.point_odyssey import SCENES, PointOdyssey
from streamvggt.datasets.waymo import INVALID, Waymo

CLIPS = world_clips(2, 4, 30, 40, outdoors=True)
CLIP = CLIPS[0]

FILES = {
    "hypersim": ("{scene}/{frame}_rgb.png", "{scene}/{frame}_depth.npy", "{scene}/{frame}_cam.npz"),
    "blendedmvs": ("{scene}/{frame}.jpg", "{scene}/{frame}.exr", "{scene}/{frame}.npz"),
    "megadepth": ("{scene}/{frame}.jpg", "{scene}/{frame}.exr", "{scene}/{frame}.npz"),
    "omniobject3d": ("{scene}/rgb/{frame}.png", "{scene}/depth/{frame}.npy", "{scene}/cam/{frame}.npz"),
    "point_odyssey": (
        "train/{scene}/rgb/{frame}.jpg",
        "train/{scene}/depth/{frame}.npy",
        "train/{scene}/cam/{frame}.npz",
    ),
    "waymo": ("{segment}/{frame}_{camera}.jpg", "{segment}/{frame}_{camera}.exr", "{segment}/{frame}_{camera}.npz"),
}

POSES = {"pose", "cam2world", "R_cam2world"}


@pytest.fixture(scope="module", params=FILES)
def whole(request, tmp_path_factory):
    """A source, a scene and frame of it, and the frame's files: image, depth, camera."""
    out = tmp_path_factory.mktemp(request.param)
    (place, *_) = get_module(request.param).write(out, CLIPS)
    made = source_class(request.param)
    source = made(out / made.folder)
    segment, _, camera = place.scene.rpartition("/")
    names = {"scene": place.scene, "frame": place.frames[1], "segment": segment, "camera": camera}
    return source, place.scene, place.frames[1], [source.root / file.format(**names) for file in FILES[request.param]]


@pytest.fixture
def damaged(whole):
    """As `whole`; what a test does to the files is undone after it."""
    *_, files = whole
    content = [file.read_bytes() for file in files]
    yield whole
    for file, before in zip(files, content, strict=True):
        file.write_bytes(before)


def change_camera(file, change):
    with np.load(file) as arrays:
        arrays = dict(arrays)
    change(arrays)
    np.savez(file, **arrays)


def write_depth(file, depth):
    np.save(file, depth) if file.suffix == ".npy" else write_exr(file, depth)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["image", "depth", "camera"])
def test_a_damaged_file_is_named(damaged, which):
    source, scene, frame, files = damaged
    file = files[which]
    content = file.read_bytes()
    for left in (len(content) // 2, 0, None):
        file.unlink() if left is None else file.write_bytes(content[:left])
        with pytest.raises((DataError, OSError)) as error:
            source.read(scene, frame)
        assert str(file) in str(error.value)


def test_a_missing_key_of_a_camera_is_named(damaged):
    source, scene, frame, (_, _, camera) = damaged
    change_camera(camera, lambda arrays: arrays.pop("intrinsics"))
    with pytest.raises(DataError, match="no intrinsics in it"):
        source.read(scene, frame)


@pytest.mark.parametrize(
    ("key", "place", "value", "message"),
    [
        ("intrinsics", (0, 1), 3, "skewed"),
        ("intrinsics", (0, 0), 0, "focal lengths must be positive"),
        ("pose", (0, 2), np.nan, "a finite 4×4 pose was expected"),
        ("pose", (0, 0), 5, "the pose's rotation is none"),
    ],
)
def test_a_camera_that_is_none_is_rejected(damaged, key, place, value, message):
    source, scene, frame, (image, _, camera) = damaged

    def change(arrays):
        (name,) = {"intrinsics"} if key == "intrinsics" else POSES & set(arrays)
        arrays[name][place] = value

    change_camera(camera, change)
    with pytest.raises(DataError, match=message) as error:
        source.read(scene, frame)
    assert image.stem in str(error.value)


def test_images_and_depth_of_different_sizes_are_rejected(damaged):
    source, scene, frame, (image, _, _) = damaged
    write_rgb(image, np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"the image has \(32, 40\) pixels, its depth \(30, 40\)"):
        source.read(scene, frame)


def test_depth_that_is_no_depth_is_unknown(damaged):
    """Of BlendedMVS, MegaDepth and Waymo the published loader ends the training at NaN, and takes -1 for sky."""
    source, scene, frame, (_, depth, _) = damaged
    before = source.read(scene, frame)
    values = (read_npy(depth) if depth.suffix == ".npy" else read_exr(depth)).copy()
    values[:, :20] = np.resize([np.nan, np.inf, -np.inf, -1, 0], 20)
    write_depth(depth, values)
    view = source.read(scene, frame)
    assert not view.valid[:, :20].any() and not view.depth[:, :20].any() and not view.sky.any()
    assert torch.equal(view.depth[:, 20:], before.depth[:, 20:]) and view.valid[:, 20:].any()


def test_hypersim_scenes_left_out_on_purpose_are_no_scenes(tmp_path):
    (place,) = hypersim.write(tmp_path, [CLIP])
    root = tmp_path / Hypersim.folder
    (root / "ai_002_001/cam_00").mkdir(parents=True)
    (root / "ai_002_002/cam_00").mkdir(parents=True)
    (root / "ai_002_002/cam_00/000000_depth.npy").touch()
    source = Hypersim(root)
    assert source.scenes == [place.scene, "ai_002_002/cam_00"], "but one that lost its images is, to be complained of"
    assert source.frames("ai_002_002/cam_00") == []


def test_point_odyssey_has_no_depth_beyond_a_kilometer(tmp_path):
    (place,) = point_odyssey.write(tmp_path, [CLIP])
    source = PointOdyssey(tmp_path / PointOdyssey.folder)
    file = source.root / "train" / place.scene / "depth/00000.npy"
    depth = np.full((30, 40), 999.98, np.float32)
    depth[0], depth[1] = 1000, 1200
    np.save(file, depth)
    view = source.read(place.scene, "00000")
    assert not view.valid[:2].any() and view.valid[2:].all()


def test_point_odyssey_reads_listed_scenes_only(tmp_path):
    (place,) = point_odyssey.write(tmp_path, [CLIP])
    root = tmp_path / PointOdyssey.folder
    assert sorted(path.name for path in (root / "train").iterdir()) == sorted([place.scene, point_odyssey.UNLISTED])
    assert PointOdyssey(root).scenes == [place.scene]
    assert len(SCENES) == 33
    assert {"human_in_scene1", "scene1_0129", "girl_egocentric", "dancingroom0_3rd"} < SCENES
    with pytest.raises(ValueError, match="has no split 'test', only train"):
        PointOdyssey(root, "test")


def test_waymo_uses_four_cameras_and_no_invalid_frame(tmp_path):
    (place,) = waymo.write(tmp_path, [CLIP])
    root = tmp_path / Waymo.folder
    segment = place.scene.removesuffix("/1")
    shutil.copytree(root / segment, root / "tmp" / segment)  # the published preparation may leave this
    assert (root / segment / "00000_5.jpg").exists() and (root / segment / "00004_1.jpg").exists()
    assert Waymo(root).scenes == [place.scene] and Waymo(root).frames(place.scene) == place.frames
    with h5py.File(root / INVALID, "a") as file:
        del file[segment]
        file[f"{segment}/invalid_pairs"] = np.array(["1_00001", "2_00003", "5_00000"], "S")
    assert Waymo(root).frames(place.scene) == ["00000", "00002", "00003", "00004"], "the index follows the list"


@pytest.mark.parametrize("pairs", [np.array([]), np.array([], "S"), np.array(["1_00004"], "O"), np.array([b"1_00004"])])
def test_waymo_reads_its_list_however_it_is_stored(tmp_path, pairs):
    (place,) = waymo.write(tmp_path, [CLIP])
    root = tmp_path / Waymo.folder
    with h5py.File(root / INVALID, "w") as file:
        file[f"{place.scene.removesuffix('/1')}/invalid_pairs"] = pairs
    assert len(Waymo(root).frames(place.scene)) == 5 - len(pairs)


def test_waymo_without_its_list_names_the_download(tmp_path):
    waymo.write(tmp_path, [CLIP])
    (tmp_path / Waymo.folder / INVALID).unlink()
    with pytest.raises(FileNotFoundError, match=r"invalid_files\.h5 is missing.*docs/data\.md"):
        Waymo(tmp_path / Waymo.folder)
    (tmp_path / Waymo.folder / INVALID).write_bytes(b"no such file")
    with pytest.raises(DataError, match=r"invalid_files\.h5: damaged"):
        Waymo(tmp_path / Waymo.folder)
    with h5py.File(tmp_path / Waymo.folder / INVALID, "w"):
        pass  # nothing is invalid
    assert len(Waymo(tmp_path / Waymo.folder).scenes) == 1


def test_waymo_takes_smaller_steps_to_the_side(tmp_path):
    places = waymo.write(tmp_path, [CLIP] * 4)
    source = Waymo(tmp_path / Waymo.folder)
    assert [source.view_sampler_for(place.scene).max_interval for place in places] == [8, 8, 8, 4]


def test_omniobject3d_divides_by_its_scales(tmp_path):
    places = omniobject3d.write(tmp_path, CLIPS)
    source = OmniObject3D(tmp_path / OmniObject3D.folder)
    scales = json.loads((source.root / "scale.json").read_text(encoding="utf-8"))
    assert len(set(scales.values())) == 2
    for place, clip in zip(places, CLIPS, strict=True):
        stored = read_npy(source.root / place.scene / "depth/r_0.npy")
        view = source.read(place.scene, "r_0")
        torch.testing.assert_close(view.depth, torch.from_numpy(stored) / (1000 * scales[place.scene]))
        torch.testing.assert_close(view.depth, clip[0].depth)


@pytest.mark.parametrize(
    "scales", ['{"other": 0.001}', '{"anise_001": 0}', '{"anise_001": "1"}', '{"anise_001": null}']
)
def test_omniobject3d_wants_the_scale_of_every_object(tmp_path, scales):
    omniobject3d.write(tmp_path, [CLIP])
    (tmp_path / OmniObject3D.folder / "scale.json").write_text(scales, encoding="utf-8")
    source = OmniObject3D(tmp_path / OmniObject3D.folder)
    with pytest.raises(DataError, match=r"scale\.json: a positive scale of 'anise_001' was expected"):
        source.read("anise_001", "r_0")


def test_omniobject3d_without_scales_is_an_error(tmp_path):
    omniobject3d.write(tmp_path, [CLIP])
    (tmp_path / OmniObject3D.folder / "scale.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"scale\.json is missing.*docs/data\.md"):
        OmniObject3D(tmp_path / OmniObject3D.folder)


@pytest.mark.parametrize(("layout", "made"), [(omniobject3d, OmniObject3D), (point_odyssey, PointOdyssey)])
def test_a_folder_that_is_no_scene_keeps_no_other_from_being_used(tmp_path, layout, made):
    (place,) = layout.write(tmp_path, [CLIP])
    stray = tmp_path / made.folder / ("train/girl" if made is PointOdyssey else "notes")
    stray.mkdir()
    source = made(tmp_path / made.folder)
    assert len(source.frames(place.scene)) == 4 and source.frames(stray.name) == []


def test_omniobject3d_counts_as_people_do(tmp_path):
    omniobject3d.write(tmp_path, [CLIP * 3])
    source = OmniObject3D(tmp_path / OmniObject3D.folder)
    assert source.frames("anise_001") == [f"r_{number}" for number in range(12)]


def test_blendedmvs_goes_by_its_list_and_by_what_is_there(tmp_path):
    first, second = blendedmvs.write(tmp_path, CLIPS)
    root = tmp_path / BlendedMVS.folder
    shutil.rmtree(root / second.scene)
    (root / first.scene / "00000001.jpg").unlink()
    (root / ("f" * 24)).mkdir()
    source = BlendedMVS(root)
    assert source.scenes == [first.scene]
    assert source.frames(first.scene) == ["00000000", "00000002", "00000003"]
    with h5py.File(root / OVERLAP) as file:
        group = file[first.scene]
        stored = {
            tuple(pair): value for pair, value in zip(group["indices"][()].T.tolist(), group["values"], strict=True)
        }
    pairs, values = source.overlap(first.scene)
    position = {0: 0, 2: 1, 3: 2}
    wanted = {(position[i], position[j]): value for (i, j), value in stored.items() if 1 not in (i, j)}
    assert {tuple(pair): value for pair, value in zip(pairs.T.tolist(), values, strict=True)} == wanted and wanted


@pytest.mark.parametrize(("layout", "made", "file"), [(blendedmvs, BlendedMVS, OVERLAP), (megadepth, MegaDepth, SETS)])
def test_lists_that_are_missing_or_damaged_are_named(tmp_path, layout, made, file):
    layout.write(tmp_path, [CLIP])
    path = tmp_path / made.folder / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{file}: damaged"):
        made(tmp_path / made.folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing.*how to download or compute it"):
        made(tmp_path / made.folder)


def test_megadepth_holds_out_two_places(tmp_path):
    seen, held_out = megadepth.write(tmp_path, CLIPS)
    root = tmp_path / MegaDepth.folder
    assert held_out.scene == "0015/0"
    assert MegaDepth(root).scenes == [seen.scene]
    assert MegaDepth(root, "val").scenes == [held_out.scene]
    assert MegaDepth(root, "all").scenes == sorted([seen.scene, held_out.scene])
    shutil.rmtree(root / held_out.scene)
    assert MegaDepth(root, "all").scenes == [seen.scene], "a part of the data set is enough"


def test_megadepth_sets_are_of_one_scene(tmp_path):
    """And samples have different images, though in sets they come again and again."""
    places = megadepth.write(tmp_path, CLIPS)
    source = MegaDepth(tmp_path / MegaDepth.folder, "all")
    for place in places:
        assert np.unique(source.groups(place.scene)[0]).tolist() == [0, 1, 2, 3]
        assert source.frames(place.scene) == place.frames
        chosen = source.view_sampler.select_views(source, place.scene, 0, 4, 4, np.random.default_rng(0))
        assert sorted(chosen.positions) == [0, 1, 2, 3] and not chosen.is_video


def test_megadepth_sets_must_be_of_what_is_listed(tmp_path):
    megadepth.write(tmp_path, CLIPS)
    path = tmp_path / MegaDepth.folder / SETS
    with np.load(path) as file:
        arrays = dict(file)
    arrays["sets"][1, 7] = 8  # there are images 0 to 7
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="its set 1 names what it does not list"):
        MegaDepth(tmp_path / MegaDepth.folder)

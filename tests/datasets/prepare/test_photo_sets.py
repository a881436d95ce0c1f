"""BlendedMVS and MegaDepth: the world as their downloads hold it, prepared and read back, is the world."""

from dataclasses import replace

import cv2
import h5py
import numpy as np
import pycolmap
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.transforms import resize
from streamvggt.datasets import blendedmvs, megadepth, prepare
from streamvggt.datasets.blendedmvs import OVERLAP, BlendedMVS
from streamvggt.datasets.megadepth import SETS, MegaDepth

H, W = 60, 80


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 12, H, W, stride=3)[0]


def assert_same(read, true):
    torch.testing.assert_close(read.cam_from_world, true.cam_from_world, rtol=0, atol=1e-4)
    torch.testing.assert_close(read.intrinsics, true.intrinsics, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(read.depth, true.depth * true.valid, rtol=1e-5, atol=0)
    assert (read.image - true.image).abs().mean() < 0.03


def write_blendedmvs(raw, clip, scene):
    for part in ("blended_images", "cams", "rendered_depth_maps"):
        (raw / scene / part).mkdir(parents=True)
    for number, view in enumerate(clip):
        name = f"{number:08d}"
        extrinsic = np.linalg.inv(world_from_cam(view))
        rows = ["extrinsic", *(" ".join(map(str, row)) for row in extrinsic.tolist()), "", "intrinsic"]
        rows += [" ".join(map(str, row)) for row in view.intrinsics.tolist()]
        (raw / scene / f"cams/{name}_cam.txt").write_text(
            "\n".join([*rows, "", "0.5 0.01 128 5.0", ""]), encoding="utf-8"
        )
        write_image(raw / scene / f"blended_images/{name}.jpg", view)
        write_image(raw / scene / f"blended_images/{name}_masked.jpg", view)
        # From the lowest row up, as PFM files are.
        content = depth_array(view)[::-1].astype("<f4").tobytes()
        (raw / scene / f"rendered_depth_maps/{name}.pfm").write_bytes(f"Pf\n{W} {H}\n-1.0\n".encode() + content)


def test_blendedmvs(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(blendedmvs, "WIDTH", 64)
    scenes = "5" * 24, "6" * 24
    write_blendedmvs(tmp_path / "raw", clip[:3], scenes[0])
    write_blendedmvs(tmp_path / "raw/plus", clip[3:6], scenes[1])
    assert prepare("blendedmvs", tmp_path / "raw", tmp_path).prepared == list(scenes)
    source = BlendedMVS(tmp_path / BlendedMVS.folder)
    assert source.scenes == list(scenes)
    for scene, views in zip(scenes, (clip[:3], clip[3:6]), strict=True):
        assert source.frames(scene) == ["00000000", "00000001", "00000002"]
        for frame, view in zip(source.frames(scene), views, strict=True):
            assert_same(source.read(scene, frame), resize(view, (64, 48)))
        pairs, values = source.overlap(scene)
        assert sorted(zip(*pairs.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
        assert ((values > 0.3) & (values <= 1)).all()


def test_a_published_list_of_overlaps_stays_and_ours_grows(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(blendedmvs, "WIDTH", W)
    out = tmp_path / BlendedMVS.folder
    write_blendedmvs(tmp_path / "raw", clip[:2], "5" * 24)
    prepare("blendedmvs", tmp_path / "raw", tmp_path)
    write_blendedmvs(tmp_path / "raw", clip[:2], "6" * 24)
    prepare("blendedmvs", tmp_path / "raw", tmp_path)
    assert BlendedMVS(out).scenes == ["5" * 24, "6" * 24]
    with h5py.File(out / OVERLAP, "w") as file:  # the published one knows one scene only
        group = file.create_group("6" * 24)
        group["basenames"], group["indices"] = np.array(["00000001", "00000007"], "S"), [[0, 1], [1, 0]]
        group["values"] = [0.5, 0.5]
    prepare("blendedmvs", tmp_path / "raw", tmp_path)
    source = BlendedMVS(out)
    assert source.scenes == ["6" * 24]
    assert source.frames("6" * 24) == ["00000001"], "an image that is listed but not there is skipped"
    assert source.overlap("6" * 24)[0].shape == (2, 0)


def test_a_broken_camera_file_is_reported(tmp_path, clip):
    write_blendedmvs(tmp_path / "raw", clip[:1], "5" * 24)
    (tmp_path / f"raw/{'5' * 24}/cams/00000000_cam.txt").write_text("extrinsic\n1 0 0 0\n", encoding="utf-8")
    report = prepare("blendedmvs", tmp_path / "raw", tmp_path)
    assert "00000000_cam.txt: expected an extrinsic of 16" in report.failed["5" * 24]


def distorted_camera(focal, larger=1):
    """A camera with distortion whose pictures, undistorted and made `larger` times smaller, have W×H pixels."""
    options = pycolmap.UndistortCameraOptions(max_image_size=W)
    for width in range(larger * W, larger * W + 20):
        for height in range(larger * H, larger * H + 20):
            camera = pycolmap.Camera(
                model="SIMPLE_RADIAL",
                width=width,
                height=height,
                params=[larger * focal, width / 2, height / 2, 0.03],
                camera_id=1,
            )
            straight = pycolmap.undistort_camera(options, camera)
            whole = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
            if (straight.width, straight.height, whole.width, whole.height) == (W, H, larger * W, larger * H):
                return camera
    raise AssertionError("none")


def write_megadepth(raw, clip, scene="0001", sub="0", larger=1):
    dense = raw / "phoenix/S6/zl548/MegaDepth_v1" / scene / f"dense{sub}"
    model_folder = raw / "MegaDepth_v1_SfM" / scene / "sparse/manhattan" / sub
    for folder in (dense / "imgs", dense / "depths", model_folder):
        folder.mkdir(parents=True)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(distorted_camera(clip[0].intrinsics[0, 0].item(), larger))
    for number, view in enumerate(clip):
        image = pycolmap.Image(name=f"{number:03d}_o.jpg", camera_id=1, image_id=number + 1)
        pose = pycolmap.Rigid3d(np.linalg.inv(world_from_cam(view))[:3])
        model.add_image_with_trivial_frame(image, pose)
        write_image(dense / "imgs" / image.name, view)
        with h5py.File(dense / "depths" / f"{number:03d}_o.h5", "w") as file:
            file["depth"] = depth_array(view)
    model.write_binary(model_folder)
    return dense


@pytest.mark.parametrize("larger", [1, 2])
def test_megadepth(tmp_path, clip, monkeypatch, larger):
    """Pictures were undistorted, and those of the model made smaller where they were too large."""
    monkeypatch.setattr(megadepth, "MAX_SIZE", (64, 999))
    dense = write_megadepth(tmp_path, [*clip, clip[0]], larger=larger)
    cv2.imwrite(str(dense / "imgs/011_o.jpg"), np.zeros((H - 8, W, 3), np.uint8))  # not what undistorting gives
    (dense / "depths/010_o.h5").unlink()
    with h5py.File(dense / "depths/012_o.h5", "a") as file:
        file["depth"][:9] = -1  # no depth at all: what is before what
    assert prepare("megadepth", tmp_path, tmp_path).prepared == ["0001/0"]
    source = MegaDepth(tmp_path / MegaDepth.folder)
    assert source.frames("0001/0") == [f"{number:03d}_o.jpg" for number in range(10)]
    half = torch.tensor([[0, 0, -0.5], [0, 0, -0.5], [0, 0, 0]])  # from COLMAP's pixels, where clips have W/2, to ours
    for frame, view in zip(source.frames("0001/0"), clip, strict=False):
        assert_same(source.read("0001/0", frame), resize(replace(view, intrinsics=view.intrinsics + half), (64, 48)))
    sets = source.groups("0001/0")
    assert [members[0] for members in sets] == list(range(10))
    assert all(np.unique(members).tolist() == list(range(10)) for members in sets)
    with np.load(tmp_path / MegaDepth.folder / SETS) as file:
        assert file["sets"].shape == (10, 65)


def test_megadepth_never_enlarges_and_says_when_nothing_fits(tmp_path, clip):
    write_megadepth(tmp_path, clip[:2])
    dense = write_megadepth(tmp_path, clip[:2], "0002")
    for picture in (dense / "imgs").iterdir():
        cv2.imwrite(str(picture), np.zeros((H - 8, W, 3), np.uint8))
    report = prepare("megadepth", tmp_path, tmp_path)
    assert "no image of the model has depth and an image" in report.failed["0002/0"]
    assert cv2.imread(str(tmp_path / MegaDepth.folder / "0001/0/000_o.jpg.jpg")).shape == (H, W, 3)
    assert MegaDepth(tmp_path / MegaDepth.folder).scenes == [], "two images are too few for a set"


def test_a_published_list_of_sets_stays_and_ours_grows(tmp_path, clip):
    write_megadepth(tmp_path, clip)
    prepare("megadepth", tmp_path, tmp_path)
    before = MegaDepth(tmp_path / MegaDepth.folder).groups("0001/0")
    write_megadepth(tmp_path, clip, "0000", "1")
    prepare("megadepth", tmp_path, tmp_path)
    source = MegaDepth(tmp_path / MegaDepth.folder)
    assert source.scenes == ["0000/1", "0001/0"]
    assert np.array_equal(source.groups("0001/0"), before) and np.array_equal(source.groups("0000/1"), before)
    path = tmp_path / MegaDepth.folder / SETS
    with np.load(path) as file:
        published = {key: file[key] for key in ("scenes", "images", "sets")}
    published["sets"] = published["sets"][published["sets"][:, 0] == 0]
    np.savez(path, **published)
    content = path.read_bytes()
    prepare("megadepth", tmp_path, tmp_path)
    assert path.read_bytes() == content and MegaDepth(tmp_path / MegaDepth.folder).scenes == ["0001/0"]


def test_sets_are_of_images_that_overlap():
    shares = np.zeros((40, 40))
    shares[:20, :20] = shares[20:, 20:] = 0.5  # two places
    shares[0, 20:] = 0.9  # what image 0 sees is seen there, but it is a detail of it
    sets = megadepth.covisible_sets(shares)
    assert len(sets) == 40
    for number, members in enumerate(sets):
        assert members[0] == number and len(np.unique(members)) == 20
        assert ((members < 20) == (number < 20)).all()

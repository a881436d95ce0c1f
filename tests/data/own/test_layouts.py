"""Scenes of the procedural world, written in the layouts of other tools, come back as they were."""

import shutil

import cv2
import numpy as np
import pycolmap
import pytest
from own_scenes import (
    save_transforms,
    world_clips,
    write_colmap,
    write_images,
    write_transforms,
    write_tum,
    write_video,
)
from PIL import Image
from real_files import REAL, real

from streamvggt.data.consistency import agreement
from streamvggt.data.decode import DataError
from streamvggt.data.own.frame import read_colmap_depth, read_frame
from streamvggt.data.own.lens import Lens, checked_lens, undistortion
from streamvggt.data.own.scene import get_labels, read_scene, scenes_under

WRITERS = {
    "transforms, png": write_transforms,
    "transforms, npy": lambda folder, views: write_transforms(folder, views, depth="npy"),
    "COLMAP, binary": write_colmap,
    "COLMAP, text": lambda folder, views: write_colmap(folder, views, kind="txt"),
    "TUM": write_tum,
}


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 5, 60, 80, seed=3, fov=1.2)[0]


def read(folder):
    return [read_frame(frame) for frame in read_scene(folder)]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_scene_comes_back_as_it_was(clip, tmp_path, layout):
    WRITERS[layout](tmp_path, clip)
    frames = read_scene(tmp_path)
    assert get_labels(frames) == ("cameras", "depth")
    for view, true in zip(read(tmp_path), clip, strict=True):
        assert (view.image - true.image).abs().max() <= 0.5 / 255 + 1e-6
        assert (view.valid == true.valid).all()
        assert (view.depth - true.depth).abs().max() < 6e-4  # half a millimeter where the depth is stored so
        assert (view.intrinsics - true.intrinsics).abs().max() < 1e-4
        assert (view.cam_from_world - true.cam_from_world).abs().max() < 1e-5


@pytest.mark.parametrize("layout", WRITERS)
def test_neighboring_views_agree(clip, tmp_path, layout):
    WRITERS[layout](tmp_path, clip)
    first, second, *_ = read(tmp_path)
    found = agreement(first, second)
    assert found.overlap > 0.5 and found.consistent_ratio > 0.8


def test_images_and_videos_have_no_labels(clip, tmp_path):
    write_images(tmp_path / "photos", clip)
    write_video(tmp_path / "walk.mp4", clip)
    scenes = scenes_under(tmp_path)
    assert list(scenes) == ["photos", "walk.mp4"]
    for path in scenes.values():
        assert get_labels(read_scene(path)) == ()
        views = read(path)
        assert len(views) == len(clip)
        for view, true in zip(views, clip, strict=True):
            assert not view.valid.any() and (view.image - true.image).abs().mean() < 0.05


def test_depth_maps_beside_images_are_no_images(tmp_path):
    for number in range(2):
        Image.new("RGB", (80, 60), (200, 100, 0)).save(tmp_path / f"{number}.color.png")
        Image.fromarray(np.full((60, 80), 1500, np.uint16)).save(tmp_path / f"{number}.depth.png")
    assert [frame.name for frame in read_scene(tmp_path)] == ["0.color.png", "1.color.png"]


def test_a_video_gives_the_same_frame_in_any_order(clip, tmp_path):
    write_video(tmp_path / "a.mp4", clip)
    frames = read_scene(tmp_path / "a.mp4")
    forward = [read_frame(frame).image for frame in frames]
    backward = [read_frame(frame).image for frame in reversed(frames)]
    assert all((a == b).all() for a, b in zip(forward, reversed(backward), strict=True))
    errors = [[(image - true.image).abs().mean().item() for true in clip] for image in forward]
    assert np.argmin(errors, 1).tolist() == list(range(len(clip)))


def test_scenes_are_found_below_a_folder_but_not_within_a_scene(clip, tmp_path):
    write_transforms(tmp_path / "rooms/kitchen", clip[:1])
    write_colmap(tmp_path / "garden", clip[:1])
    assert list(scenes_under(tmp_path)) == ["garden", "rooms/kitchen"]
    assert list(scenes_under(tmp_path / "garden")) == ["garden"]
    with pytest.raises(DataError, match=r"expected transforms\.json, a COLMAP model in sparse/0, rgb\.txt, images"):
        scenes_under(tmp_path / "garden/sparse")


@pytest.mark.parametrize("stems", [("1", "2", "10"), ("1548266470.02098", "1548266470.1211", "1548266470.2")])
def test_frames_are_in_the_order_of_the_numbers_in_their_names(clip, tmp_path, stems):
    names = [f"images/{stem}.png" for stem in stems]
    content = write_transforms(tmp_path, clip[:3])
    for entry, name in zip(content["frames"], reversed(names), strict=True):
        (tmp_path / entry["file_path"]).rename(tmp_path / name)
        entry["file_path"] = name
    save_transforms(tmp_path, content)
    assert [frame.name for frame in read_scene(tmp_path)] == names
    assert [f"images/{frame.name}" for frame in read_scene(tmp_path / "images")] == names
    write_colmap(tmp_path / "colmap", clip[:3], kind="txt")
    model = tmp_path / "colmap/sparse/images.txt"
    text = model.read_text(encoding="utf-8")
    for number, name in enumerate(reversed(names), 1):
        (tmp_path / f"colmap/images/{number:04d}.png").rename(tmp_path / "colmap" / name)
        text = text.replace(f"{number:04d}.png", name.removeprefix("images/"))
    model.write_text(text, encoding="utf-8")
    assert [f"images/{frame.name}" for frame in read_scene(tmp_path / "colmap")] == names


def test_the_published_example_of_nerfstudio_reads_as_documented(tmp_path):
    """Axes by hand: OpenGL's camera looks along -z with y up, so its identity is OpenCV's half turn about x."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    save_transforms(
        tmp_path,
        {"camera_angle_x": np.pi / 2, "frames": [{"file_path": "./a", "transform_matrix": np.eye(4).tolist()}]},
    )
    (frame,) = read_scene(tmp_path)
    assert frame.world_from_cam.tolist() == np.diag([1.0, -1, -1, 1]).tolist()
    view = read_frame(frame)
    assert np.allclose(view.intrinsics.numpy(), [[4, 0, 3.5], [0, 4, 2.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("SIMPLE_RADIAL", (60, 40, 30, -0.1)),
        ("OPENCV", (60, 61, 40, 30, 0.1, -0.02, 0.002, -0.001)),
        ("OPENCV_FISHEYE", (40, 40, 40, 30, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_a_distorted_image_is_straightened(model, params):
    """An image whose colors are the directions of its rays: afterwards each pixel has the direction of its own."""
    lens = checked_lens(model, (80, 60), params, "here")
    camera = pycolmap.Camera(model=model, width=80, height=60, params=params)
    x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    rays = camera.cam_from_img(np.stack([x, y], -1).reshape(-1, 2)).reshape(60, 80, 2)
    colors = np.stack([128 + 100 * rays[..., 0], 128 + 100 * rays[..., 1], 0 * x], -1).clip(0, 255).astype(np.uint8)
    straight = undistortion(lens)
    image = straight.image(colors)
    K = straight.intrinsics
    height, width = image.shape[:2]
    u, v = (np.arange(width) - K[0, 2]) / K[0, 0], (np.arange(height) - K[1, 2]) / K[1, 1]
    inside = (np.abs(u)[None] < 0.9) & (np.abs(v)[:, None] < 0.9)
    assert inside.mean() > 0.5
    assert np.abs(image[..., 0] - (128 + 100 * u[None]))[inside].max() < 2.5
    assert np.abs(image[..., 1] - (128 + 100 * v[:, None]))[inside].max() < 2.5


def test_between_its_nodes_an_undistortion_is_as_good_as_exact():
    """A fisheye lens of 1920 pixels: nodes are 4 pixels apart."""
    params = (600.0, 600.0, 960.0, 540.0, 0.02, -0.01, 0.0, 0.0)
    straight = undistortion(checked_lens("OPENCV_FISHEYE", (1920, 1080), params, "here"))
    camera = pycolmap.Camera(model="OPENCV_FISHEYE", width=1920, height=1080, params=params)
    height, width = straight.grid[0].shape
    x, y = np.random.default_rng(0).integers((width, height), size=(500, 2)).T
    K = straight.intrinsics
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(500)], -1)
    expected = camera.img_from_cam(rays) - 0.5
    assert np.abs(np.stack([grid[y, x] for grid in straight.grid], -1) - expected).max() < 0.02


def test_a_pinhole_is_left_as_it_is():
    assert undistortion(Lens("PINHOLE", (8, 6), (5.0, 5.0, 4.0, 3.0))).grid is None


def test_pixels_of_a_known_camera_keep_their_stored_order(clip, tmp_path):
    """As COLMAP itself reads them: the EXIF orientation of a phone does not turn the image away from its camera."""
    content = write_transforms(tmp_path, clip[:1])
    path = tmp_path / content["frames"][0]["file_path"]
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert pycolmap.Bitmap.read(path, True).width == 80
    (view,) = read(tmp_path)
    assert view.image.shape == (3, 60, 80)


def test_smaller_depth_of_the_same_shape_is_enlarged(clip, tmp_path):
    content = write_transforms(tmp_path, clip[:1])
    path = tmp_path / content["frames"][0]["depth_file_path"]
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::2, ::2])
    (view,) = read(tmp_path)
    assert view.depth.shape == (60, 80) and view.valid.any()


def test_colmap_depth_maps_are_those_of_pycolmap(tmp_path):
    values = np.random.default_rng(0).random((5, 7), np.float32)
    pycolmap.DepthMap.from_array(values, 0.0, 1.0).write(tmp_path / "a.bin")
    assert (read_colmap_depth(tmp_path / "a.bin") == values).all()


def test_masks_hide_depth(clip, tmp_path):
    content = write_transforms(tmp_path, clip[:1])
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    content["frames"][0]["mask_path"] = "mask.png"
    save_transforms(tmp_path, content)
    (view,) = read(tmp_path)
    assert not view.valid[:, :40].any() and view.valid[:, 40:].any()


@real
def test_real_lists_of_tum_pair_as_their_times_say(tmp_path):
    """Times and motion capture of a real sequence; the images are stand-ins."""
    shutil.copy(REAL / "tum" / "rgb.txt", tmp_path)
    shutil.copy(REAL / "tum" / "groundtruth.txt", tmp_path)
    (tmp_path / "calibration.txt").write_text("525 525 319.5 239.5", encoding="utf-8")
    names = [line.split()[1] for line in (tmp_path / "rgb.txt").read_text().splitlines() if line[0] != "#"]
    (tmp_path / "rgb").mkdir()
    for name in names:
        Image.new("RGB", (640, 480)).save(tmp_path / name)
    frames = read_scene(tmp_path)
    assert get_labels(frames) == ("cameras",) and len(frames) > 0.9 * len(names)
    assert np.linalg.norm(frames[0].world_from_cam[:3, 3]) > 0.1

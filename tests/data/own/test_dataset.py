"""Training on scenes of one's own: which scenes are taken, which are rejected, and what a sample is."""

import numpy as np
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

from streamvggt.data.decode import DataError
from streamvggt.data.mixture import Mixture
from streamvggt.data.own.dataset import OwnScenes, own_data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    clip = world_clips(1, 6, 60, 80, seed=3, fov=1.2)[0]
    folder = tmp_path_factory.mktemp("own")
    write_transforms(folder / "labeled/a", clip)
    write_colmap(folder / "labeled/b", clip)
    write_tum(folder / "labeled/c", clip)
    write_images(folder / "photos", clip)
    write_video(folder / "walk.mp4", clip)
    return folder


def test_scenes_with_their_labels(root):
    scenes = OwnScenes(root)
    both = ("cameras", "depth")
    assert scenes.labels == {"labeled/a": both, "labeled/b": both, "labeled/c": both, "photos": (), "walk.mp4": ()}


def test_a_scene_without_the_labels_needed_is_rejected(root):
    with pytest.raises(DataError, match="photos: expected cameras and depth for every frame, got no cameras and depth"):
        OwnScenes(root, needs=("cameras", "depth"))
    with pytest.raises(ValueError, match="needs: expected cameras, depth, got poses"):
        OwnScenes(root, needs=("poses",))


def test_samples_of_all_scenes_in_one_mixture(root):
    data = Mixture(
        datasets={"own": own_data(path=root, crop_augmentation_px=4, jitter=True)},
        samples_per_epoch={"own": 20},
        resolutions=[(56, 42)],
        num_frames=(2, 4),
        max_images_per_process=4,
    )
    seen = set()
    for number in range(20):
        ((_, sample),) = data.batch(number)
        seen.add(sample.scene)
        assert all(view.image.shape == (3, 42, 56) for view in sample.views)
        assert any(view.valid.any() for view in sample.views) == sample.scene.startswith("labeled")
        again = data[number]
        assert (again.images[0, 0] == sample.views[0].image).all()
    assert len(seen) == 5 and data.num_replaced() == {"own": 0}


def test_metric_where_the_layout_says_so(root):
    scenes = OwnScenes(root / "labeled")
    read = {scene: scenes.read(scene, scenes.frames(scene)[0]) for scene in scenes.scenes}
    assert [read[scene].is_metric for scene in scenes.scenes] == [False, False, True]


def test_too_few_frames_are_an_error(root):
    with pytest.raises(ValueError, match="none has 10 frames"):
        len(own_data(path=root / "photos", max_views=10))


def test_the_cameras_of_a_rig_are_not_mixed(tmp_path):
    clip = world_clips(1, 6, 60, 80, seed=3, fov=1.2)[0]
    content = write_transforms(tmp_path, clip)
    for number, entry in enumerate(content["frames"]):
        name = f"images/{'left' if number < 4 else 'right'}/{number}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / entry["file_path"]).rename(tmp_path / name)
        entry["file_path"] = name
    save_transforms(tmp_path, content)
    scenes = OwnScenes(tmp_path)
    assert scenes.segments(*scenes.scenes) == [[0, 1, 2, 3], [4, 5]]
    assert len(own_data(path=tmp_path, max_views=3)) == 2


def test_depth_in_another_unit(root):
    millimeters, meters = (OwnScenes(root / "labeled/a", depth_unit=unit).read("a", "images/frame_00001.png")
                           for unit in (1.0, None))  # fmt: skip
    assert np.allclose(millimeters.depth, 1000 * meters.depth)

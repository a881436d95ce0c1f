"""Samples of the object and indoor sets: which frames come together, in which order, with which depth."""

import numpy as np
import pytest

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.encode import write_png
from streamvggt.datasets import get_module, training_set
from streamvggt.datasets._fixtures import near_mask

SETS = ["co3d", "wildrgbd", "arkitscenes", "arkitscenes_highres", "scannetpp", "scannet"]
SIZE, NUM_FRAMES, NUM_VIEWS = (56, 42), 12, 4
CLIPS = world_clips(2, NUM_FRAMES, 48, 64, stride=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name in SETS:
        get_module(name).write(folder, CLIPS)
    return folder


def samples(dataset, count=30, num_views=NUM_VIEWS):
    for number in range(count):
        random = np.random.default_rng(number)
        yield dataset.sample(int(random.integers(len(dataset))), num_views, SIZE, random)


@pytest.mark.parametrize("name", SETS)
def test_samples_are_different_frames_and_videos_run_forwards(name, root):
    dataset = training_set(reader=name, data_root=root, max_views=NUM_VIEWS, crop_augmentation_px=4)
    videos, scenes = [], set()
    for sample in samples(dataset):
        positions = [dataset.source.frames(sample.scene).index(frame) for frame in sample.frames]
        assert len(set(positions)) == NUM_VIEWS
        assert not sample.is_video or positions == sorted(positions)
        assert {tuple(view.depth.shape) for view in sample.views} == {SIZE[::-1]}
        videos.append(sample.is_video)
        scenes.add(sample.scene)
    assert 0.2 < np.mean(videos) < 0.95, "both videos and collections"
    assert len(scenes) == 2


def test_a_tenth_of_the_object_samples_shows_only_the_object(root):
    """Depth, not colors, in all views of a sample alike."""
    dataset = training_set(reader="wildrgbd", data_root=root, max_views=2)
    masked = []
    for sample in samples(dataset, 120, num_views=2):
        # The object is the nearer half of what is known.
        masked.append([view.valid.float().mean().item() < 0.75 for view in sample.views])
        assert len(set(masked[-1])) == 1
    assert 0.03 < np.mean(masked) < 0.2
    assert near_mask(CLIPS[0][0]).float().mean() / 255 < 0.6, "of the fixture"


def test_a_frame_without_depth_is_replaced_by_one_that_is_not_shown(tmp_path):
    """The published loader may show a frame twice, and still calls views in disorder a video."""
    (place, _) = get_module("wildrgbd").write(tmp_path, CLIPS)
    empty = {3, 4, 8}
    for number in empty:
        path = tmp_path / "wildrgbd" / place.scene / f"depth/{number:05d}.png"
        write_png(path, np.zeros((48, 64), np.uint16))
    dataset = training_set(reader="wildrgbd", data_root=tmp_path, max_views=NUM_VIEWS)
    replaced = 0
    for sample in samples(dataset, 40):
        numbers = [int(frame) for frame in sample.frames]
        assert len(set(numbers)) == NUM_VIEWS
        assert not sample.is_video or numbers == sorted(numbers)
        assert all(view.valid.any() for view in sample.views)
        replaced += sample.scene == place.scene
        assert sample.scene != place.scene or not empty & set(numbers)
    assert replaced > 10


def test_a_clip_of_scannetpp_is_of_one_camera_and_a_group_may_mix_them(root):
    dataset = training_set(reader="scannetpp", data_root=root, max_views=NUM_VIEWS)
    mixed = []
    for sample in samples(dataset, 40):
        cameras = {frame[:3] for frame in sample.frames}
        mixed.append(len(cameras) == 2)
        assert not (sample.is_video and len(cameras) == 2), "no camera takes such a video"
    assert 0.1 < np.mean(mixed) < 0.5


def test_both_cameras_of_scannetpp_are_filmed(root):
    dataset = training_set(reader="scannetpp", data_root=root, max_views=NUM_VIEWS)
    first = [sample.frames[0][:3] for sample in samples(dataset, 40) if sample.is_video]
    assert 0.2 < np.mean([camera == "DSC" for camera in first]) < 0.8

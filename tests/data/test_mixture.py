"""Shares, order, resuming, and what happens to bad and missing data."""

import pickle
import shutil
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.batches import SyntheticBatches
from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import DataError
from streamvggt.data.mixture import MAX_ATTEMPTS, Mixture, sample_items, validation_mixture
from streamvggt.datasets import get_module, training_set
from streamvggt.training.batches import in_patches

NAMES = ("virtual_kitti2", "spring", "mvs_synth")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    clips = world_clips(2, 8, 60, 80)
    for name in NAMES:
        get_module(name).write(folder, clips)
    return folder


def mixture(root: Path, **options) -> Mixture:
    names = options.pop("names", NAMES)
    sets = {name: training_set(reader=name, data_root=root, crop_augmentation_px=4, jitter=True) for name in names}
    sets = options.pop("datasets", sets)
    settings = {
        "samples_per_epoch": {"virtual_kitti2": 6, "spring": 3, "mvs_synth": 1},
        "resolutions": [(56, 42), (42, 56)],
    }
    settings["samples_per_epoch"] = {name: settings["samples_per_epoch"][name] for name in names}
    return Mixture(datasets=sets, **{**settings, "num_frames": (3, 3), "max_images_per_process": 6, **options})


def test_an_epoch_holds_every_share_and_ends(root):
    data = mixture(root)
    assert (data.batch_size, data.num_batches) == (2, 5)
    for epoch in range(2):
        names = Counter(name for number in range(5) for name, _ in data.batch(5 * epoch + number))
        assert names == {"virtual_kitti2": 6, "spring": 3, "mvs_synth": 1}
    orders = [[name for number in range(5 * e, 5 * e + 5) for name, _ in data.batch(number)] for e in range(3)]
    assert len({tuple(order) for order in orders}) > 1


def test_a_batch_is_its_number_in_any_process(root):
    first, second = mixture(root), mixture(root)
    later = second[7]  # asked for first
    for number in (3, 7):
        a, b = first[number], second[number]
        assert torch.equal(a.images, b.images) and torch.equal(a.cam_from_world, b.cam_from_world)
    assert torch.equal(later.images, first[7].images)
    assert not torch.equal(mixture(root, seed=1)[3].images.flatten()[:100], first[3].images.flatten()[:100])


def test_it_can_be_sent_to_workers_that_are_not_forked(root):
    data = mixture(root)
    data[0]
    sent = pickle.loads(ForkingPickler.dumps(data))
    assert torch.equal(sent[3].images, data[3].images)


def test_batches_have_one_size_and_all_sizes_come_as_often_as_weighted(root):
    data = mixture(root, resolution_weights=[3, 1], num_frames=(2, 3))
    shapes = [data.shape(number) for number in range(2000)]
    sizes = Counter(size for size, _ in shapes)
    assert sizes[56, 42] / 2000 == pytest.approx(0.75, abs=0.03)
    assert Counter(views for _, views in shapes)[2] / 2000 == pytest.approx(0.5, abs=0.04)
    for number in range(6):
        (width, height), views = shapes[number]
        assert data[number].images.shape == (2, views, 3, height, width)


def test_resolutions_follow_the_longest_side_in_whole_patches(root):
    published = [(518, 392), (518, 154), (266, 518)]
    assert mixture(root, resolutions=published).resolutions == published
    assert mixture(root, resolutions=published, size=112).resolutions == [(112, 84), (112, 28), (56, 112)]
    of_sixteen = in_patches(mixture(root, resolutions=[(56, 42)], size=64), 16)
    assert of_sixteen.resolutions == [(64, 48)] and of_sixteen[0].images.shape[-2:] == (48, 64)


def test_samples_of_a_data_set_differ_until_all_were_had():
    random = np.random.default_rng(0)
    assert sorted(sample_items(5, 5, random)) == [0, 1, 2, 3, 4]
    counts = Counter(sample_items(5, 12, random))
    assert set(counts.values()) == {2, 3} and len(set(sample_items(100, 50, random).tolist())) == 50


def damaged(root: Path, tmp_path: Path, spoil) -> Mixture:
    shutil.copytree(root / "spring", tmp_path / "spring")
    spoil(tmp_path / "spring")
    return Mixture(
        datasets={"spring": training_set(reader="spring", data_root=tmp_path)},
        samples_per_epoch={"spring": 14},
        resolutions=[(56, 42)],
        num_frames=(2, 2),
        max_images_per_process=2,
    )


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite_camera(path: Path, **changes) -> None:
    np.savez(path, **{**np.load(path), **changes})


SPOILT = {
    "truncated image": (lambda root: cut_off(root / "0001/rgb/0003.png"), "0003.png: the image is cut off"),
    "truncated depth": (lambda root: cut_off(root / "0001/depth/0003.npy"), "0003.npy: damaged"),
    "wrong key": (
        lambda root: np.savez(root / "0001/cam/0003.npz", K=np.eye(3)),
        "0003.npz: no intrinsics, pose in it, only K",
    ),
    "pose not finite": (
        lambda root: rewrite_camera(root / "0001/cam/0003.npz", pose=np.full((4, 4), np.nan, np.float32)),
        "0003.png: a finite 4×4 pose was expected",
    ),
    "skewed": (
        lambda root: rewrite_camera(
            root / "0001/cam/0003.npz", intrinsics=np.array([[70, 5, 40], [0, 70, 30], [0, 0, 1.0]])
        ),
        "0003.png: the camera is skewed",
    ),
    "principal point": (
        lambda root: rewrite_camera(
            root / "0001/cam/0003.npz", intrinsics=np.array([[70, 0, 1], [0, 70, 30], [0, 0, 1.0]])
        ),
        "frame 0003: the principal point",
    ),
    "depth of another size": (
        lambda root: np.save(root / "0001/depth/0003.npy", np.ones((5, 5), np.float32)),
        "0003.png: the image has (60, 80) pixels, its depth (5, 5)",
    ),
    "one frame missing": (lambda root: (root / "0001/depth/0003.npy").unlink(), "0003.npy"),
    "no file but a folder": (
        lambda root: ((root / "0001/depth/0003.npy").unlink(), (root / "0001/depth/0003.npy").mkdir()),
        "0003.npy",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_bad_samples_are_replaced_reported_and_counted(root, tmp_path, capsys, kind):
    spoil, output = SPOILT[kind]
    data = damaged(root, tmp_path, spoil)
    for number in range(data.num_batches):  # every item of the data set once
        batch = data[number]
        assert batch.images.shape == (1, 2, 3, 42, 56) and batch.cam_from_world.isfinite().all()
    count = data.num_replaced()["spring"]
    told = capsys.readouterr().err
    assert count > 0 and told.count("warning: a bad sample of spring is replaced") == count
    assert output in told and str(tmp_path) in told


def test_depth_that_is_not_finite_is_unknown_and_no_reason_to_replace(root, tmp_path):
    def spoil(folder):
        depth = np.load(folder / "0001/depth/0003.npy")
        depth[:20], depth[20:40], depth[40:] = np.nan, np.inf, -1
        np.save(folder / "0001/depth/0003.npy", depth)

    data = damaged(root, tmp_path, spoil)
    batches = [data[number] for number in range(data.num_batches)]
    assert data.num_replaced() == {"spring": 0}
    assert all(batch.depth.isfinite().all() and (batch.depth >= 0).all() for batch in batches)
    assert any(not batch.valid[0, frame].any() for batch in batches for frame in range(2))


def test_empty_and_short_scenes_give_nothing(root, tmp_path):
    def spoil(folder):
        (folder / "0003/rgb").mkdir(parents=True)
        shutil.rmtree(folder / "0002")
        shutil.copytree(folder / "0001", folder / "0002")
        for path in (folder / "0002/rgb").glob("000[1-9].png"):
            path.unlink()

    data = damaged(root, tmp_path, spoil)
    assert data.datasets["spring"].num_scenes == 1
    assert {sample.scene for number in range(14) for _, sample in data.batch(number)} == {"0001"}


def test_a_data_set_that_cannot_be_read_at_all_ends_the_training_with_its_name(root, tmp_path, capsys):
    data = damaged(root, tmp_path, lambda folder: None)
    shutil.rmtree(tmp_path / "spring")  # a disk that went away
    with pytest.raises(
        DataError, match=rf"spring: {MAX_ATTEMPTS} samples in a row could not be read from .*spring\. Run"
    ):
        data[0]
    capsys.readouterr()


def test_nothing_long_enough_is_an_error(root):
    with pytest.raises(ValueError, match=r"Spring: nothing to train on .* of 2 scenes none has 9 frames"):
        mixture(root, names=("spring",), num_frames=(9, 9), max_images_per_process=9)


def test_missing_data_sets_are_named_with_their_folders(root, tmp_path, capsys):
    names = (*NAMES, "scannet")
    sets = {name: training_set(reader=name, data_root=root) for name in names}
    options = {"datasets": sets, "samples_per_epoch": dict.fromkeys(names, 3)}
    with pytest.raises(FileNotFoundError) as error:
        mixture(root, **options)
    message = str(error.value)
    assert "1 of 4 data sets are missing" in message and "data.on_missing=skip" in message
    assert f"scannet: ScanNet: no folder at {root / 'processed_scannet'}; docs/data.md describes" in message
    data = mixture(root, on_missing="skip", **options)
    assert list(data.datasets) == list(NAMES) and "scannet" not in data.describe()
    assert "warning: training without 1 of 4 data sets" in capsys.readouterr().err
    assert list(
        mixture(root, **{**options, "samples_per_epoch": {**options["samples_per_epoch"], "scannet": 0}}).datasets
    ) == list(NAMES)
    with pytest.raises(FileNotFoundError, match="no data set was found"):
        mixture(tmp_path, on_missing="skip")


def test_without_a_set_to_validate_on_there_is_no_validation(root, capsys):
    sets = {"scannet": training_set(reader="scannet", data_root=root)}
    assert (
        validation_mixture(datasets=sets, samples_per_epoch={"scannet": 4}, resolutions=[(56, 42)], num_frames=(2, 2))
        is None
    )
    assert "warning: no validation" in capsys.readouterr().err


def test_upright_images_give_upright_samples_when_asked_to(tmp_path):
    get_module("spring").write(tmp_path, world_clips(1, 4, 80, 60))
    for match, size in ((True, (42, 56)), (False, (56, 42))):
        data = training_set(reader="spring", data_root=tmp_path, max_views=3, match_orientation=match)
        views = data.sample(0, 3, (56, 42), np.random.default_rng(0)).views
        assert {tuple(view.depth.shape) for view in views} == {(size[1], size[0])}


def test_workers_count_for_the_process_that_asks(root, tmp_path):
    data = damaged(root, tmp_path, lambda folder: cut_off(folder / "0001/rgb/0003.png"))
    loader = torch.utils.data.DataLoader(data, batch_size=None, sampler=range(data.num_batches), num_workers=1)
    assert len(list(loader)) == data.num_batches
    assert data.num_replaced()["spring"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": -14},
        {"size": 10**6},
        {"size": 28.5},
        {"num_frames": (0, 2)},
        {"num_frames": (2.0, 3)},
        {"max_images_per_process": True},
        {"seed": -1},
        {"patch_size": 0},
        {"resolutions": [(56, 0)]},
        {"resolution_weights": [0.0, 0.0]},
        {"resolution_weights": [float("nan"), 1.0]},
    ],
    ids=str,
)
def test_numbers_of_a_mixture_are_checked_by_the_constructor(root, wrong):
    with pytest.raises(ValueError, match=r"expected|must be"):
        mixture(root, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": "large"},
        {"num_frames": (0, 2)},
        {"aspect_ratios": []},
        {"aspect_ratios": [0.0]},
        {"num_tracks": -1},
    ],
    ids=str,
)
def test_numbers_of_the_procedural_world_are_checked_by_the_constructor(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        SyntheticBatches(**wrong)

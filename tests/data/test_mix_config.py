"""The mixture as configured: published shares, sizes and flags."""

from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from procedural_scenes.fixture_clips import world_clips
from streamvggt.datasets import get_module, source_class
from streamvggt.datasets._registry import training_sets

CONFIG = str(Path(__file__).parents[2] / "config")
PUBLISHED = {
    "co3d": 4500,
    "wildrgbd": 4500,
    "arkitscenes": 4500,
    "arkitscenes_highres": 2250,
    "scannetpp": 2250,
    "scannet": 4500,
    "hypersim": 1200,
    "blendedmvs": 2250,
    "megadepth": 2250,
    "waymo": 2250,
    "virtual_kitti2": 2250,
    "omniobject3d": 1800,
    "spring": 1800,
    "mvs_synth": 450,
    "point_odyssey": 2250,
}
RESOLUTIONS = {
    **dict.fromkeys([(518, 392), (518, 336), (518, 294), (518, 266), (518, 210)], 2 / 15),
    **dict.fromkeys([(518, 154), (392, 518), (336, 518), (294, 518), (266, 518)], 1 / 15),
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    clips = world_clips(2, 12, 60, 80)
    for name in training_sets():
        get_module(name).write(folder, clips)
    return folder


def configured(name: str, *overrides: str):
    with initialize_config_dir(CONFIG, version_base=None):
        return instantiate(compose(name, list(overrides)).data, _convert_="all")


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_ten_thousand_draws_have_the_published_shares(data_root, name):
    data = configured(name, f"data_root={data_root}")["train"]
    assert {name: data.samples_per_epoch[name] for name in PUBLISHED} == PUBLISHED and data.num_samples == 39000
    assert (data.batch_size, data.num_frames, data.num_batches) == (1, (10, 10), 39000)
    plan, names = data.plan(0), list(data.datasets)
    drawn = Counter(names[number] for number in plan.datasets[:10_000])
    for name, samples in PUBLISHED.items():
        share = samples / 39000
        deviation = (share * (1 - share) / 10_000) ** 0.5
        assert drawn[name] / 10_000 == pytest.approx(share, abs=4 * deviation), name
    shapes = Counter(data.shape(number)[0] for number in range(10_000))
    assert shapes.keys() == RESOLUTIONS.keys()
    for size, share in RESOLUTIONS.items():
        assert shapes[size] / 10_000 == pytest.approx(share, abs=0.012), size


def test_every_data_set_gives_samples_of_the_drawn_size(data_root):
    settings = [
        "size=56",
        "num_frames=[4,4]",
        "max_images_per_process=4",
        *(f"data.train.samples_per_epoch.{name}=1" for name in PUBLISHED),
    ]
    data = configured("train", f"data_root={data_root}", *settings)["train"]
    seen = set()
    for number in range(data.num_batches):
        (width, height), _ = data.shape(number)
        ((name, sample),) = data.batch(number)
        assert {tuple(view.image.shape) for view in sample.views} == {(3, height, width)}, name
        assert all(view.valid.any() for view in sample.views), name
        seen.add(name)
    assert seen == set(PUBLISHED)
    assert not any(data.num_replaced().values()), data.num_replaced()


def test_published_selection_of_views():
    """Largest interval, shares of videos and of even ones, block of shuffling, metric or not."""

    def facts(name):
        kind = source_class(name)
        clips = getattr(kind.view_sampler, "clips", kind.view_sampler)
        return clips.max_interval, clips.video_prob, clips.fix_interval_prob, clips.block_shuffle, kind.is_metric

    published = {
        "co3d": (25, 0.5, 0.5, None, False),
        "wildrgbd": (25, 0.5, 0.5, None, True),
        "arkitscenes": (8, 0.8, 0.5, 16, True),
        "arkitscenes_highres": (8, 0.5, 0.5, 16, True),
        "scannetpp": (3, 0.8, 0.5, 16, True),
        "scannet": (30, 0.6, 0.6, 16, True),
        "hypersim": (4, 0.5, 0.5, 16, True),
        "waymo": (8, 0.9, 0.9, 16, True),
        "virtual_kitti2": (5, 1.0, 0.9, None, True),
        "spring": (16, 1.0, 1.0, None, True),
        "mvs_synth": (4, 1.0, 1.0, None, False),
        "point_odyssey": (4, 1.0, 1.0, None, True),
    }
    for name, values in published.items():
        assert facts(name) == values, name
    assert facts("omniobject3d")[:2] == (100, 0.0)

"""The images of a training are whole patches of its network, whatever their size is."""

import pytest

from procedural_scenes.__main__ import main
from procedural_scenes.batches import SyntheticBatches
from procedural_scenes.clips import ClipBatches
from streamvggt.training.batches import in_patches


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    main(["render", str(folder / "rooms"), "--scene-type", "rooms", "--clips", "1", "--frames", "2", "--size", "56"])
    return str(folder)


@pytest.mark.parametrize("patch_size", [8, 14, 16])
@pytest.mark.parametrize("aspect", [1.0, 0.5625, 1.5])
def test_synthetic_batches_follow_the_network(rendered, patch_size, aspect):
    world = SyntheticBatches(size=56, aspect_ratios=(aspect,), num_frames=(1, 1), max_images_per_process=1)
    clips = ClipBatches(
        root=rendered, shares={"rooms": 1.0}, num_frames=(2,), max_images_per_process=2, aspect_ratios=(aspect,)
    )
    for data in (world, clips):
        height, width = in_patches(data, patch_size)[0].images.shape[-2:]
        assert height % patch_size == width % patch_size == 0
        assert (height > width) == (aspect > 1) or height == width
        assert max(height, width) >= 56 - patch_size


def test_data_whose_size_is_fixed_stay_as_they_are():
    assert in_patches(None, 8) is None
    given = [1, 2]
    assert in_patches(given, 8) is given

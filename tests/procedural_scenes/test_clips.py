"""Clips rendered once and cut into training batches: a function of the number, and true geometry however varied."""

import shutil

import numpy as np
import pytest
import torch

from procedural_scenes.clips import ClipBatches, mirrored, render_clips
from procedural_scenes.scene import STYLES
from procedural_scenes.world import SyntheticScenes
from streamvggt.folder_lock import FolderLock
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import unproject
from streamvggt.training.matches import find_matches

WORLD = SyntheticScenes("train", 1, STYLES["rooms"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    render_clips(root / "rooms", WORLD, 1, 4, 56)
    return root


def batches(folder, **options) -> ClipBatches:
    return ClipBatches(str(folder), {"rooms": 1.0}, **{"num_frames": (2, 4), "max_images_per_process": 8, **options})


def test_stored_clips_are_those_of_the_world(folder):
    true = WORLD.batch(0, 8, 4, 56, 56)
    stored = {path.stem: np.load(path) for path in (folder / "rooms/00000").iterdir()}
    assert len(stored["images"]) == 64
    np.testing.assert_allclose(stored["images"][:8] / 255, true.images, atol=0.51 / 255)
    depth = torch.from_numpy(stored["depth"][:8]).float()
    assert torch.equal(depth > 0, true.valid)
    torch.testing.assert_close(depth[true.valid], true.depth[true.valid], rtol=6e-4, atol=0)
    np.testing.assert_array_equal(stored["cam_from_world"][:8], true.cam_from_world)


def test_an_interrupted_rendering_continues_and_other_settings_are_rejected(folder):
    before = (folder / "rooms/00000/images.npy").stat().st_mtime_ns
    render_clips(folder / "rooms", WORLD, 1, 4, 56)
    assert (folder / "rooms/00000/images.npy").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="Choose another folder"):
        render_clips(folder / "rooms", WORLD, 1, 8, 56)


def test_two_runs_cannot_render_into_one_folder(tmp_path):
    with FolderLock(tmp_path / "rooms"), pytest.raises(BlockingIOError, match="no other run"):
        render_clips(tmp_path / "rooms", WORLD, 1, 4, 56)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_shard_is_named_with_the_remedy(folder, tmp_path, damage):
    shutil.copytree(folder / "rooms", tmp_path / "rooms")
    depth = tmp_path / "rooms/00000/depth.npy"
    content = depth.read_bytes()
    depth.unlink()
    if damage == "truncated":
        depth.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"00000: expected the arrays .* Delete .*00000 and run again"):
        batches(tmp_path)


def test_a_folder_with_share_zero_is_not_opened(folder):
    two = ClipBatches(str(folder), {"rooms": 1.0, "missing": 0.0}, num_frames=(2,))
    assert torch.equal(two[3].images, batches(folder, num_frames=(2,))[3].images)
    with pytest.raises(ValueError, match="at least one positive share"):
        ClipBatches(str(folder), {"rooms": 0.0})


def test_a_batch_is_a_function_of_its_number(folder):
    one, other = batches(folder), batches(folder)
    in_order = [one[k].images for k in range(6)]
    assert all(torch.equal(other[k].images, in_order[k]) for k in (5, 2, 0))
    assert not torch.equal(batches(folder, seed=1)[0].images, in_order[0])


@pytest.mark.parametrize("aspect", [1.0, 0.75, 1.3333])
def test_cut_varied_and_cropped_the_views_agree(folder, aspect):
    """Most patches are seen in a neighboring view, at the depth that is measured there."""
    seen = []
    for k in range(8):
        batch = batches(folder, aspect_ratios=(aspect,), num_frames=(2,))[k]
        sides = batch.images.shape[-2:]
        assert max(sides) == 56 and min(sides) == (56 if aspect == 1 else 42)
        assert batch.images.min() >= 0 and batch.images.max() <= 1
        seen.append(find_matches(batch, 14).visible[:, 0, 1].float().mean())
    assert torch.stack(seen).mean() > 0.4


def test_mirroring_keeps_the_geometry():
    batch = WORLD.batch(3, 1, 2, 56, 56)
    images, depth, poses = mirrored(batch.images[0], batch.depth[0], batch.cam_from_world[0])
    torch.testing.assert_close(torch.linalg.det(poses[..., :3]), torch.ones(2))
    points = batch.points()[0]
    flipped = unproject(depth, Cameras(poses, batch.intrinsics[0]))
    sign = torch.tensor([-1.0, 1.0, 1.0])
    columns = torch.arange(1, 56)
    # Column c and its mirror W - c lie on either side of the principal point at W/2.
    torch.testing.assert_close(flipped[:, :, columns] * sign, points[:, :, 56 - columns], atol=2e-3, rtol=1e-3)
    assert torch.equal(images[..., columns], batch.images[0][..., 56 - columns])


def test_sequences_grow(folder):
    lengths = {k: batches(folder, length_warmup=100)[k].num_frames for k in range(0, 200, 5)}
    assert all(length == 2 for k, length in lengths.items() if k < 100)
    assert {length for k, length in lengths.items() if k >= 100} == {2, 4}


def test_clips_that_are_missing_or_too_short_are_reported(folder, tmp_path):
    with pytest.raises(ValueError, match=r"at most 4 .* got 8"):
        batches(folder, num_frames=(2, 8))
    with pytest.raises(FileNotFoundError, match=r"procedural_scenes render"):
        batches(tmp_path)

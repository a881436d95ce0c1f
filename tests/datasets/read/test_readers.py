"""Each data set: the procedural world written in its layout and read back is the world again.

A data set is added by one line of CASES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.consistency import agreement
from streamvggt.data.view import View
from streamvggt.datasets import get_module, source_class
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import unproject


@dataclass(frozen=True)
class Case:
    """What a format keeps of the truth.

    name: of the data set.
    depth_step: coarseness of stored depth, in meters; relative for `relative_step`.
    image_error: mean error of the stored colors, of 1: JPEG's; 0.002 for what is stored exactly.
    min_valid: share of the pixels with known depth that are read as such.
    outdoors: under a sky, which the format knows as sky if `has_sky`.
    num_clips: scenes to write.
    split: of the source.
    kept: what the loader rightly makes of a true view, before they are compared.
    """

    name: str
    depth_step: float = 0.0
    relative_step: float = 1e-5
    image_error: float = 0.03
    min_valid: float = 1.0
    outdoors: bool = False
    has_sky: bool = False
    num_clips: int = 2
    num_frames: int = 5
    split: str | None = None
    kept: Callable[[View], View] = lambda view: view


def near_part(view: View) -> View:
    """What MVS-Synth keeps: all but the farthest 2 %."""
    near = view.valid & (view.depth <= view.depth[view.valid].quantile(0.98))
    return replace(view, valid=near, depth=view.depth * near)


CASES = [
    Case("virtual_kitti2", depth_step=0.01, outdoors=True, has_sky=True, num_clips=3),
    Case("co3d", relative_step=2e-4),
    Case("wildrgbd", depth_step=0.001),
    Case("arkitscenes", depth_step=0.001),
    Case("arkitscenes_highres", depth_step=0.001),
    Case("scannetpp", depth_step=0.001),
    Case("scannet", depth_step=0.001),
    Case("blendedmvs"),
    Case("hypersim", image_error=0.002, outdoors=True),
    Case("megadepth", outdoors=True, split="all"),
    Case("omniobject3d", image_error=0.002, num_frames=12),
    Case("point_odyssey", outdoors=True),
    Case("spring", image_error=0.002, outdoors=True),
    Case("mvs_synth", image_error=0.002, outdoors=True, kept=near_part),
    Case("waymo", outdoors=True, min_valid=0.45, num_clips=5),
]

SIZE = (60, 80)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def read_back(request, tmp_path_factory):
    """A case, its source, and the truth and name of every frame written."""
    case = request.param
    out = tmp_path_factory.mktemp(case.name)
    clips = world_clips(case.num_clips, case.num_frames, *SIZE, outdoors=case.outdoors)
    written = get_module(case.name).write(out, clips)
    reader = source_class(case.name)
    source = reader(out / reader.folder, case.split)
    assert len(written) == len(clips)
    return case, source, list(zip(clips, written, strict=True))


def test_scenes_and_frames_are_those_written_in_the_order_of_time(read_back):
    _, source, written = read_back
    assert {place.scene for _, place in written} <= set(source.scenes)
    for clip, place in written:
        assert list(source.frames(place.scene))[: len(clip)] == place.frames


def test_views_are_the_world(read_back):
    case, source, written = read_back
    for clip, place in written:
        for truth, frame in zip(clip, place.frames, strict=True):
            truth, view = case.kept(truth), source.read(place.scene, frame)
            where = f"{place.scene} {frame}"
            assert view.is_metric == source.is_metric
            assert view.image.shape == truth.image.shape and view.image.dtype == torch.float32
            assert (view.image - truth.image).abs().mean() <= case.image_error, where
            torch.testing.assert_close(view.intrinsics, truth.intrinsics, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(view.cam_from_world, truth.cam_from_world, rtol=0, atol=2e-4)
            assert not (view.valid & ~truth.valid).any(), f"{where}: depth where there is none"
            assert (view.depth[~view.valid] == 0).all()
            assert view.valid.sum() >= case.min_valid * truth.valid.sum(), where
            error = (view.depth - truth.depth)[view.valid].abs()
            assert (error <= 0.51 * case.depth_step + case.relative_step * truth.depth[view.valid]).all(), where
            assert torch.equal(view.sky, truth.sky if case.has_sky else torch.zeros_like(truth.sky)), where


def test_views_project_into_each_other(read_back):
    """As much as the truth does: within 0.5 pixels and 1 % of depth; what one view hides never agrees."""
    _, source, written = read_back
    for clip, place in written:
        for one, other in [(0, 1), (len(clip) - 1, 0)]:
            a, b = (source.read(place.scene, place.frames[number]) for number in (one, other))
            # The truth where this format has depth, sparse as it may be.
            true_a, true_b = (
                replace(clip[number], valid=view.valid, depth=clip[number].depth)
                for number, view in ((one, a), (other, b))
            )
            read, true = agreement(a, b), agreement(true_a, true_b)
            assert read.overlap >= true.overlap - 0.02
            assert read.consistent_ratio >= true.consistent_ratio - 0.03


@pytest.mark.parametrize("outdoors", [False, True])
def test_there_is_something_to_agree_on(outdoors):
    """Of the fixture itself: neighbors overlap, and where they do they mostly agree."""
    for clip in world_clips(2, 5, *SIZE, outdoors=outdoors):
        shared = agreement(clip[0], clip[1])
        assert shared.overlap > 0.5 and shared.consistent_ratio > 0.7, shared


def transposed(view: View) -> View:
    pose = torch.cat([view.cam_from_world[:, :3].T, view.cam_from_world[:, 3:]], -1)
    return replace(view, cam_from_world=pose)


def swapped(view: View) -> View:
    return replace(view, cam_from_world=view.cameras.world_from_cam)


def shifted(view: View) -> View:
    return replace(view, intrinsics=view.intrinsics + torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]))


def ray_length(view: View) -> View:
    """Distance along the ray in place of depth."""
    rays = unproject(torch.ones_like(view.depth), Cameras(torch.eye(4)[:3], view.intrinsics)).norm(dim=-1)
    return replace(view, depth=view.depth * rays)


@pytest.mark.parametrize("read_back", [CASES[0], CASES[6]], indirect=True, ids=lambda case: case.name)
@pytest.mark.parametrize("wrong", [transposed, swapped, shifted, ray_length])
def test_wrong_conventions_do_not_pass(read_back, wrong, monkeypatch):
    """The checks above are worth something: they fail for a reader that takes a convention wrongly.

    Outdoors and indoors; the checks are the same for all readers.
    """
    _, source, _ = read_back
    right = source.read
    monkeypatch.setattr(source, "read", lambda scene, frame: wrong(right(scene, frame)))
    with pytest.raises(AssertionError):
        test_views_are_the_world(read_back)
    if wrong is not shifted:  # half a pixel in all views alike moves what they see along with them
        with pytest.raises(AssertionError):
            test_views_project_into_each_other(read_back)

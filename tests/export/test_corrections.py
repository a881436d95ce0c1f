"""Loops that are closed at the end move frames that were written long before."""

import json

import numpy as np
import pytest
import torch
from small_models import images, tiny

from streamvggt import StreamSession
from streamvggt.export import Corrections, ReconstructionResult, ResultWriter, write_corrections
from streamvggt.frame import Frame
from streamvggt.geometry.pointmap import unproject
from streamvggt.geometry.similarity import Sim3

MOVES = [
    Sim3.exp(torch.tensor(numbers, dtype=torch.float64))
    for numbers in ([0.0] * 7, [1.0, 2, 3, 0.5, 0, 0.2, 0.7], [0.0, 1, 0, 0, -0.5, 0, -0.3])
]


@pytest.fixture
def result(tmp_path):
    """A result of five frames."""
    session, writer = StreamSession(tiny()), ResultWriter(tmp_path)
    for number, image in enumerate(images(1, 5)[0]):
        original = np.zeros((28, 42, 3), np.uint8)
        writer.add(Frame(image, number, f"photo_{number}", original, np.eye(3), (0, 0, 28, 42)), session.push(image))
    return tmp_path


def test_each_frame_is_moved_by_the_correction_that_holds_for_it(result):
    before = list(ReconstructionResult(result))
    write_corrections(result, Corrections([0, 1, 3], MOVES))
    corrected = ReconstructionResult(result)
    for old, new, world in zip(before, corrected, [MOVES[0], MOVES[1], MOVES[1], MOVES[2], MOVES[2]], strict=True):
        expected = world.apply(torch.from_numpy(old.world_points("depth")[0]).double().flatten(0, 1))
        np.testing.assert_allclose(new.world_points("depth")[0].reshape(-1, 3), expected.numpy(), atol=1e-4)
        expected = world.apply(torch.from_numpy(old.points).double().flatten(0, 1))
        np.testing.assert_allclose(new.points.reshape(-1, 3), expected.numpy(), atol=1e-4)
        assert new.depth.dtype == old.depth.dtype and new.points.dtype == old.points.dtype
        np.testing.assert_array_equal(new.image, old.image)
    for position, camera in enumerate(corrected.cameras()):
        np.testing.assert_array_equal(camera.cam_from_world, corrected[position].cam_from_world)
    np.testing.assert_array_equal(corrected[-1].cam_from_world, corrected[4].cam_from_world)


def test_the_points_of_a_moved_frame_are_scaled(result):
    before = ReconstructionResult(result)[4].camera_depth("head")
    write_corrections(result, Corrections([0, 3], MOVES[::2]))
    np.testing.assert_allclose(
        ReconstructionResult(result)[4].camera_depth("head"), before * MOVES[2].scale.item(), atol=1e-4
    )
    frame = ReconstructionResult(result)[4]
    seen = unproject(torch.from_numpy(frame.depth).double(), frame.camera)
    np.testing.assert_allclose(frame.world_points("depth")[0], seen.numpy(), atol=1e-5)


def test_a_new_run_in_the_folder_starts_uncorrected(result):
    before = ReconstructionResult(result)[1].cam_from_world
    write_corrections(result, Corrections([0], MOVES[1:2]))
    ResultWriter(result, resume=3)
    assert not (result / "corrections.json").exists()
    np.testing.assert_array_equal(ReconstructionResult(result)[1].cam_from_world, before)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[{}]",
        '[{"first_frame": 0, "scale": "x", "rotation": [], "translation": []}]',
        "7",
        "[" * 100_000,
        '[{"first_frame": 0, "scale": 1, "rotation": [1, 2, 3], "translation": [0, 0, 0]}]',
        '[{"first_frame": "0", "scale": 1, "rotation": [[1,0,0],[0,1,0],[0,0,1]], "translation": [0, 0, 0]}]',
        '[{"first_frame": 3, "scale": 1, "rotation": [[1,0,0],[0,1,0],[0,0,1]], "translation": [0, 0, 0]}]',
        '[{"first_frame": 0, "scale": NaN, "rotation": [[1,0,0],[0,1,0],[0,0,1]], "translation": [0, 0, 0]}]',
    ],
    ids=range(9),
)
def test_damaged_corrections_are_an_error_with_a_fix(result, text):
    (result / "corrections.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"corrections\.json is damaged.*reconstruct"):
        ReconstructionResult(result)


def test_the_file_is_readable(result):
    write_corrections(result, Corrections([0, 1], MOVES[:2]))
    entries = json.loads((result / "corrections.json").read_text(encoding="utf-8"))
    assert [entry["first_frame"] for entry in entries] == [0, 1] and entries[0]["scale"] == 1

"""Outputs equal those of the published STream3R class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import GOLDEN_SIZE, formula_weights, golden_input, with_weights_of

from streamvggt import VGGT, SlidingWindow, StreamVGGT
from streamvggt.prediction import cat

GOLDEN = np.load(Path(__file__).parent.parent / "goldens" / "family" / "stream3r_small.npz")
SIZE = {**GOLDEN_SIZE, "heads": ("camera", "depth", "points")}
NAMES = {
    "pose_enc": "pose_enc",
    "depth": "depth",
    "depth_conf": "depth_conf",
    "points": "world_points",
    "points_conf": "world_points_conf",
}
IMAGES = {"long": golden_input(5, 1, 9, 28, 42)[0], "short": golden_input(0, 1, 4, 56, 84)[0]}
BATCH, SESSION = SlidingWindow(1, 4), SlidingWindow(1, 5)


@pytest.fixture(scope="module")
def model():
    return formula_weights(StreamVGGT(**SIZE))


def check(prediction, run, fields):
    found = prediction.numpy()
    assert {key.split("/")[1] for key in GOLDEN if key.startswith(f"{run}/")} == {NAMES[field] for field in fields}
    for field in fields:
        np.testing.assert_allclose(found[field], GOLDEN[f"{run}/{NAMES[field]}"], atol=1e-4, rtol=0, err_msg=field)


def streamed(model, images, policy, num_together=1):
    memory = model.new_memory(policy)
    return cat([model.step(part, memory=memory) for part in images.split(num_together, 1)])


@torch.no_grad()
def test_causal_and_full_batches(model):
    check(model(IMAGES["short"]), "batch_causal", NAMES)
    check(model(IMAGES["long"]), "long_batch_causal", ("pose_enc", "depth"))
    check(with_weights_of(model, VGGT, **SIZE)(IMAGES["short"]), "batch_full", NAMES)


@pytest.mark.parametrize("num_together", [1, 3])
def test_causal_streams(model, num_together):
    check(streamed(model, IMAGES["short"], None, num_together), "stream_causal", ("pose_enc", "depth"))
    check(streamed(model, IMAGES["long"], None, num_together), "long_stream_causal", ("pose_enc", "depth"))


@pytest.mark.parametrize("num_together", [1, 2, 9])
@pytest.mark.parametrize(("run", "policy"), [("long_batch_window", BATCH), ("long_stream_window", SESSION)])
def test_both_windows_as_policies(model, run, policy, num_together):
    check(streamed(model, IMAGES["long"], policy, num_together), run, NAMES)


@pytest.mark.parametrize(("run", "policy"), [("long_batch_window", BATCH), ("long_stream_window", SESSION)])
def test_both_windows_as_masks(model, run, policy):
    with torch.no_grad():
        check(model(IMAGES["long"], attended_frames=policy.attended_frames(9)), run, NAMES)


def test_windows_of_a_short_stream(model):
    check(streamed(model, IMAGES["short"], BATCH), "batch_window", ("pose_enc",))
    check(streamed(model, IMAGES["short"], SESSION), "stream_window", ("pose_enc",))


def test_frames_of_one_published_call_attend_to_their_whole_chunk(model):
    with torch.no_grad():
        whole_chunks = [[0, 1], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]
        check(model(IMAGES["short"], attended_frames=whole_chunks), "chunk2_causal", ("pose_enc", "depth"))

"""Our outputs are those of the published networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import GOLDEN_SIZE, formula_weights, golden_input, with_weights_of

from streamvggt import VGGT, StreamVGGT
from streamvggt.layers.attention import CausalPattern, full_pattern
from streamvggt.prediction import cat

GOLDENS = Path(__file__).parent.parent / "goldens"
INPUTS = {"model_small": (0, 1, 4, 56, 84), "model_batch": (11, 2, 3, 70, 70)}
FIELDS = {
    "points": ("pts3d_in_other_view", 1e-4),
    "points_conf": ("conf", 1e-4),
    "depth": ("depth", 1e-4),
    "depth_conf": ("depth_conf", 1e-4),
    "pose_enc": ("camera_pose", 1e-4),
    # The tracker's flow embedding turns rounding into tenths of a pixel in four iterations, whoever computes it;
    # its sharp test is the one after two iterations below.
    "tracks": ("track", 0.5),
    "visibility": ("vis", 0.02),
    "track_conf": ("track_conf", 0.04),
}


@pytest.fixture(scope="module")
def vggt():
    return formula_weights(VGGT(**GOLDEN_SIZE))


@pytest.fixture(scope="module")
def stream(vggt):
    return with_weights_of(vggt, StreamVGGT, **GOLDEN_SIZE)


@pytest.fixture(params=["vggt", "stream"])
def network(request):
    return request.param, request.getfixturevalue(request.param)


@pytest.mark.parametrize("file", INPUTS)
def test_whole_sequence(network, file):
    name, model = network
    golden = np.load(GOLDENS / f"{file}.npz")
    images, queries = golden_input(*INPUTS[file])
    with torch.no_grad():
        ours = model(images, query_points=queries).numpy()
    for field, (published, tolerance) in FIELDS.items():
        np.testing.assert_allclose(ours[field], golden[f"{name}/{published}"], atol=tolerance, rtol=0, err_msg=field)


@pytest.mark.parametrize("file", INPUTS)
def test_tokens_of_the_last_layer(network, file):
    name, model = network
    images, _ = golden_input(*INPUTS[file])
    aggregator = model.aggregator
    pattern = CausalPattern(images.shape[1]) if name == "stream" else full_pattern
    with torch.no_grad():
        grid = (images.shape[-2] // 14, images.shape[-1] // 14)
        tokens = aggregator(aggregator.encode_patches(images), grid, patterns=[pattern] * aggregator.depth)
    golden = np.load(GOLDENS / f"{file}.npz")[f"{name}/tokens_last"]
    np.testing.assert_allclose(tokens[aggregator.depth - 1][:, :, :8], golden, atol=1e-4, rtol=0)


def test_frame_by_frame_with_the_published_camera_memory(stream):
    golden = np.load(GOLDENS / "model_small.npz")
    images, _ = golden_input(*INPUTS["model_small"])
    streams = {}
    for camera in ("shared", "per_iteration"):
        memory = stream.new_memory(camera_cache=camera)
        streams[camera] = cat([stream.step(image, memory=memory) for image in images.split(1, 1)]).numpy()
    for field in ("points", "points_conf", "depth", "depth_conf", "pose_enc"):
        published = golden[f"stream_cached/{FIELDS[field][0]}"]
        np.testing.assert_allclose(streams["shared"][field], published, atol=1e-4, rtol=0, err_msg=field)
    np.testing.assert_allclose(streams["per_iteration"]["pose_enc"], golden["stream/camera_pose"], atol=1e-4, rtol=0)


# Query, (x, y) after iteration 1 and 2, visibility and confidence after iteration 2; `vggt`, stream 0, last frame.
TRACKS_SHARPLY = {
    "model_small": [
        (0, (24.6939, 38.8284), (25.9808, 39.3565), 0.87135, 0.76038),
        (1, (3.6059, 16.9891), (4.9502, 17.0614), 0.87726, 0.64909),
        (3, (12.7337, 19.2312), (14.0628, 19.5063), 0.84296, 0.69258),
    ],
    "model_batch": [
        (0, (13.8042, 49.7604), (15.5982, 49.7859), 0.81988, 0.61991),
        (2, (4.8188, 62.1546), (6.7747, 62.6581), 0.78731, 0.66646),
        (3, (59.9789, 6.6927), (59.8721, 9.0943), 0.82505, 0.38118),
    ],
}


@pytest.mark.parametrize("file", INPUTS)
def test_tracker_after_two_iterations(vggt, file):
    model = with_weights_of(vggt, VGGT, **GOLDEN_SIZE, track_iterations=2)
    images, queries = golden_input(*INPUTS[file])
    with torch.no_grad():
        ours = model(images, query_points=queries, heads=("track",))
    for query, first, second, visibility, confidence in TRACKS_SHARPLY[file]:
        for stage, expected in zip(ours.tracks_list, (first, second), strict=True):
            np.testing.assert_allclose(stage[0, -1, query], expected, atol=1e-3, rtol=0)
        assert ours.visibility[0, -1, query].item() == pytest.approx(visibility, abs=1e-4)
        assert ours.track_conf[0, -1, query].item() == pytest.approx(confidence, abs=1e-4)

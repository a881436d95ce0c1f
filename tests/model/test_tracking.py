"""Tracking, whole and streamed."""

import pytest
import torch
from small_models import images, tiny

from streamvggt.model.tracking.correlation import correlate, feature_pyramid

QUERIES = torch.tensor([[[5.0, 7.0], [30.0, 20.0], [41.0, 27.0]]], dtype=torch.float64)


def test_a_streamed_track_is_the_trackers_answer_for_the_last_frame_so_far():
    model, frames = tiny(track_iterations=2), images(1, 5)
    memory = model.new_memory(track_window=8)
    with torch.no_grad():
        for t in range(5):
            streamed = model.step(frames[:, t : t + 1], memory=memory, query_points=QUERIES if t == 0 else None)
            so_far = model(frames[:, : t + 1], query_points=QUERIES)
            assert (streamed.tracks[:, 0] - so_far.tracks[:, -1]).abs().max() < 1e-6
            assert (streamed.visibility[:, 0] - so_far.visibility[:, -1]).abs().max() < 1e-7
    assert (so_far.tracks[:, -1] - QUERIES).abs().max() > 0.1  # not the query itself


def test_a_chunk_is_tracked_as_its_frames_are_one_by_one():
    model, frames = tiny(track_iterations=2), images(1, 4)
    memory, other = model.new_memory(), model.new_memory()
    with torch.no_grad():
        chunk = model.step(frames, memory=memory, query_points=QUERIES)
        single = [
            model.step(f, memory=other, query_points=QUERIES if i == 0 else None)
            for i, f in enumerate(frames.split(1, 1))
        ]
    for t, step in enumerate(single):
        assert (step.tracks[:, 0] - chunk.tracks[:, t]).abs().max() < 1e-6


def test_the_window_is_bounded_and_the_query_frame_stays():
    model, frames = tiny(track_iterations=2), images(1, 7)
    memory = model.new_memory(track_window=2)
    with torch.no_grad():
        for t in range(7):
            last = model.step(frames[:, t : t + 1], memory=memory, query_points=QUERIES if t == 0 else None)
        maps = torch.stack(memory.tracks.maps, 1)
        assert maps.shape[1] == 3
        expected, _, _ = model.track_head.tracker(maps, QUERIES / 2)
        assert (last.tracks[:, 0] - 2 * expected[-1][:, -1]).abs().max() < 1e-9
        first_map = model.step(frames[:, :1], memory=(fresh := model.new_memory()), query_points=QUERIES)
    assert first_map.tracks.shape == (1, 1, 3, 2)
    assert torch.equal(memory.tracks.maps[0], fresh.tracks.maps[0])


def test_a_window_without_the_newest_frame_is_rejected():
    with pytest.raises(ValueError, match="track_window: expected 1 or more frames, got 0"):
        tiny().new_memory(track_window=0)


def test_tracking_may_start_in_a_later_frame_and_start_again():
    model, frames = tiny(track_iterations=2), images(1, 4)
    memory = model.new_memory()
    with torch.no_grad():
        assert model.step(frames[:, :1], memory=memory).tracks is None
        started = model.step(frames[:, 1:2], memory=memory, query_points=QUERIES)
        assert torch.equal(started.tracks[:, 0], QUERIES)
        assert model.step(frames[:, 2:3], memory=memory).tracks.shape == (1, 1, 3, 2)
        again = model.step(frames[:, 3:], memory=memory, query_points=QUERIES[:, :1])
    assert again.tracks.shape == (1, 1, 1, 2)
    assert len(memory.tracks.maps) == 1


def test_the_query_frame_is_pinned():
    with torch.no_grad():
        output = tiny(False)(images(1, 3), query_points=QUERIES)
    assert all(torch.equal(stage[:, 0], QUERIES) for stage in output.tracks_list)


def test_correlation_is_the_product_with_the_map_around_a_point():
    """At whole coordinates no sampling is involved: compare with indexing, and mind the exchanged axes."""
    torch.manual_seed(0)
    maps = torch.randn(1, 2, 6, 9, 11, dtype=torch.float64)
    features = torch.randn(1, 2, 1, 6, dtype=torch.float64)
    x, y, radius = 5, 4, 1
    coords = torch.tensor([x, y], dtype=torch.float64).expand(1, 2, 1, 2)
    ours = correlate(feature_pyramid(maps, 2), features, coords, radius, 2)
    assert ours.shape == (1, 2, 1, 2 * 9)
    for frame in range(2):
        fine = torch.einsum("chw,c->hw", maps[0, frame], features[0, frame, 0]) / 6**0.5
        by_hand = [fine[y + j, x + i] for i in (-1, 0, 1) for j in (-1, 0, 1)]  # x moves slowest
        torch.testing.assert_close(ours[0, frame, 0, :9], torch.stack(by_hand))


def test_beyond_the_map_there_is_nothing():
    maps, features = torch.ones(1, 1, 4, 8, 8), torch.ones(1, 1, 1, 4)
    far = torch.full((1, 1, 1, 2), 100.0)
    assert correlate([maps], features, far, 2, 1).abs().max() == 0


def test_maps_too_small_for_all_levels_are_tracked_with_those_they_have():
    model = tiny(False, track_levels=7)
    with torch.no_grad():
        output = model(images(1, 2), query_points=QUERIES)  # maps of 14×21: 7, 3 and 1 rows, then no more
    assert output.tracks.isfinite().all()
    maps, features = torch.ones(1, 1, 4, 2, 2), torch.ones(1, 1, 1, 4)
    answer = correlate(feature_pyramid(maps, 3), features, torch.zeros(1, 1, 1, 2), 0, 3)
    assert answer.flatten().tolist() == [2, 2, 0]


def test_dense_frames_select_depth_but_no_feature_maps_of_the_tracker():
    """Queries are points of the first frame, also if its depth is not predicted."""
    model, frames = tiny(track_iterations=2), images(1, 4)
    with torch.no_grad():
        whole = model(frames, query_points=QUERIES)
        some = model(frames, query_points=QUERIES, dense_frames=[1, 3])
    for name in ("tracks", "visibility", "track_conf"):
        assert torch.equal(getattr(some, name), getattr(whole, name))
    assert torch.equal(some.depth, whole.depth[:, [1, 3]])
    assert some.num_frames == 4
    with pytest.raises(ValueError, match="select_frames"):
        some.select_frame(0)


@pytest.mark.parametrize("frames", [[], [4], [-1]])
def test_dense_frames_are_frames_of_a_whole_sequence(frames):
    model = tiny()
    with pytest.raises(ValueError, match="dense_frames"):
        model(images(1, 4), dense_frames=frames)

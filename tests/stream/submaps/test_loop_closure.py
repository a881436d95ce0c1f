"""Loop closure removes the drift of a trajectory that returns, and rejects places that only look alike."""

from dataclasses import replace

import pytest
import torch
from analytic_room import look, walk
from small_models import assert_same

from experiments.simulated_model import Errors, SimulatedModel
from procedural_scenes.scene import ROOMS
from procedural_scenes.world import SyntheticScenes
from streamvggt import load_model
from streamvggt.evaluation.pose_metrics import trajectory_errors
from streamvggt.prediction import cat
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, detect_loop, overlap_ratio
from streamvggt.stream.submaps.loop_keyframes import LoopKeyframe, subsample
from streamvggt.stream.submaps.observation import FrameObservation
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.stream.submaps.submap_graph import apply_corrections

SIZE = SubmapOptions(20, 6)
LOOPS = LoopClosureOptions(keyframe_interval=3, min_frame_gap=60)
DRIFT = Errors(rotation_drift_deg=0.15, drift_scale=0.001, translation_drift=0.001, noise=0.01)


@pytest.fixture(scope="module")
def known():
    """A lap and a bit more."""
    return look(walk(150, laps=1.2))


def run(session, frames):
    return cat([session.push(frame) for frame in frames])


def ate(prediction, known) -> float:
    return trajectory_errors(prediction.cameras().cam_from_world[0], known.cam_from_world).ate


@pytest.fixture(scope="module")
def open_walk(known):
    """Drifting, without loops."""
    return run(SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE), known.images)


@pytest.fixture(scope="module")
def closed(known):
    """Drifting, with loops: session and answers."""
    session = SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE, loop_closure=LOOPS)
    output = run(session, known.images)
    session.finish()
    return session, output


def test_a_loop_takes_the_drift_out(known, open_walk, closed):
    session, output = closed
    statistics = session.statistics()
    assert statistics.num_loops >= 1 and statistics.num_restarts == 0
    right = apply_corrections(output, session.corrections())
    assert ate(right, known) < ate(open_walk, known) / 5


def test_predictions_are_in_the_corrected_world_after_a_loop(known, open_walk, closed):
    """Before that they are what they are without loops."""
    session, output = closed
    moved = (output.depth - open_walk.depth).abs().amax((0, 2, 3, 4)) > 0
    first = int(moved.int().argmax())
    assert 100 < first < 150 and moved[first:].all()
    corrections = session.corrections()
    assert first in [correction.first_frame for correction in corrections]
    assert corrections[-1].first_frame >= first


def test_without_loops_nothing_is_kept_and_nothing_moves(known, closed):
    """A walk that does not come back is what it is without `loops`, bit-exactly."""
    away = replace(known, cam_from_world=known.cam_from_world[:110])
    plain = run(SubmapSession(SimulatedModel(away, DRIFT), submaps=SIZE), known.images[:110])
    session = SubmapSession(SimulatedModel(away, DRIFT), submaps=SIZE, loop_closure=LOOPS)
    assert_same(run(session, known.images[:110]), plain, tolerance=0)
    session.finish()
    assert session.statistics().num_loops == 0 and session.corrections() == []


def test_similar_places_without_common_points_are_rejected(known):
    """Every new place looks like the oldest one; those that the camera has left behind are not joined to it."""

    class Fooled(SimulatedModel):
        def _encode(self, images):
            return torch.ones(1, 1, 1, 5) * torch.tensor([1.0, 2, 3, 4, 5 + 1e-3 * self._latest % 0.01])

    loops = replace(LOOPS, min_similarity=-1.0)
    session = SubmapSession(Fooled(known, DRIFT), submaps=SIZE, loop_closure=loops)
    output = run(session, known.images[:110])
    session.finish()
    statistics = session.statistics()
    assert statistics.num_loops == 0 and statistics.num_rejected_loops >= 2 and session.corrections() == []
    assert all("common" in refused.reason for refused in statistics.rejected_loops)
    plain = run(SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE), known.images[:110])
    torch.testing.assert_close(output.pose_enc, plain.pose_enc, rtol=0, atol=0)


def test_a_confused_place_is_rejected_by_its_shape(known):
    """The network itself believes to be back; but what it sees there is not what it saw."""

    class Mistaken(SimulatedModel):
        def _encode(self, images):
            return torch.ones(1, 1, 1, 5) * torch.tensor([1.0, 2, 3, 4, 5 + 1e-3 * self._latest % 0.01])

    errors = replace(DRIFT, aliasing_distance=1.0)
    session = SubmapSession(Mistaken(known, errors), submaps=SIZE, loop_closure=replace(LOOPS, min_similarity=-1.0))
    run(session, known.images[:110])
    session.finish()
    assert session.statistics().num_loops == 0 and session.statistics().num_rejected_loops >= 2


@pytest.mark.parametrize("at", [124, 131, 140])
def test_a_restored_session_closes_the_same_loops(known, closed, tmp_path, at):
    session = SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE, loop_closure=LOOPS)
    run(session, known.images[:at])
    session.save(tmp_path / "state.pt")
    other = SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE, loop_closure=LOOPS)
    other.restore(tmp_path / "state.pt")
    output = run(other, known.images[at:])
    other.finish()
    whole, expected = closed
    assert_same(output, expected.select_frames(slice(at, None)), tolerance=0)
    for ours, theirs in zip(other.corrections(), whole.corrections(), strict=True):
        assert ours.first_frame == theirs.first_frame and torch.equal(ours.world.to_vector(), theirs.world.to_vector())
    assert other.statistics().memory_bytes == whole.statistics().memory_bytes
    with pytest.raises(ValueError, match="submaps"):
        SubmapSession(SimulatedModel(known, DRIFT), submaps=SIZE).restore(tmp_path / "state.pt")


def place(frame: int, submap: int, descriptor: list[float], seed: int = 0) -> LoopKeyframe:
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor([0.0, 0, 1])
    observation = FrameObservation(points, points[:, 2], torch.full((100,), 5.0), torch.eye(4, dtype=torch.float64)[:3])
    features = torch.tensor(descriptor)[None, None, None]
    return LoopKeyframe.create(frame, submap, features, torch.full((3, 14, 14), 0.5), observation)


def test_the_most_similar_earlier_keyframe_is_found():
    looks = {0: [1.0, 0, 0, 0], 10: [0, 1.0, 0, 0], 20: [0, 0, 1.0, 0], 30: [0, 0, 0, 1.0], 100: [0.1, 1.0, 0, 0]}
    places = [place(frame, frame // 10, what) for frame, what in looks.items()]
    loops = LoopClosureOptions(min_frame_gap=50, min_similarity=0.5, num_keyframes=1)
    old, new = detect_loop(places, 10, loops, [])
    assert (old[0].frame, new[0].frame) == (10, 100)
    assert detect_loop(places, 10, replace(loops, min_similarity=0.999), []) is None  # not alike enough
    assert detect_loop(places, 10, replace(loops, min_frame_gap=95), []) is None  # too near in time
    assert detect_loop(places, 10, loops, [(2, 9)]) is None  # neighbors have just been asked about
    assert detect_loop(places, 10, loops, [(3, 9)]) is not None
    assert detect_loop(places, 3, loops, []) is None


def test_the_bundled_network_finds_the_place_where_a_lap_began():
    """With the default threshold. The channels for the dense heads, which look alike everywhere, are left out."""
    aggregator = load_model("tiny").aggregator
    video = SyntheticScenes("test", style=ROOMS).sequence(23, 40, 80, 112, chunk=40, num_laps=1.0, is_dynamic=False)
    with torch.no_grad():
        features = aggregator.patch_features(aggregator.encode_patches(next(iter(video)).images))
    assert features.shape[-1] == 192
    observation = place(0, 0, [1.0]).observation
    image = torch.full((3, 14, 14), 0.5)
    keyframes = [LoopKeyframe.create(5 * t, t, features[:, t : t + 1], image, observation) for t in range(40)]
    loops = LoopClosureOptions(num_keyframes=1)
    old, new = detect_loop(keyframes, 39, loops, [])
    assert old[0].frame == 0 and new[0].frame == 195
    assert detect_loop(keyframes, 30, loops, []) is None


def test_keyframes_are_bounded_and_removed_by_submap():
    places = [place(frame, frame // 5, [1.0]) for frame in range(100)]
    kept = subsample(places, 60)
    assert len(kept) <= 60 and {p.submap for p in kept} >= {0, 19}
    assert all(sum(p.submap == q.submap for q in kept) == 5 for p in kept)
    assert subsample(places, 100) == places
    assert len(subsample(places[:5] + places[-5:], 8)) == 8


def test_a_key_frame_keeps_its_image_nearly():
    image = torch.rand(3, 28, 42, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.linspace(0, 0.8, 42)
    image[2] = 0.1  # little blue
    kept = LoopKeyframe.create(0, 0, torch.ones(1, 1, 4, 3), image, place(0, 0, [1.0]).observation)
    assert (kept.image() - image).abs().mean() < 0.03  # red is still red
    assert kept.num_bytes < 10_000
    again = LoopKeyframe.from_state_dict(kept.state_dict())
    assert torch.equal(again.image(), kept.image()) and torch.equal(again.descriptor, kept.descriptor)


def test_common_points_are_counted_from_both_ends():
    near, far = place(0, 0, [1.0], seed=0).observation, place(0, 0, [1.0], seed=1).observation
    assert overlap_ratio([near], [near]) == 1
    assert overlap_ratio([near], [replace(far, points=far.points + 10)]) == 0
    assert overlap_ratio([near], [near, replace(far, points=far.points + 10)]) == pytest.approx(0.75, abs=0.02)
    assert overlap_ratio([replace(near, points=near.points * torch.nan)], [near]) == 0


def test_bad_numbers_are_rejected():
    with pytest.raises(ValueError, match="at least"):
        LoopClosureOptions(keyframe_interval=0)
    with pytest.raises(ValueError, match="at least"):
        LoopClosureOptions(max_keyframes=5)

"""Submaps are aligned to one world, restarted after failures, and equal a plain session if there is only one."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from analytic_room import look, walk
from small_models import SHALLOW, assert_same, images, tiny

from experiments.simulated_model import Errors, SimulatedModel
from streamvggt import VGGT, KeepAll, SlidingWindow, StreamSession, StreamVGGT
from streamvggt.evaluation.pose_metrics import trajectory_errors
from streamvggt.geometry.alignment import RobustAlignment, align_points
from streamvggt.geometry.pointmap import unproject
from streamvggt.prediction import cat
from streamvggt.stream.submaps import chain
from streamvggt.stream.submaps.chain import SubmapChain
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, LoopVerification
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.stream.submaps.submap_graph import SubmapGraph

SIZE = SubmapOptions(20, 6)
ANYTHING_GOES = FailureDetector(0, *[float("inf")] * 7, 0, float("inf"))


@pytest.fixture(scope="module")
def known():
    return look(walk(120))


def run(session, frames):
    return cat([session.push(frame) for frame in frames])


def ate(prediction, known) -> float:
    return trajectory_errors(prediction.cameras().cam_from_world[0], known.cam_from_world).ate


def test_aligned_submaps_equal_the_ground_truth(known):
    session = SubmapSession(SimulatedModel(known), submaps=SIZE)
    output = run(session, known.images)
    statistics = session.statistics()
    assert statistics.num_submaps == 9 and statistics.num_restarts == statistics.num_pose_alignments == 0
    assert ate(output, known) < 1e-4
    points = unproject(output.depth[0, ..., 0], output.map(lambda tensor: tensor[0]).cameras()).flatten(0, 2)
    true = torch.stack([SimulatedModel(known).points(frame) for frame in range(120)]).flatten(0, 2)
    fitted = align_points(points, true).apply(points)
    assert (fitted - true).norm(dim=-1).max() < 1e-3
    alone = run(StreamSession(SimulatedModel(known)), known.images[:20])
    assert_same(output.select_frames(slice(0, 20)), alone, tolerance=0)


def test_submaps_without_alignment_are_far_off(known, monkeypatch):
    monkeypatch.setattr(
        SubmapChain, "activate", lambda self, submap, *_: vars(self.state).update(active=submap, pending=None)
    )
    assert ate(run(SubmapSession(SimulatedModel(known), submaps=SIZE), known.images), known) > 0.5


def test_noise_and_wrong_points_hardly_matter(known, monkeypatch):
    """A quarter is wrong in each window, so of common points four in ten and more."""
    errors = Errors(noise=0.03, outlier_ratio=0.25, wrong_factor=2)
    session = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    robust = ate(run(session, known.images), known)
    statistics = session.statistics()
    assert statistics.num_restarts == 0 and statistics.last_alignment.inlier_ratio == pytest.approx(0.56, abs=0.1)

    def least_squares(source, target, weight, tolerance):
        found = align_points(source, target, weight / tolerance.square(), symmetric=True)
        return RobustAlignment(found, (found.apply(source) - target).norm(dim=-1) / tolerance, weight)

    monkeypatch.setattr("streamvggt.stream.submaps.submap_alignment.align_points_robust", least_squares)
    plain = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    assert robust < 0.03 < ate(run(plain, known.images), known)
    assert plain.statistics().num_pose_alignments == plain.statistics().num_submaps - 1  # hardly a point agrees


def test_confidence_selects_the_correct_points(known):
    """Where most are wrong, only their confidence helps."""
    errors = Errors(outlier_ratio=0.8, wrong_factor=2)
    unsure = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    sure = SubmapSession(SimulatedModel(known, replace(errors, informative_confidence=True)), submaps=SIZE)
    assert ate(run(sure, known.images), known) < 0.04 < ate(run(unsure, known.images), known)
    assert sure.statistics().num_pose_alignments == 0 and sure.statistics().last_alignment.residual < 0.001
    assert unsure.statistics().num_pose_alignments == unsure.statistics().num_submaps - 1


def test_one_submap_equals_a_plain_session_bit_exactly():
    model, frames = tiny(), images(1, 6)
    for policy in (KeepAll(), SlidingWindow(1, 2)):
        plain = StreamSession(model, policy=policy, heads=("camera", "depth", "points"))
        windowed = SubmapSession(model, policy=policy, submaps=SubmapOptions(12, 6))
        assert_same(run(windowed, frames[0]), run(plain, frames[0]), tolerance=0)
        assert windowed.statistics().num_submaps == 1


def test_each_submap_equals_a_stream_of_its_own():
    """Up to the world: confidences do not know of it."""
    model, frames = tiny(), images(1, 10)[0]
    output = run(SubmapSession(model, submaps=SubmapOptions(4, 2), detector=ANYTHING_GOES), frames)
    starts = {0: range(0, 4), 2: range(4, 6), 4: range(6, 8), 6: range(8, 10)}
    for start, answered in starts.items():
        alone = run(StreamSession(model), frames[start : answered[-1] + 1])
        mine = alone.select_frames(slice(answered[0] - start, None))
        theirs = output.select_frames(slice(answered[0], answered[-1] + 1))
        torch.testing.assert_close(theirs.depth_conf, mine.depth_conf)
        ratio = theirs.depth / mine.depth
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_int8_kv_cache(tmp_path):
    model, frames = tiny(), images(1, 6)[0]
    plain, small = (
        SubmapSession(model, submaps=SubmapOptions(4, 2), detector=ANYTHING_GOES, kv_cache_dtype=storage)
        for storage in ("auto", "int8")
    )
    difference = (run(small, frames).depth_conf - run(plain, frames).depth_conf).abs().max()
    assert 0 < difference < 0.5 and small.num_bytes < plain.num_bytes
    small.save(tmp_path / "small.pt")
    with pytest.raises(ValueError, match="int8"):
        plain.restore(tmp_path / "small.pt")


def test_the_encoder_runs_once_per_frame(known):
    simulated = SimulatedModel(known)
    run(SubmapSession(simulated, submaps=SIZE), known.images[:60])
    assert simulated.num_encoded == 60


@pytest.mark.parametrize(
    ("at", "errors"),
    [
        *((at, Errors(noise=0.02, rotation_drift_deg=0.1)) for at in (5, 16, 19, 21)),
        (20, Errors(failure_frame=18, failure_mode="jump")),
    ],
)
def test_a_restored_session_continues_bit_exactly(known, tmp_path, at, errors):
    frames = known.images[:40]
    session = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    run(session, frames[:at])
    session.save(tmp_path / "state.pt")
    expected = run(session, frames[at:])
    other = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    other.restore(tmp_path / "state.pt")
    assert other.num_frames == at
    assert_same(run(other, frames[at:]), expected, tolerance=0)
    mine, theirs = other.statistics(), session.statistics()
    for name in ("num_frames", "num_submaps", "num_restarts", "restarts", "memory_bytes", "num_false_failures"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert torch.equal(mine.last_alignment.old_from_new.to_vector(), theirs.last_alignment.old_from_new.to_vector())


@pytest.mark.parametrize(
    ("collapse", "reason"),
    [("jump", "camera jumps"), ("nan", "not finite"), ("confidence", "confidence falls"), ("scale", "depth jumps")],
)
@pytest.mark.parametrize("at", [34, 45], ids=["during an overlap", "between overlaps"])
def test_a_failed_submap_is_restarted_at_once(known, collapse, reason, at):
    errors = Errors(noise=0.01, failure_frame=at, failure_mode=collapse)
    known = look(known.cam_from_world[:64])
    session = SubmapSession(SimulatedModel(known, errors), submaps=SIZE)
    output = run(session, known.images)
    statistics = session.statistics()
    assert [restart.frame for restart in statistics.restarts] == [at]
    assert reason in statistics.restarts[0].reason
    assert statistics.num_pose_alignments == 0
    assert ate(output, known) < 0.02
    plain = run(StreamSession(SimulatedModel(known, errors)), known.images)
    assert collapse in ("confidence", "scale") or not ate(plain, known) < 0.5


def test_an_invalid_frame_does_not_restart_a_valid_submap(known):
    """A fresh window says the same of it, so the old one is not to blame."""

    class Dark(SimulatedModel):
        def _answer(self, frame, *rest):
            output = super()._answer(frame, *rest)
            return replace(output, depth_conf=1 + (output.depth_conf - 1) / 1000) if 50 <= frame < 53 else output

    session = SubmapSession(Dark(known), submaps=SIZE)
    assert ate(run(session, known.images), known) < 1e-4
    assert session.statistics().num_restarts == 0 and session.statistics().num_false_failures == 1


def test_a_pending_submap_that_cannot_be_aligned_is_restarted(known):
    class Odd(SimulatedModel):
        """Sees nothing right in the stream that starts at frame 28."""

        def _answer(self, frame, pose, depth, memory):
            output = super()._answer(frame, pose, depth, memory)
            if memory.first != 28:
                return output
            random = torch.rand(output.depth.shape, generator=torch.Generator().manual_seed(frame), dtype=torch.float64)
            return replace(output, depth=0.1 + 10 * random)

    session = SubmapSession(Odd(known), submaps=SIZE)
    assert ate(run(session, known.images), known) < 1e-3
    statistics = session.statistics()
    assert [restart.frame for restart in statistics.restarts] == [33] and statistics.num_pose_alignments == 0
    assert "points" in statistics.restarts[0].reason


def test_submaps_that_cannot_be_aligned_by_points_are_aligned_by_pose(known):
    class Blind(SimulatedModel):
        def _answer(self, frame, pose, depth, memory):
            output = super()._answer(frame, pose, depth, memory)
            random = torch.rand(
                output.depth.shape, generator=torch.Generator().manual_seed(memory.first + frame), dtype=torch.float64
            )
            return replace(output, depth=0.1 + 10 * random)

    session = SubmapSession(Blind(known), submaps=SIZE)
    output = run(session, known.images[:60])
    statistics = session.statistics()
    assert statistics.num_pose_alignments == statistics.num_submaps - 1 > 0 and statistics.num_restarts == 2 * 2
    steps = output.cameras().world_from_cam[0, :, :, 3].diff(dim=0).norm(dim=-1)
    assert steps.max() < 40 * steps.median()  # other scales, but no jumps


def test_submaps_without_points_are_aligned_by_pose(known):
    """Camera centers give the scale."""

    class CamerasOnly(SimulatedModel):
        def _answer(self, *rest):
            return replace(super()._answer(*rest), depth=None, depth_conf=None)

    session = SubmapSession(CamerasOnly(known), submaps=SIZE)
    assert ate(run(session, known.images), known) < 1e-4
    assert session.statistics().num_pose_alignments == 8


def test_memory_does_not_grow(known):
    session = SubmapSession(SimulatedModel(known), submaps=SIZE)
    sizes = []
    for frame in known.images:
        session.push(frame)
        sizes.append(session.statistics().memory_bytes)
    assert max(sizes[60:]) <= max(sizes[20:60])


PARTS = [
    (VGGT, "step"),
    (chain, "align_submaps"),
    (SubmapChain, "activate"),
    (SubmapChain, "detect_loop"),
    (SubmapGraph, "add_submap"),
    (LoopVerification, "step"),
    (LoopVerification, "verify"),
]


@pytest.fixture(scope="module")
def short_walk():
    """A session with loops, its frames, and what it answers if nothing fails: the predictions and the last state."""
    model = tiny(heads=("camera", "depth"), **SHALLOW)
    loops = LoopClosureOptions(1, 3, min_similarity=-1.0, num_keyframes=1, min_overlap=0.0)
    start = partial(SubmapSession, model, submaps=SubmapOptions(4, 2), loop_closure=loops)
    frames, session = images(1, 14, 14, 28)[0], start()
    predictions = [session.push(frame) for frame in frames]
    session.finish()
    return start, frames, predictions, session._chain.state.state_dict()


@pytest.mark.parametrize("place, name", PARTS, ids=[name for _, name in PARTS])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_a_failed_push_changes_nothing(place, name, after, monkeypatch, short_walk):
    """Wherever it fails, before or after that part has done its work: pushed again, all goes on bit-exactly."""
    start, frames, predictions, state = short_walk
    session, part, num_failures = start(), getattr(place, name), 0
    for frame, expected in zip((*frames, None), (*predictions, None), strict=True):
        for call in itertools.count():
            calls = itertools.count()

            def failing(*args, calls=calls, call=call, **more):
                fails = next(calls) == call
                output = part(*args, **more) if after or not fails else None
                if fails:
                    raise MemoryError
                return output

            with monkeypatch.context() as patch:
                patch.setattr(place, name, failing)
                try:
                    output = session.finish() if frame is None else session.push(frame)
                except MemoryError:
                    num_failures += 1
                    continue
            break
        if frame is not None:
            assert_same(output, expected, tolerance=0)
    assert num_failures
    assert_equal(session._chain.state.state_dict(), state)


def assert_equal(a, b) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            assert_equal(*pair)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_invalid_arguments(tmp_path):
    for text in ("60", "60,x", "60,31", "60,0"):
        with pytest.raises(ValueError, match="expected"):
            SubmapOptions.parse(text)
    assert SubmapOptions.parse("60,30") == SubmapOptions(60, 30)
    model = tiny()
    with pytest.raises(ValueError, match="Add camera"):
        SubmapSession(model, heads=("depth",))
    session = SubmapSession(model, submaps=SubmapOptions(4, 2))
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        session.push(images(2, 1)[:, 0])
    session.push(images(1, 1)[0, 0])
    session.save(tmp_path / "windowed.pt")
    StreamSession(model).save(tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="submaps"):
        StreamSession(model).restore(tmp_path / "windowed.pt")
    with pytest.raises(ValueError, match="submaps none"):
        session.restore(tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="length=4"):
        SubmapSession(model, submaps=SubmapOptions(6, 2)).restore(tmp_path / "windowed.pt")
    assert isinstance(model, StreamVGGT)

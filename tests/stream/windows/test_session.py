"""Windows are stitched into the world that there is, healed where they break, and are nothing where there is one."""

import itertools
from dataclasses import replace

import pytest
import torch
from networks import assert_same, images, tiny
from room import look, walk

from experiments.simulated_model import Errors, Oracle
from streamvggt import VGGT, KeepAll, StreamSession, StreamVGGT, Window
from streamvggt.evaluation.pose_metrics import trajectory_errors
from streamvggt.geometry.alignment import RobustAlignment, align_points
from streamvggt.geometry.pointmap import unproject
from streamvggt.prediction import concatenate
from streamvggt.stream.windows import session as windowed
from streamvggt.stream.windows.graph import WindowGraph
from streamvggt.stream.windows.health import Health
from streamvggt.stream.windows.loops import Closing, Loops
from streamvggt.stream.windows.session import WindowedSession
from streamvggt.stream.windows.size import WindowSize

SIZE = WindowSize(20, 6)
ANYTHING_GOES = Health(0, *[float("inf")] * 7, 0, float("inf"))


@pytest.fixture(scope="module")
def known():
    return look(walk(120))


def run(session, frames):
    return concatenate([session.push(frame) for frame in frames])


def ate(prediction, known) -> float:
    return trajectory_errors(prediction.cameras().cam_from_world[0], known.cam_from_world).ate


def test_stitched_windows_are_the_truth_though_each_has_its_own_world(known):
    session = WindowedSession(Oracle(known), size=SIZE)
    said = run(session, known.images)
    statistics = session.statistics()
    assert statistics.num_windows == 9 and statistics.num_restarts == statistics.num_by_pose == 0
    assert ate(said, known) < 1e-4
    points = unproject(said.depth[0, ..., 0], said.map(lambda tensor: tensor[0]).cameras()).flatten(0, 2)
    true = torch.stack([Oracle(known).points(frame) for frame in range(120)]).flatten(0, 2)
    fitted = align_points(points, true).apply(points)
    assert (fitted - true).norm(dim=-1).max() < 1e-3
    alone = run(StreamSession(Oracle(known)), known.images[:20])
    assert_same(said.frames(slice(0, 20)), alone, tolerance=0)


def test_without_stitching_the_windows_would_be_apart(known, monkeypatch):
    monkeypatch.setattr(
        WindowedSession, "_take_over", lambda self, window, *_: vars(self).update(_window=window, _newcomer=None)
    )
    assert ate(run(WindowedSession(Oracle(known), size=SIZE), known.images), known) > 0.5


def test_noise_and_wrong_points_hardly_matter(known, monkeypatch):
    """A quarter is wrong in each window, so of common points four in ten and more."""
    errors = Errors(noise=0.03, wrong_share=0.25, wrong_factor=2)
    session = WindowedSession(Oracle(known, errors), size=SIZE)
    robust = ate(run(session, known.images), known)
    statistics = session.statistics()
    assert statistics.num_restarts == 0 and statistics.joint.inlier_share == pytest.approx(0.56, abs=0.1)

    def least_squares(source, target, weight, tolerance):
        found = align_points(source, target, weight / tolerance.square(), symmetric=True)
        return RobustAlignment(found, (found.apply(source) - target).norm(dim=-1) / tolerance, weight)

    monkeypatch.setattr("streamvggt.stream.windows.joint.align_robustly", least_squares)
    plain = WindowedSession(Oracle(known, errors), size=SIZE)
    assert robust < 0.03 < ate(run(plain, known.images), known)
    assert plain.statistics().num_by_pose == plain.statistics().num_windows - 1  # hardly a point agrees


def test_confidence_says_which_points_are_right(known):
    """Where most are wrong, only their confidence helps."""
    errors = Errors(wrong_share=0.8, wrong_factor=2)
    unsure = WindowedSession(Oracle(known, errors), size=SIZE)
    sure = WindowedSession(Oracle(known, replace(errors, confidence_tells=True)), size=SIZE)
    assert ate(run(sure, known.images), known) < 0.04 < ate(run(unsure, known.images), known)
    assert sure.statistics().num_by_pose == 0 and sure.statistics().joint.residual < 0.001
    assert unsure.statistics().num_by_pose == unsure.statistics().num_windows - 1


def test_a_window_longer_than_the_stream_is_a_plain_session_to_the_bit():
    model, frames = tiny(), images(1, 6)
    for policy in (KeepAll(), Window(1, 2)):
        plain = StreamSession(model, policy=policy, heads=("camera", "depth", "points"))
        windowed = WindowedSession(model, policy=policy, size=WindowSize(12, 6))
        assert_same(run(windowed, frames[0]), run(plain, frames[0]), tolerance=0)
        assert windowed.statistics().num_windows == 1


def test_windows_of_a_real_network_answer_like_streams_of_their_own():
    """Up to the world: confidences do not know of it."""
    model, frames = tiny(), images(1, 10)[0]
    said = run(WindowedSession(model, size=WindowSize(4, 2), health=ANYTHING_GOES), frames)
    starts = {0: range(0, 4), 2: range(4, 6), 4: range(6, 8), 6: range(8, 10)}
    for start, answered in starts.items():
        alone = run(StreamSession(model), frames[start : answered[-1] + 1])
        mine = alone.frames(slice(answered[0] - start, None))
        theirs = said.frames(slice(answered[0], answered[-1] + 1))
        torch.testing.assert_close(theirs.depth_conf, mine.depth_conf)
        ratio = theirs.depth / mine.depth
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_windows_may_be_stored_in_a_byte_each(tmp_path):
    model, frames = tiny(), images(1, 6)[0]
    plain, small = (
        WindowedSession(model, size=WindowSize(4, 2), health=ANYTHING_GOES, storage=storage)
        for storage in ("plain", "int8")
    )
    difference = (run(small, frames).depth_conf - run(plain, frames).depth_conf).abs().max()
    assert 0 < difference < 0.5 and small.num_bytes < plain.num_bytes
    small.save(tmp_path / "small.pt")
    with pytest.raises(ValueError, match="int8"):
        plain.restore(tmp_path / "small.pt")


def test_the_encoder_is_asked_once_per_frame(known):
    oracle = Oracle(known)
    run(WindowedSession(oracle, size=SIZE), known.images[:60])
    assert oracle.num_encoded == 60


@pytest.mark.parametrize(
    ("at", "errors"),
    [
        *((at, Errors(noise=0.02, drift_turn=0.1)) for at in (5, 16, 19, 21)),
        (20, Errors(collapse_at=18, collapse="jump")),
    ],
)
def test_a_restored_session_goes_on_to_the_bit(known, tmp_path, at, errors):
    frames = known.images[:40]
    session = WindowedSession(Oracle(known, errors), size=SIZE)
    run(session, frames[:at])
    session.save(tmp_path / "state.pt")
    expected = run(session, frames[at:])
    other = WindowedSession(Oracle(known, errors), size=SIZE)
    other.restore(tmp_path / "state.pt")
    assert other.num_frames == at
    assert_same(run(other, frames[at:]), expected, tolerance=0)
    mine, theirs = other.statistics(), session.statistics()
    for name in ("frames_seen", "num_windows", "num_restarts", "restarts", "memory_bytes", "num_false_alarms"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert torch.equal(mine.joint.old_from_new.flat(), theirs.joint.old_from_new.flat())


@pytest.mark.parametrize(
    ("collapse", "reason"),
    [("jump", "camera jumps"), ("nan", "not finite"), ("confidence", "confidence falls"), ("scale", "depth jumps")],
)
@pytest.mark.parametrize("at", [34, 45], ids=["during an overlap", "between overlaps"])
def test_a_collapsed_window_is_begun_again_at_once(known, collapse, reason, at):
    errors = Errors(noise=0.01, collapse_at=at, collapse=collapse)
    known = look(known.cam_from_world[:64])
    session = WindowedSession(Oracle(known, errors), size=SIZE)
    said = run(session, known.images)
    statistics = session.statistics()
    assert [restart.frame for restart in statistics.restarts] == [at]
    assert reason in statistics.restarts[0].reason
    assert statistics.num_by_pose == 0
    assert ate(said, known) < 0.02
    plain = run(StreamSession(Oracle(known, errors)), known.images)
    assert collapse in ("confidence", "scale") or not ate(plain, known) < 0.5


def test_a_frame_that_is_itself_sick_restarts_nothing(known):
    """A fresh window says the same of it, so the old one is not to blame."""

    class Dark(Oracle):
        def _answer(self, frame, *rest):
            said = super()._answer(frame, *rest)
            return replace(said, depth_conf=1 + (said.depth_conf - 1) / 1000) if 50 <= frame < 53 else said

    session = WindowedSession(Dark(known), size=SIZE)
    assert ate(run(session, known.images), known) < 1e-4
    assert session.statistics().num_restarts == 0 and session.statistics().num_false_alarms == 1


def test_a_newcomer_that_does_not_fit_is_begun_again_while_the_old_one_answers(known):
    class Odd(Oracle):
        """Sees nothing right in the stream that starts at frame 28."""

        def _answer(self, frame, pose, depth, memory):
            said = super()._answer(frame, pose, depth, memory)
            if memory.first != 28:
                return said
            random = torch.rand(said.depth.shape, generator=torch.Generator().manual_seed(frame), dtype=torch.float64)
            return replace(said, depth=0.1 + 10 * random)

    session = WindowedSession(Odd(known), size=SIZE)
    assert ate(run(session, known.images), known) < 1e-3
    statistics = session.statistics()
    assert [restart.frame for restart in statistics.restarts] == [33] and statistics.num_by_pose == 0
    assert "points" in statistics.restarts[0].reason


def test_windows_that_never_fit_are_joined_by_a_camera_and_counted(known):
    class Blind(Oracle):
        def _answer(self, frame, pose, depth, memory):
            said = super()._answer(frame, pose, depth, memory)
            random = torch.rand(
                said.depth.shape, generator=torch.Generator().manual_seed(memory.first + frame), dtype=torch.float64
            )
            return replace(said, depth=0.1 + 10 * random)

    session = WindowedSession(Blind(known), size=SIZE)
    said = run(session, known.images[:60])
    statistics = session.statistics()
    assert statistics.num_by_pose == statistics.num_windows - 1 > 0 and statistics.num_restarts == 2 * 2
    steps = said.cameras().world_from_cam[0, :, :, 3].diff(dim=0).norm(dim=-1)
    assert steps.max() < 40 * steps.median()  # other scales, but no jumps


def test_without_points_windows_are_joined_by_their_cameras(known):
    """Camera centres give the scale."""

    class CamerasOnly(Oracle):
        def _answer(self, *rest):
            return replace(super()._answer(*rest), depth=None, depth_conf=None)

    session = WindowedSession(CamerasOnly(known), size=SIZE)
    assert ate(run(session, known.images), known) < 1e-4
    assert session.statistics().num_by_pose == 8


def test_memory_does_not_grow(known):
    session = WindowedSession(Oracle(known), size=SIZE)
    sizes = []
    for frame in known.images:
        session.push(frame)
        sizes.append(session.statistics().memory_bytes)
    assert max(sizes[60:]) <= max(sizes[20:60])


PARTS = [
    (VGGT, "forward"),
    (windowed, "join"),
    (WindowedSession, "_take_over"),
    (WindowedSession, "_seek"),
    (WindowGraph, "add"),
    (Closing, "step"),
    (Closing, "judge"),
]


@pytest.mark.parametrize("place, name", PARTS, ids=[name for _, name in PARTS])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_a_failed_frame_has_never_been(place, name, after, monkeypatch):
    """Wherever it fails, before or after that part has done its work: pushed again, all goes on to the bit."""
    model, frames = tiny(heads=("camera", "depth")), images(1, 14, 14, 28)[0]
    loops = Loops(every=1, gap=3, alike=-1.0, around=1, agree=0.0)
    sessions = [WindowedSession(model, size=WindowSize(4, 2), loops=loops) for _ in range(2)]
    part, num_failures = getattr(place, name), 0
    for frame in (*frames, None):
        expected = sessions[0].finish() if frame is None else sessions[0].push(frame)
        for call in itertools.count():
            calls = itertools.count()

            def failing(*args, calls=calls, call=call, **more):
                fails = next(calls) == call
                said = part(*args, **more) if after or not fails else None
                if fails:
                    raise MemoryError
                return said

            with monkeypatch.context() as patch:
                patch.setattr(place, name, failing)
                try:
                    said = sessions[1].finish() if frame is None else sessions[1].push(frame)
                except MemoryError:
                    num_failures += 1
                    continue
            break
        if frame is not None:
            assert_same(said, expected, tolerance=0)
    assert num_failures
    assert_equal(sessions[1]._state(), sessions[0]._state())


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


def test_what_cannot_be_done_is_refused_at_the_door(tmp_path):
    for text in ("60", "60,x", "60,31", "60,0"):
        with pytest.raises(ValueError, match="expected"):
            WindowSize.parse(text)
    assert WindowSize.parse("60,30") == WindowSize(60, 30)
    model = tiny()
    with pytest.raises(ValueError, match="add camera"):
        WindowedSession(model, heads=("depth",))
    session = WindowedSession(model, size=WindowSize(4, 2))
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        session.push(images(2, 1)[:, 0])
    session.push(images(1, 1)[0, 0])
    session.save(tmp_path / "windowed.pt")
    StreamSession(model).save(tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="windows"):
        StreamSession(model).restore(tmp_path / "windowed.pt")
    with pytest.raises(ValueError, match="windows none"):
        session.restore(tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="length=4"):
        WindowedSession(model, size=WindowSize(6, 2)).restore(tmp_path / "windowed.pt")
    assert isinstance(model, StreamVGGT)

"""A step with constant shapes is the step: to the bit as it stands, to rounding compiled."""

from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from networks import assert_same, images, tiny
from torch._inductor import compile_fx

from streamvggt import FrameBlocks, KeepAll, KeyDiversity, KeyFrames, MotionKeyFrames, StreamSession, Window
from streamvggt.stream import steady

HEADS = ("camera", "depth", "points")
SERVED = [Window(1, 2), Window(0, 1, 2), KeyFrames(2, 3), MotionKeyFrames(4.0, 3, 3), FrameBlocks(3, 1)]


@pytest.fixture(scope="module")
def model():
    return tiny(heads=HEADS)


@pytest.fixture
def recorded(monkeypatch):
    """In place of a recording, which takes a GPU or a compiler, the step itself; and how often it was asked for."""
    asked = []

    def keep(step):
        asked.append(step)
        return step

    monkeypatch.setitem(steady.PREPARE, "compiled", keep)
    return asked


def pushed(session, frames):
    return [session.push(frame) for frame in frames]


@pytest.mark.parametrize("storage", ["plain", "int8"])
@pytest.mark.parametrize("policy", SERVED, ids=repr)
def test_it_is_the_eager_step_to_the_bit(model, policy, storage, recorded):
    frames = images(2, 14, 14, 28).unbind(1)
    eager = StreamSession(model, policy=policy, storage=storage)
    session = StreamSession(model, policy=policy, storage=storage, step="compiled")
    for number, frame in enumerate(frames):
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
        assert session.memory.held == eager.memory.held, number
    assert len(recorded) == 1
    assert session.num_bytes == eager.num_bytes


def test_no_shape_and_no_address_changes_once_the_memory_is_full(model, recorded):
    session = StreamSession(model, policy=Window(1, 2), step="compiled")
    frames = images(1, 10, 14, 28)[0]
    pushed(session, frames[:5])
    places = [cache.planes()[0][0].data_ptr() for cache in session.memory.layers]
    assert len(recorded) == 1
    pushed(session, frames[5:])
    assert [cache.planes()[0][0].data_ptr() for cache in session.memory.layers] == places
    assert len(recorded) == 1


def test_saved_restored_reset_and_of_another_size_it_goes_on(model, recorded, tmp_path):
    policy = Window(1, 2)
    frames, others = images(1, 12, 14, 28)[0], images(1, 6, 28, 14)[0]
    session, eager = StreamSession(model, policy=policy, step="compiled"), StreamSession(model, policy=policy)
    for one in (session, eager):
        pushed(one, frames[:8])
    session.save(tmp_path / "state.pt")
    expected = pushed(eager, frames[8:])
    for ours, theirs in zip(pushed(session, frames[8:]), expected, strict=True):
        assert_same(ours, theirs, tolerance=0)
    session.restore(tmp_path / "state.pt")
    for ours, theirs in zip(pushed(session, frames[8:]), expected, strict=True):
        assert_same(ours, theirs, tolerance=0)
    for one in (session, eager):
        one.reset()
    for frame in others:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
    with pytest.raises(ValueError, match="the stream began with 28×14"):
        session.push(frames[0])


def test_a_step_that_failed_can_be_made_again(model, recorded, monkeypatch):
    policy = Window(1, 1)
    frames = images(1, 7, 14, 28)[0]
    session, eager = StreamSession(model, policy=policy, step="compiled"), StreamSession(model, policy=policy)
    for frame in frames[:5]:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
    with monkeypatch.context() as patch:
        patch.setattr(model.depth_head, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.push(frames[5])
    for frame in frames[5:]:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)


def test_what_it_cannot_serve_is_said(model, recorded):
    for policy in (KeepAll(), KeyDiversity(3)):
        with pytest.raises(ValueError, match="needs a memory of whole frames that becomes full"):
            StreamSession(model, policy=policy, step="compiled")
    with pytest.raises(ValueError, match="unknown; choose one of eager, graph, compiled"):
        StreamSession(model, policy=Window(1, 2), step="fast")
    with pytest.raises(ValueError, match="the model is on cpu: choose eager or compiled"):
        StreamSession(model, policy=Window(1, 2), step="graph")
    with pytest.raises(ValueError, match="camera='exact' alone"):
        StreamSession(model, policy=Window(1, 2), step="compiled", camera="released")
    with pytest.raises(ValueError, match="cannot follow points"):
        StreamSession(model, policy=Window(1, 2), step="compiled").push(
            images(1, 1)[0, 0], query_points=torch.zeros(1, 2)
        )


def test_compiled_it_is_the_eager_step_to_rounding(monkeypatch):
    """Traced and made functional as for a compiler, whose own work (minutes) is left to benchmarks/step.py."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    few = {"depth": 1, "dpt_layers": (0,) * 4, "encoder_depth": 1, "camera_trunk_depth": 1, "camera_iterations": 1}
    session = StreamSession(
        tiny(heads=("camera", "depth"), **few), policy=Window(1, 1), storage="int8", step="compiled"
    )
    eager = StreamSession(session.model, policy=Window(1, 1), storage="int8")
    for frame in images(1, 6, 14, 28)[0]:
        assert_same(session.push(frame), eager.push(frame), tolerance=1e-11)


def test_streams_of_equal_shapes_share_one_compiled_step(monkeypatch):
    """The compiler proper is left out: it takes minutes."""
    made = []
    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, inputs, **_: made.append(1) or graph.forward)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    few = {"depth": 1, "dpt_layers": (0,) * 4, "encoder_depth": 1, "camera_trunk_depth": 1, "camera_iterations": 1}
    model = tiny(heads=("camera",), **few)
    for width, num_made in ((28, 1), (42, 2)):
        for _ in range(2):
            session = StreamSession(model, policy=Window(1, 1), step="compiled")
            for _ in range(2):
                pushed(session, images(1, 4, 14, width)[0])
                session.reset()
        assert len(made) == num_made
    assert torch._dynamo.config.recompile_limit == steady.MOST_SHAPES  # beyond it nothing is compiled, silently


class StandIn:
    """For CUDA's graphs, on a CPU: replaying computes the step anew, into the tensors that the recording answered."""

    def __init__(self):
        self.answers = []

    def watched(self, step):
        def run():
            self.step = step
            self.answers.append(step())
            return self.answers[-1]

        return run

    @contextmanager
    def graph(self, graph, capture_error_mode):
        assert graph is self and len(self.answers) == steady.WARM_UPS
        assert capture_error_mode == "thread_local"  # other threads may allocate on the device meanwhile
        yield
        self.recorded = self.answers[-1]

    def replay(self):
        for name, value in vars(self.step()).items():
            recorded = getattr(self.recorded, name)
            if isinstance(value, torch.Tensor):
                recorded.copy_(value)
            elif name.endswith("stages"):
                for old, new in zip(recorded, value, strict=True):
                    old.copy_(new)


def test_all_but_the_recording_of_a_graph_on_a_cpu(model, monkeypatch):
    stand_ins = []

    def captured(step):
        stand_ins.append(stand_in := StandIn())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: stand_in)
        monkeypatch.setattr(torch.cuda, "graph", stand_in.graph)
        return steady.captured(stand_in.watched(step))

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setitem(steady.PREPARE, "compiled", captured)  # "graph" is refused on a CPU
    frames = images(2, 9, 14, 28).unbind(1)
    session = StreamSession(model, policy=Window(1, 1, 2), step="compiled")
    found = pushed(session, frames)
    session.reset()
    again = pushed(session, frames)
    expected = pushed(StreamSession(model, policy=Window(1, 1, 2)), frames)
    for ours, twice, theirs in zip(found, again, expected, strict=True):  # no later replay has written over one
        assert_same(ours, theirs, tolerance=0)
        assert_same(twice, theirs, tolerance=0)
    assert len(stand_ins) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("policy", SERVED, ids=repr)
def test_replayed_it_is_the_eager_step_to_the_bit(policy):
    model = tiny(heads=HEADS, dtype=torch.float32).cuda()
    frames = images(2, 14, 14, 28, dtype=torch.float32).cuda().unbind(1)
    session, eager = StreamSession(model, policy=policy, step="graph"), StreamSession(model, policy=policy)
    for frame in frames:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)

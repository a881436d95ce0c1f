"""A step with constant shapes is the step: bit-exactly as it stands, to rounding compiled."""

from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from small_models import assert_same, images, tiny

from streamvggt import FrameDiversity, KeepAll, Keyframes, MotionKeyframes, SlidingWindow, StreamSession, TokenDiversity
from streamvggt.stream import static_step

HEADS = ("camera", "depth", "points")
SERVED = [
    SlidingWindow(1, 2),
    SlidingWindow(0, 1, 2),
    Keyframes(2, 3),
    MotionKeyframes(4.0, 3, 3),
    FrameDiversity(3, 1),
]


@pytest.fixture(scope="module")
def model():
    return tiny(heads=HEADS)


@pytest.fixture
def recorded(monkeypatch):
    """In place of a recording, which takes a GPU or a compiler, the step itself; and how often it was requested."""
    asked = []

    def keep(step):
        asked.append(step)
        return step

    monkeypatch.setitem(static_step.STEP_BUILDERS, "compile", keep)
    return asked


def pushed(session, frames):
    return [session.push(frame) for frame in frames]


@pytest.mark.parametrize("storage", ["auto", "int8"])
@pytest.mark.parametrize("policy", SERVED, ids=repr)
def test_it_is_the_eager_step_bit_exactly(model, policy, storage, recorded):
    frames = images(2, 14, 14, 28).unbind(1)
    eager = StreamSession(model, policy=policy, kv_cache_dtype=storage)
    session = StreamSession(model, policy=policy, kv_cache_dtype=storage, step_mode="compile")
    for number, frame in enumerate(frames):
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
        assert session.memory.kept_frames == eager.memory.kept_frames, number
    assert len(recorded) == 1
    assert session.num_bytes == eager.num_bytes


def test_no_shape_and_no_address_changes_once_the_memory_is_full(model, recorded):
    session = StreamSession(model, policy=SlidingWindow(1, 2), step_mode="compile")
    frames = images(1, 10, 14, 28)[0]
    pushed(session, frames[:5])
    places = [cache.buffers()[0][0].data_ptr() for cache in session.memory.layers]
    assert len(recorded) == 1
    pushed(session, frames[5:])
    assert [cache.buffers()[0][0].data_ptr() for cache in session.memory.layers] == places
    assert len(recorded) == 1


@pytest.mark.parametrize("wrong", ["uint8", "one channel"])
def test_it_rejects_the_images_that_the_eager_step_rejects(model, recorded, wrong):
    """A copy into the images of the captured step would convert pixels of 8 bits and repeat a single channel."""
    session = StreamSession(model, policy=SlidingWindow(1, 2), step_mode="compile")
    frames = images(1, 6, 14, 28)[0]
    pushed(session, frames[:5])
    assert len(recorded) == 1
    bad = (255 * frames[5]).to(torch.uint8) if wrong == "uint8" else frames[5][:1]
    with pytest.raises(ValueError, match="floating point of shape"):
        session.push(bad)
    assert session.num_frames == 5


def test_saved_restored_reset_and_of_another_size_it_continues(model, recorded, tmp_path):
    policy = SlidingWindow(1, 2)
    frames, others = images(1, 12, 14, 28)[0], images(1, 6, 28, 14)[0]
    session, eager = StreamSession(model, policy=policy, step_mode="compile"), StreamSession(model, policy=policy)
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
    policy = SlidingWindow(1, 1)
    frames = images(1, 7, 14, 28)[0]
    session, eager = StreamSession(model, policy=policy, step_mode="compile"), StreamSession(model, policy=policy)
    for frame in frames[:5]:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
    with monkeypatch.context() as patch:
        patch.setattr(model.depth_head, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.push(frames[5])
    for frame in frames[5:]:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)


def test_what_it_cannot_serve_is_reported(model, recorded):
    for policy in (KeepAll(), TokenDiversity(3)):
        with pytest.raises(ValueError, match="needs a memory of whole frames that becomes full"):
            StreamSession(model, policy=policy, step_mode="compile")
    with pytest.raises(ValueError, match="unknown; choose one of eager, cuda_graph, compile"):
        StreamSession(model, policy=SlidingWindow(1, 2), step_mode="fast")
    with pytest.raises(ValueError, match="the model is on cpu: choose eager or compile"):
        StreamSession(model, policy=SlidingWindow(1, 2), step_mode="cuda_graph")
    with pytest.raises(ValueError, match="supports only camera_cache='per_iteration'"):
        StreamSession(model, policy=SlidingWindow(1, 2), step_mode="compile", camera_cache="shared")
    with pytest.raises(ValueError, match="cannot track points"):
        StreamSession(model, policy=SlidingWindow(1, 2), step_mode="compile").push(
            images(1, 1)[0, 0], query_points=torch.zeros(1, 2)
        )


@pytest.mark.slow
def test_compiled_it_is_the_eager_step_to_rounding(monkeypatch):
    """Traced and made functional as for a compiler, whose own work (minutes) is left to benchmarks/step.py."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    few = {"depth": 1, "dpt_layers": (0,) * 4, "encoder_depth": 1, "camera_trunk_depth": 1, "camera_iterations": 1}
    session = StreamSession(
        tiny(heads=("camera", "depth"), **few), policy=SlidingWindow(1, 1), kv_cache_dtype="int8", step_mode="compile"
    )
    eager = StreamSession(session.model, policy=SlidingWindow(1, 1), kv_cache_dtype="int8")
    for frame in images(1, 6, 14, 28)[0]:
        assert_same(session.push(frame), eager.push(frame), tolerance=1e-11)


def test_streams_of_equal_shapes_share_one_compiled_step(monkeypatch):
    """The compiler proper is skipped: it takes minutes."""
    made = []
    monkeypatch.setattr(
        "torch._inductor.compile_fx.compile_fx", lambda graph, inputs, **_: made.append(1) or graph.forward
    )
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    few = {"depth": 1, "dpt_layers": (0,) * 4, "encoder_depth": 1, "camera_trunk_depth": 1, "camera_iterations": 1}
    model = tiny(heads=("camera",), **few)
    for width, num_made in ((28, 1), (42, 2)):
        for _ in range(2):
            session = StreamSession(model, policy=SlidingWindow(1, 1), step_mode="compile")
            for _ in range(2):
                pushed(session, images(1, 4, 14, width)[0])
                session.reset()
        assert len(made) == num_made
    assert torch._dynamo.config.recompile_limit == static_step.MAX_SHAPES  # beyond it nothing is compiled, silently


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
        assert graph is self and len(self.answers) == static_step.NUM_WARMUP
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
        return static_step.capture_cuda_graph(stand_in.watched(step))

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setitem(static_step.STEP_BUILDERS, "compile", captured)  # "cuda_graph" is rejected on a CPU
    frames = images(2, 9, 14, 28).unbind(1)
    session = StreamSession(model, policy=SlidingWindow(1, 1, 2), step_mode="compile")
    found = pushed(session, frames)
    session.reset()
    again = pushed(session, frames)
    expected = pushed(StreamSession(model, policy=SlidingWindow(1, 1, 2)), frames)
    for ours, twice, theirs in zip(found, again, expected, strict=True):  # no later replay has written over one
        assert_same(ours, theirs, tolerance=0)
        assert_same(twice, theirs, tolerance=0)
    assert len(stand_ins) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("policy", SERVED, ids=repr)
def test_replayed_it_is_the_eager_step_bit_exactly(policy):
    model = tiny(heads=HEADS, dtype=torch.float32).cuda()
    frames = images(2, 14, 14, 28, dtype=torch.float32).cuda().unbind(1)
    session, eager = StreamSession(model, policy=policy, step_mode="cuda_graph"), StreamSession(model, policy=policy)
    for frame in frames:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)

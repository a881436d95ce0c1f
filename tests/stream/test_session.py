"""A session is the model, frame by frame, and can be put aside."""

import gc
import threading
import weakref

import pytest
import torch
from small_models import assert_same, images, tiny

from streamvggt import KeepAll, SlidingWindow, StreamSession
from streamvggt.files import atomic_write
from streamvggt.prediction import cat
from streamvggt.stream.submaps.session import SubmapSession


@pytest.fixture(scope="module")
def model():
    return tiny()


def pushed(session, frames):
    return cat([session.push(frame[:, 0] if frame.shape[0] > 1 else frame[0, 0]) for frame in frames.split(1, 1)])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_session_is_the_full_causal_pass(model, batch):
    frames = images(batch, 5)
    with torch.no_grad():
        assert_same(pushed(StreamSession(model), frames), model(frames))


def test_reset_begins_a_new_stream(model):
    session, frames = StreamSession(model, policy=SlidingWindow(1, 1)), images(1, 4)
    first = pushed(session, frames)
    session.reset()
    assert session.statistics().num_frames == 0
    assert_same(pushed(session, frames), first, tolerance=0)
    session.reset()
    session.push(images(1, 1, 42, 28)[0, 0])  # another size is fine in another stream


def test_frames_may_come_in_and_out_of_inference_mode(model):
    frames = images(1, 4)
    session = StreamSession(model, policy=SlidingWindow(0, 1))
    with torch.inference_mode():
        output = [session.push(frame) for frame in frames[0, :2]]
    output += [session.push(frame) for frame in frames[0, 2:]]
    assert_same(cat(output), pushed(StreamSession(model, policy=SlidingWindow(0, 1)), frames), tolerance=0)


def test_heads_and_tracking(model):
    session = StreamSession(model, heads=("camera",))
    assert session.push(images(1, 1)[0, 0]).numpy().keys() == {"pose_enc"}
    session = StreamSession(model)
    session.push(images(1, 1)[0, 0], query_points=torch.tensor([[3.0, 4.0]]))
    assert session.push(images(1, 1, seed=1)[0, 0]).tracks.shape == (1, 1, 1, 2)


@pytest.mark.parametrize("policy", [KeepAll(), SlidingWindow(1, 2)], ids=str)
@pytest.mark.parametrize("camera", ["per_iteration", "shared"])
def test_a_saved_stream_continues_bit_exactly(model, tmp_path, policy, camera):
    frames = images(1, 7)
    session = StreamSession(model, policy=policy, camera_cache=camera)
    session.push(frames[0, 0], query_points=torch.tensor([[3.0, 4.0]]))
    pushed(session, frames[:, 1:4])
    session.save(tmp_path / "deep" / "state.pt")
    expected = pushed(session, frames[:, 4:])
    other = StreamSession(model, policy=policy, camera_cache=camera)
    other.restore(tmp_path / "deep" / "state.pt")
    assert other.statistics().num_frames == 4
    assert_same(pushed(other, frames[:, 4:]), expected, tolerance=0)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "state.pt"]


def test_restoring_what_does_not_fit_is_rejected(model, tmp_path):
    path = tmp_path / "state.pt"
    session = StreamSession(model)
    session.push(images(1, 1)[0, 0])
    session.save(path)
    with pytest.raises(ValueError, match=r"policy KeepAll\(\), but this session has SlidingWindow"):
        StreamSession(model, policy=SlidingWindow(1, 2)).restore(path)
    with pytest.raises(ValueError, match="camera_cache 'per_iteration'"):
        StreamSession(model, camera_cache="shared").restore(path)
    other = tiny()
    with torch.no_grad():
        other.camera_head.embed_pose.bias += 1
    with pytest.raises(ValueError, match="with weights"):
        StreamSession(other).restore(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        session.restore(path)
    with atomic_write(path, sealed=True) as unfinished:
        torch.save({"model": 1}, unfinished)
    with pytest.raises(ValueError, match="not a saved stream of this version"):
        session.restore(path)
    with pytest.raises(FileNotFoundError):
        session.restore(tmp_path / "none.pt")


def damaged_states(content):
    """What a state might be without an entry, or with one of another type."""
    state = content["state"]
    yield (
        {**content, "state": {name: value for name, value in state.items() if name != "kept_frames"}},
        "expected the entries",
    )
    yield {**content, "state": {**state, "num_frames": "3"}}, "state.num_frames: expected int, got str"
    yield {**content, "state": {**state, "layers": state["layers"][1:]}}, "does not match this stream"
    yield {**content, "state": {**state, "layers": [[]] * 4}}, r"state.layers.0: expected dict, got list"
    layer = {**state["layers"][0], "keys": [3]}
    yield {**content, "state": {**state, "layers": [layer, *state["layers"][1:]]}}, "does not match this stream"
    yield {**content, "state": None}, "expected the entries identity and state"
    yield {**content, "identity": 3}, "expected the entries identity and state"


def test_a_state_without_its_entries_is_rejected_and_changes_nothing(model, tmp_path):
    frames = images(1, 4)[0]
    path, session = tmp_path / "state.pt", StreamSession(model, policy=SlidingWindow(1, 1))
    for frame in frames[:3]:
        session.push(frame)
    session.save(path)
    content = torch.load(path, weights_only=True)
    other = StreamSession(model, policy=SlidingWindow(1, 1))
    other.restore(path)
    for damaged, words in damaged_states(content):
        with atomic_write(path, sealed=True) as unfinished:
            torch.save(damaged, unfinished)
        with pytest.raises(ValueError, match=words):
            other.restore(path)
    assert_same(other.push(frames[3]), session.push(frames[3]), tolerance=0)


def test_every_flipped_bit_of_a_state_is_noticed(model, tmp_path):
    path, session = tmp_path / "state.pt", StreamSession(model)
    session.push(images(1, 1)[0, 0])
    session.save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 4999):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            session.restore(path)


@pytest.mark.parametrize("kind", [StreamSession, SubmapSession])
@pytest.mark.parametrize("call", ["push", "save", "restore", "reset"])
def test_a_second_call_at_the_same_time_is_rejected(model, tmp_path, kind, call, monkeypatch):
    """From another thread or, as in a handler of a signal, from the same one."""
    frames = images(1, 3)[0]
    session, undisturbed = kind(model), kind(model)
    arguments = {"push": [frames[1]], "save": [tmp_path / "other.pt"], "restore": [tmp_path / "state.pt"], "reset": []}
    for each in (session, undisturbed):
        each.push(frames[0])
    session.save(tmp_path / "state.pt")
    forward, problems = type(model.camera_head).forward, []

    def meanwhile(*args):
        def attempt():
            try:
                getattr(session, call)(*arguments[call])
            except RuntimeError as error:
                problems.append(str(error))

        attempt()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return forward(*args)

    with monkeypatch.context() as patch:
        patch.setattr(type(model.camera_head), "forward", meanwhile)
        output = session.push(frames[1])
    assert len(problems) == 2 and all("expected one call at a time" in problem for problem in problems)
    assert_same(output, undisturbed.push(frames[1]), tolerance=0)
    assert_same(session.push(frames[2]), undisturbed.push(frames[2]), tolerance=0)
    assert not (tmp_path / "other.pt").exists()


def test_statistics(model):
    session = StreamSession(model, policy=SlidingWindow(1, 2))
    assert session.statistics().median_ms is None
    pushed(session, images(1, 6))
    output = session.statistics()
    assert (output.num_frames, output.num_kept_frames) == (6, 3)
    assert 0 < output.median_ms <= output.p95_ms
    assert output.memory_bytes == session.memory.num_bytes > 0


def test_results_are_not_kept(model):
    session = StreamSession(model, policy=SlidingWindow(1, 1))
    seen = [weakref.ref(session.push(frame[0, 0]).depth) for frame in images(1, 4).split(1, 1)]
    gc.collect()
    assert [ref() for ref in seen] == [None] * 4


def test_what_cannot_stream_is_rejected(model):
    with pytest.raises(ValueError, match="Streaming requires a causal network"):
        StreamSession(tiny(False))
    with pytest.raises(ValueError, match="a frame is a Frame or a tensor, as from load_frames, not str"):
        StreamSession(model).push("photo.jpg")
    with pytest.raises(ValueError, match=r"a frame is \(3, H, W\)"):
        StreamSession(model).push(images(1, 2))
    session = StreamSession(model)
    session.push(images(1, 1)[0, 0])
    with pytest.raises(ValueError, match="frame 1 is 42×28"):
        session.push(images(1, 1, 42, 28)[0, 0])
    assert session.statistics().num_frames == 1

"""A stream is the full causal pass, however it is cut; dropping from the memory is masking."""

from dataclasses import dataclass

import pytest
import torch
from host_sync import Watch
from small_models import assert_same, images, tiny

from streamvggt import KeepAll, MotionKeyframes, SlidingWindow
from streamvggt.layers.attention import CausalPattern
from streamvggt.layers.cached_attention import CachedPattern
from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.prediction import cat

WITHOUT_TRACKS = ("camera", "depth", "points")


def stream(model, frames, chunks, policy=None, **options):
    memory = model.new_memory(policy, **options)
    return cat([model.step(chunk, memory=memory, heads=WITHOUT_TRACKS) for chunk in frames.split(chunks, 1)])


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.mark.parametrize("chunks", [[1] * 6, [6], [1, 5], [2, 3, 1], [4, 2]], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_any_cutting_of_the_stream_is_the_full_causal_pass(model, chunks, batch):
    frames = images(batch, 6)
    with torch.no_grad():
        assert_same(stream(model, frames, chunks), model(frames, heads=WITHOUT_TRACKS))


def test_many_frames_grow_the_slots_and_change_nothing(model):
    frames = images(1, 21, 14, 28)
    with torch.no_grad():
        assert_same(stream(model, frames, [1] * 21), model(frames, heads=WITHOUT_TRACKS))


@dataclass(frozen=True)
class EveryThird(EvictionPolicy):
    """Drops two frames of three, several at once and from the middle: the holes must be filled."""

    def select(self, frames, context):
        return [f for f in frames if f % 3 == 0 or (f >= frames[-1] - 1 and frames[-1] % 4)]


POLICIES = [
    KeepAll(),
    SlidingWindow(1, 2),
    SlidingWindow(0, 1),
    SlidingWindow(2, 0),
    SlidingWindow(0, 0),
    SlidingWindow(1, 100),
    EveryThird(),
    SlidingWindow(1, 2, 3),
    SlidingWindow(0, 1, 100),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 1, 4]], ids=str)
def test_dropping_is_masking(model, policy, chunks):
    frames = images(2, 9)
    with torch.no_grad():
        masked = model(frames, heads=WITHOUT_TRACKS, attended_frames=policy.attended_frames(9))
        assert_same(stream(model, frames, chunks, policy), masked)


def test_a_window_changes_what_is_seen(model):
    """Otherwise the test above would compare nothing with nothing."""
    frames = images(1, 6)
    with torch.no_grad():
        full = model(frames, heads=WITHOUT_TRACKS)
        narrow = model(frames, heads=WITHOUT_TRACKS, attended_frames=SlidingWindow(1, 1).attended_frames(6))
    assert torch.equal(full.depth[:, :3], narrow.depth[:, :3])
    assert (full.depth[:, 3:] - narrow.depth[:, 3:]).abs().max() > 1e-4


def test_an_infinite_window_keeps_all_bit_exactly(model):
    frames = images(1, 7)
    with torch.no_grad():
        all_kept = stream(model, frames, [1] * 7, KeepAll())
        window = stream(model, frames, [1] * 7, SlidingWindow(1, 10**9))
    for name, value in all_kept.numpy().items():
        assert (value == window.numpy()[name]).all(), name


def test_a_later_frame_changes_no_earlier_result(model):
    frames = images(1, 5)
    other = frames.clone()
    other[:, 3:] = images(1, 2, seed=1)
    with torch.no_grad():
        a, b = model(frames, heads=WITHOUT_TRACKS), model(other, heads=WITHOUT_TRACKS)
    assert_same(a.select_frames(slice(0, 3)), b.select_frames(slice(0, 3)), tolerance=0)
    assert (a.depth[:, 3] - b.depth[:, 3]).abs().max() > 1e-4


def test_released_camera_memory_depends_on_frames_only_through_its_order(model):
    """The published scheme goes frame by frame; a chunk must give the same as single frames."""
    frames = images(2, 5)
    with torch.no_grad():
        single = stream(model, frames, [1] * 5, camera_cache="shared")
        assert_same(stream(model, frames, [2, 3], camera_cache="shared"), single)
        exact = stream(model, frames, [1] * 5)
    assert (single.pose_enc[:, 1:] - exact.pose_enc[:, 1:]).abs().max() > 1e-3
    assert torch.equal(single.depth, exact.depth)


@pytest.mark.parametrize("camera", ["per_iteration", "shared"])
def test_a_window_bounds_every_cache(model, camera):
    memory = model.new_memory(SlidingWindow(1, 2), camera_cache=camera)
    sizes = set()
    for frame in images(1, 12).split(1, 1):
        model.step(frame, memory=memory)
        sizes.add(memory.num_bytes)
    assert memory.kept_frames == [0, 10, 11]
    assert memory.num_tokens == [3 * (5 + 6)] * 4
    assert {len(cache) for blocks in memory.camera for cache in blocks} == {3 * (4 if camera == "shared" else 1)}
    assert len(sizes) == 1, "slots are preallocated"


def test_released_window_equals_a_fresh_cache_of_the_frames_kept(model):
    """Slots written in place of dropped ones must leave no trace of what they held."""
    frames = images(1, 6)
    with torch.no_grad():
        windowed = stream(model, frames, [1] * 6, SlidingWindow(0, 1), camera_cache="shared")
        # A frame that sees only one earlier frame: in layers, that one's keys depend on its own past, so compare the
        # camera trunk alone, on the tokens that the windowed stream saw.
        attended_frames = SlidingWindow(0, 1).attended_frames(6)
        aggregator = model.aggregator
        tokens = aggregator(
            aggregator.encode_patches(frames), (2, 3), patterns=[CausalPattern(6, attended_frames)] * 4
        )[3][:, :, 0]
        # Frame by frame with caches that forget by being rebuilt: all frames so far, the policy's drops applied.
        caches = [KVCache() for _ in range(2)]
        poses = []
        for t in range(6):
            gone = [t - 2] if t >= 2 else []
            for cache in caches:
                keys, kept = cache.state_dict(), []
                if keys["keys"]:
                    kept = [i for i, frame in enumerate(keys["frames"]) if frame not in gone]
                    keys.update(
                        frames=[keys["frames"][i] for i in kept],
                        keys=[plane[:, :, kept] for plane in keys["keys"]],
                        values=[plane[:, :, kept] for plane in keys["values"]],
                    )
                    cache.load_state_dict(keys, frames.device)
            poses.append(model.camera_head(tokens[:, t : t + 1], [[CachedPattern(c, [(t, [])]) for c in caches]])[-1])
    assert (torch.cat(poses, 1) - windowed.pose_enc).abs().max() < 1e-11


@dataclass(frozen=True)
class KeepNear(EvictionPolicy):
    """Keeps a frame when its own prediction says so."""

    is_index_based = False
    required_heads = ("camera",)

    def select(self, frames, context):
        is_key = frames[-1] == 0 or context.result.pose_enc[0, 0, 0].item() > self.threshold
        return frames if is_key else frames[:-1]

    threshold: float = 0.0


def test_a_policy_may_look_at_the_frames_prediction(model):
    frames = images(1, 8)
    with torch.no_grad():
        middle = model(frames).pose_enc[0, 1:, 0].median().item()
        memory = model.new_memory(KeepNear(middle))
        whole = model.step(frames, memory=memory, heads=WITHOUT_TRACKS)
        single = stream(model, frames, [1] * 8, KeepNear(middle))
    assert_same(whole, single, tolerance=0)
    kept = [f for f in range(8) if f == 0 or whole.pose_enc[0, f, 0].item() > middle]
    assert memory.kept_frames == kept
    assert 1 < len(kept) < 8
    attended_frames = [[*[f for f in kept if f < t], t] for t in range(8)]
    with torch.no_grad():
        assert_same(single, model(frames, heads=WITHOUT_TRACKS, attended_frames=attended_frames))


@dataclass(frozen=True)
class FirstTokensOfEachFrame(EvictionPolicy):
    """Prunes each layer to a budget that differs from layer to layer."""

    budget: int = 20
    is_index_based = False
    is_token_level = True

    def prune(self, context):
        for layer, cache in enumerate(context.layers):
            held, budget = len(cache), self.budget + layer
            if held > budget:
                keys, _ = cache.keys_values()
                best = keys.norm(dim=-1).topk(budget, dim=2).indices.sort(-1).values
                cache.select_tokens(best)


def test_a_policy_may_prune_tokens_layer_by_layer(model):
    frames = images(2, 6)
    memory = model.new_memory(FirstTokensOfEachFrame())
    with torch.no_grad():
        pruned = cat([model.step(frame, memory=memory, heads=WITHOUT_TRACKS) for frame in frames.split(1, 1)])
        assert memory.num_tokens == [20, 21, 22, 23]
        unlimited = stream(model, frames, [1] * 6, FirstTokensOfEachFrame(budget=10**6))
        full = model(frames, heads=WITHOUT_TRACKS)
    assert_same(unlimited, full)
    assert_same(pruned.select_frames(slice(0, 2)), full.select_frames(slice(0, 2)))
    assert (pruned.depth[:, 3:] - full.depth[:, 3:]).abs().max() > 1e-5


def test_a_step_never_waits_for_the_device(model):
    memory = model.new_memory(SlidingWindow(1, 2))
    queries = torch.tensor([[[5.0, 5.0], [30.0, 20.0]]], dtype=torch.float64)
    with torch.no_grad(), Watch() as watch:
        for number, frame in enumerate(images(1, 5).split(1, 1)):
            model.step(frame, memory=memory, query_points=queries if number == 0 else None)
    assert not watch.seen


def test_a_step_that_failed_can_be_made_again(model, monkeypatch):
    frames = images(1, 4)
    memory = model.new_memory(SlidingWindow(1, 1))
    with torch.no_grad():
        expected = stream(model, frames, [1] * 4, SlidingWindow(1, 1))
        done = [model.step(frame, memory=memory, heads=WITHOUT_TRACKS) for frame in frames[:, :3].split(1, 1)]
        with monkeypatch.context() as patch:

            def out_of_memory(*args):
                raise torch.OutOfMemoryError("no memory left")

            patch.setattr(model.depth_head, "forward", out_of_memory)
            with pytest.raises(torch.OutOfMemoryError):
                model.step(frames[:, 3:], memory=memory, heads=WITHOUT_TRACKS)
        done.append(model.step(frames[:, 3:], memory=memory, heads=WITHOUT_TRACKS))
    assert_same(cat(done), expected)


def test_a_chunk_that_failed_after_evicting_can_be_made_again(model, monkeypatch):
    frames = images(1, 5)
    memory, undisturbed = (model.new_memory(SlidingWindow(1, 1)) for _ in range(2))
    model.step(frames[:, :2], memory=memory)
    model.step(frames[:, :2], memory=undisturbed)
    with monkeypatch.context() as patch:

        def out_of_memory(*args):
            raise torch.OutOfMemoryError("no memory left")

        patch.setattr(model.depth_head, "forward", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            model.step(frames[:, 2:], memory=memory)
    assert_same(model.step(frames[:, 2:], memory=memory), model.step(frames[:, 2:], memory=undisturbed), tolerance=0)


def test_saved_and_restored_memory_continues_as_if_nothing_happened(model):
    frames = images(2, 6)
    queries = torch.rand(2, 3, 2, dtype=torch.float64) * 20
    for policy in (KeepAll(), SlidingWindow(1, 1)):
        memory, other = model.new_memory(policy), model.new_memory(policy)
        model.step(frames[:, :3], memory=memory, query_points=queries)
        other.load_state_dict(memory.state_dict(), frames.device)
        assert_same(model.step(frames[:, 3:], memory=other), model.step(frames[:, 3:], memory=memory), tolerance=0)


def test_memory_refuses_what_does_not_fit(model):
    memory = model.new_memory()
    model.step(images(1, 1), memory=memory)
    with pytest.raises(ValueError, match=r"frame 1 is 42×28 .* began with 28×42"):
        model.step(images(1, 1, 42, 28), memory=memory)
    with pytest.raises(ValueError, match="expected 1 streams, as in the memory, got 2"):
        model.step(images(2, 1), memory=memory)
    with pytest.raises(ValueError, match="Streaming requires a causal network"):
        tiny(False).new_memory()
    with pytest.raises(ValueError, match="'per_iteration' or 'shared'"):
        model.new_memory(camera_cache="fast")
    with pytest.raises(ValueError, match="camera_cache 'per_iteration'"):
        model.new_memory(camera_cache="shared").load_state_dict(memory.state_dict(), torch.device("cpu"))


@pytest.mark.parametrize("policy", [None, MotionKeyframes(20)], ids=str)
def test_a_stream_accepts_patch_tokens(model, policy):
    """Several streams of the same images ask the encoder once."""
    frames = images(1, 4)
    with torch.no_grad():
        patch_tokens = model.aggregator.encode_patches(frames)
        memory = model.new_memory(policy)
        told = model.step(frames, heads=WITHOUT_TRACKS, memory=memory, patch_tokens=patch_tokens)
        assert_same(told, stream(model, frames, [4], policy))
        nothing = model.step(
            frames, heads=WITHOUT_TRACKS, memory=model.new_memory(policy), patch_tokens=0 * patch_tokens
        )
    assert (nothing.depth - told.depth).abs().max() > 1e-3

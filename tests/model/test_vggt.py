"""What must hold of the network whatever its weights are."""

import pytest
import torch
from small_models import assert_same, images, tiny

from streamvggt import VGGT, SlidingWindow
from streamvggt.layers.attention import full_pattern
from streamvggt.prediction import Prediction, cat

QUERIES = torch.tensor([[[5.0, 7.0], [30.0, 20.0], [41.0, 27.0]]], dtype=torch.float64)


@pytest.mark.parametrize("causal", [False, True])
def test_a_batch_of_two_is_two_batches_of_one(causal):
    model = tiny(causal)
    frames, queries = images(2, 3), torch.cat([QUERIES, QUERIES / 2])
    with torch.no_grad():
        both = model(frames, query_points=queries)
        for entry in (0, 1):
            alone = model(frames[entry : entry + 1], query_points=queries[entry : entry + 1])
            assert_same(both.map(lambda x, entry=entry: x[entry : entry + 1]), alone, tolerance=1e-6)


def test_order_of_later_frames_does_not_matter_to_the_bidirectional_network():
    model, frames = tiny(False), images(1, 4)
    order = [0, 3, 1, 2]
    with torch.no_grad():
        assert_same(model(frames[:, order]), model(frames).map(lambda x: x[:, order]))
        assert (model(frames[:, [1, 0, 2, 3]]).depth[:, 0] - model(frames).depth[:, 1]).abs().max() > 1e-4


def test_one_frame_is_the_same_to_both_networks():
    frames = images(2, 1)
    with torch.no_grad():
        assert_same(tiny(True)(frames), tiny(False)(frames))


def test_frames_in_chunks_of_a_dense_head_do_not_matter():
    model, frames = tiny(), images(2, 5)
    with torch.no_grad():
        whole = model(frames)
        model.frames_per_chunk = 3
        assert_same(model(frames), whole)


@pytest.mark.parametrize("heads", [("camera",), ("depth",), ("camera", "points"), ("track",)])
def test_heads_that_are_not_asked_for_are_not_run(heads, monkeypatch):
    model = tiny()
    modules = {"camera": "camera_head", "depth": "depth_head", "points": "point_head", "track": "track_head"}
    for head in set(modules) - set(heads):
        monkeypatch.setattr(getattr(model, modules[head]), "forward", lambda *args: pytest.fail("a head ran"))
    queries = QUERIES if "track" in heads else None
    with torch.no_grad():
        some = model(images(1, 2), heads=heads, query_points=queries)
    fields = {
        "camera": {"pose_enc"},
        "depth": {"depth", "depth_conf"},
        "points": {"points", "points_conf"},
        "track": {"tracks", "visibility", "track_conf"},
    }
    assert some.numpy().keys() == set.union(*(fields[head] for head in heads))
    with torch.no_grad():
        built = tiny(heads=heads)(images(1, 2), query_points=queries)
    assert_same(built, some, tolerance=0)


def test_dense_heads_see_no_layers_but_their_own():
    model = tiny(depth=6, dpt_layers=(0, 1, 3, 4))
    with torch.no_grad():
        tokens = model.aggregator(
            model.aggregator.encode_patches(images(1, 2)), (2, 3), layers=set(model.config.dpt_layers)
        )
    assert set(tokens) == {0, 1, 3, 4}
    assert tokens[0].shape == (1, 2, 5 + 6, 64)


@pytest.mark.parametrize("causal", [False, True])
def test_activation_checkpointing_changes_no_gradient(causal):
    frames = images(1, 3)
    gradients = []
    for activation_checkpointing in (False, True):
        model = tiny(causal, activation_checkpointing=activation_checkpointing)
        output = model(frames, query_points=QUERIES)
        loss = output.pose_enc.square().sum() + output.depth.sum() + output.points.sum() + output.tracks.sum()
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert {name for name, grad in gradients[0].items() if grad is None} <= {
        "aggregator.patch_embed.mask_token",
        "camera_head.empty_pose_tokens",  # only the first refinement sees it, and only the last is asked here
        *(f"track_head.tracker.{n}" for n in ("vis_predictor.0.weight", "vis_predictor.0.bias")),
        *(f"track_head.tracker.{n}" for n in ("conf_predictor.0.weight", "conf_predictor.0.bias")),
    }
    for name, grad in gradients[0].items():
        if grad is not None:
            # float64 gradients of up to 1e6: only the order of sums may differ.
            scale = max(1.0, grad.abs().max().item())
            assert (grad - gradients[1][name]).abs().max().item() <= 1e-9 * scale, name


def test_gradients_of_the_causal_pass_never_come_from_later_frames():
    model, frames = tiny(), images(1, 4).requires_grad_()
    model(frames).depth[:, 1].sum().backward()
    assert frames.grad[:, :2].abs().min(dim=0).values.max() > 0
    assert (frames.grad[:, 2:] == 0).all()


def test_all_stages_are_there_for_training():
    output = tiny()(images(1, 2), query_points=QUERIES)
    assert len(output.pose_enc_list) == 4
    assert len(output.tracks_list) == 4
    assert output.pose_enc_list[-1] is output.pose_enc
    assert all(stage.shape == (1, 2, 9) and stage.requires_grad for stage in output.pose_enc_list)
    assert (output.pose_enc_list[0] - output.pose_enc).abs().max() > 1e-3


def test_a_refinement_takes_the_last_encoding_as_given():
    """No gradient flows from one refinement into the one before; only the first sees the empty encoding."""
    model = tiny()
    output = model(images(1, 2), heads=("camera",))
    output.pose_enc.sum().backward()
    last_alone = model.camera_head.empty_pose_tokens.grad
    assert last_alone is None or (last_alone == 0).all()
    model(images(1, 2), heads=("camera",)).pose_enc_list[0].sum().backward()
    assert model.camera_head.empty_pose_tokens.grad.abs().max() > 0


def test_portrait_landscape_and_the_learnt_grid_itself():
    model = tiny()
    for height, width in ((14, 14), (28, 70), (70, 28), (56, 56)):
        with torch.no_grad():
            output = model(images(1, 1, height, width), query_points=torch.zeros(1, 1, 2, dtype=torch.float64))
        assert output.depth.shape == (1, 1, height, width, 1)
        assert output.points.shape == (1, 1, height, width, 3)
        assert all(torch.isfinite(torch.from_numpy(value)).all() for value in output.numpy().values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_answers_in_float32_and_close(dtype):
    exact, frames = tiny(dtype=torch.float32), images(1, 3, dtype=torch.float32)
    with torch.no_grad():
        reference = exact(frames, heads=("camera", "depth", "points"))
        output = tiny(dtype=torch.float32).to(dtype)(frames, heads=("camera", "depth", "points"))
    for name, value in output.numpy().items():
        assert getattr(output, name).dtype == torch.float32, name
        # 8 bits of mantissa through 10 layers; a wrong cast (say, of angles) would be off by far more.
        assert abs(value - reference.numpy()[name]).mean() < 0.05 * abs(reference.numpy()[name]).mean() + 0.02, name


def test_under_autocast_the_causal_pass_and_the_stream_still_agree():
    model, frames = tiny(dtype=torch.float32), images(1, 3, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model(frames)
        tracked = model(frames, heads=("track",), query_points=QUERIES.float())
        memory = model.new_memory()
        single = cat([model.step(frame, memory=memory) for frame in frames.split(1, 1)])
    assert memory.layers[0].keys_values()[0].dtype == torch.bfloat16
    assert whole.depth.dtype == tracked.tracks.dtype == tracked.visibility.dtype == torch.float32
    assert_same(single, whole, tolerance=0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": torch.rand(3, 28, 42)}, r"\(B, S, 3, H, W\), not torch.float32 \(3, 28, 42\)"),
        ({"images": torch.zeros(1, 1, 3, 28, 42, dtype=torch.uint8)}, "floating point"),
        ({"images": torch.rand(1, 1, 3, 28, 45)}, r"28×45 .* multiples of 14"),
        ({"images": torch.rand(1, 0, 3, 28, 42)}, "at least one"),
        ({"heads": ("camera", "normals")}, "normals: this network was built with camera, depth"),
        ({"heads": ()}, r"\(none\)"),
        ({"heads": ("track",)}, "needs query_points"),
        ({"heads": ("camera",), "query_points": torch.rand(1, 4, 2)}, "add 'track'"),
        ({"query_points": torch.rand(4, 2)}, r"must be \(1, K, 2\), not \(4, 2\)"),
    ],
)
def test_bad_input_is_rejected_before_the_run(given, message):
    with pytest.raises(ValueError, match=message):
        tiny(dtype=torch.float32)(**{"images": images(1, 2, dtype=torch.float32), **given})


def test_misuse_of_causal_is_rejected():
    teacher = tiny(False)
    with pytest.raises(ValueError, match="causal=True"):
        teacher(images(1, 2), attended_frames=[[0], [1]])
    with pytest.raises(ValueError, match="Streaming requires a causal network"):
        teacher.step(images(1, 1), memory=tiny().new_memory(SlidingWindow()))
    with pytest.raises(ValueError, match=r"expected False .* or True"):
        VGGT(causal="future")
    with pytest.raises(ValueError, match="four of the 24 layers"):
        VGGT(dpt_layers=(1, 2, 3, 24))
    with pytest.raises(ValueError, match="do not divide"):
        tiny(num_heads=3)


def test_prediction_frames_cameras_and_arrays():
    output = tiny()(images(2, 3), query_points=QUERIES.expand(2, -1, -1))
    last = output.select_frame(-1)
    assert isinstance(last, Prediction)
    assert torch.equal(last.depth, output.depth[:, 2:])
    assert torch.equal(last.pose_enc_list[0], output.pose_enc_list[0][:, 2:])
    with pytest.raises(IndexError):
        output.select_frame(3)
    assert_same(cat([output.select_frames(slice(0, 2)), last]), output, tolerance=0)
    assert output.cameras().intrinsics.shape == (2, 3, 3, 3)
    assert output.to(torch.float32).depth.dtype == torch.float32
    with pytest.raises(ValueError, match="the head 'camera'"):
        tiny()(images(1, 1), heads=("depth",)).cameras()


def test_cameras_are_exact_in_half_precision_training():
    """Camera tokens are nearly the same for all frames; little of what tells them apart is left in bfloat16."""
    head = tiny(False).float().camera_head
    tokens = 1 + 0.001 * torch.randn(2, 3, head.token_norm.normalized_shape[0])
    with torch.autocast("cpu", torch.bfloat16):
        stages = head(tokens, [[full_pattern] * len(head.trunk)])
    assert torch.equal(stages[-1], head(tokens, [[full_pattern] * len(head.trunk)])[-1])

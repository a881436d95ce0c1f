"""Patterns against dense masks, rotary positions, and what a kernel refuses."""

import sys
import threading
import types

import pytest
import torch
from small_models import images, tiny

from streamvggt.layers import attention
from streamvggt.layers.attention import (
    Attention,
    CausalPattern,
    check_kernel,
    flash_kernel,
    get_kernel,
    math_kernel,
    sdpa_kernel,
    without_cudnn,
)
from streamvggt.layers.block import Block
from streamvggt.layers.rope import RoPE2D
from streamvggt.stream.pool import SessionPool
from streamvggt.stream.session import StreamSession


def qkv(frames, tokens, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 2, frames * tokens, 8, generator=generator, dtype=dtype).unbind(0)


@pytest.mark.parametrize("attended_frames", [None, [[0], [0, 1], [1, 2], [0, 3]]], ids=["all", "some"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_frame_by_frame_attention_is_the_dense_mask(attended_frames, tokens):
    q, k, v = (x.requires_grad_() for x in qkv(4, tokens))
    ours = CausalPattern(4, attended_frames)(q, k, v, sdpa_kernel)
    allowed = torch.zeros(4, 4, dtype=torch.bool)
    for frame, seen in enumerate(attended_frames or [range(t + 1) for t in range(4)]):
        allowed[frame, list(seen)] = True
    mask = allowed.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    weight = torch.linspace(0, 1, ours.numel(), dtype=torch.float64).reshape(ours.shape)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_the_explicit_kernel_is_the_fused_one():
    q, k, v = qkv(3, 5)
    torch.testing.assert_close(math_kernel(q, k, v), sdpa_kernel(q, k, v), rtol=0, atol=1e-13)
    few = q[:, :, :4]
    torch.testing.assert_close(math_kernel(few, k, v), sdpa_kernel(few, k, v), rtol=0, atol=1e-13)


@pytest.mark.parametrize("max_scores", [1, 12, 25, 60])  # one query, part of a head, one head, two heads
def test_tiles_of_the_explicit_kernel_change_nothing(max_scores, monkeypatch):
    q, k, v = (x[:, :, :5] for x in qkv(3, 5))
    whole = math_kernel(q, k, v)
    monkeypatch.setattr(attention, "MAX_SCORES", max_scores)
    torch.testing.assert_close(math_kernel(q, k, v), whole, rtol=0, atol=1e-13)


def test_explicit_bfloat16_attention_is_nearly_as_exact_as_the_fused_one():
    q, k, v = (torch.randn(1, 2, 64, 32, dtype=torch.bfloat16) for _ in range(3))
    exact = sdpa_kernel(q.double(), k.double(), v.double())
    fused = (torch.nn.functional.scaled_dot_product_attention(q, k, v) - exact).abs().mean()
    assert (math_kernel(q, k, v) - exact).abs().mean() <= 3 * fused  # rounds the scores, too


def test_rotated_products_depend_on_the_distance_alone():
    rotation = RoPE2D((5, 6), 2, 8, dtype=torch.float64)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    q, k = (rotation(x.expand(1, 1, 32, 8))[0, 0, 2:].unflatten(0, (5, 6)) for x in (q, k))
    score = torch.einsum("yxd,vud->yxvu", q, k)
    moved = score[1:, 2:, 1:, 2:]
    torch.testing.assert_close(moved, score[:-1, :-2, :-1, :-2], rtol=0, atol=1e-6)  # float32 angles
    assert (score[0, 0, 0, 1] - score[0, 0, 1, 0]).abs() > 1e-3  # rows and columns are told apart


def test_special_tokens_are_not_rotated():
    x = torch.randn(1, 1, 2 * (3 + 4), 8)
    rotated = RoPE2D((2, 2), 3, 8)(x)
    for frame in (0, 7):
        assert torch.equal(rotated[:, :, frame : frame + 3], x[:, :, frame : frame + 3])
        assert not torch.equal(rotated[:, :, frame + 3], x[:, :, frame + 3])


def test_unknown_kernel_and_missing_flash_attention_are_reported(monkeypatch):
    with pytest.raises(ValueError, match="attention='fast' is unknown; choose one of sdpa, flash, math"):
        get_kernel("fast")
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install flash-attn"):
        Attention(8, 2, attention="flash")


def test_flash_attention_names_unsupported_arguments():
    q, k, v = qkv(1, 4, torch.float32)
    with pytest.raises(
        ValueError, match=r"float16 and bfloat16 on CUDA, not torch.float32 on cpu: load the model with"
    ):
        flash_kernel(q, k, v)
    with pytest.raises(ValueError, match=r"torch\.bfloat16 on cpu"):
        check_kernel("flash", torch.device("cpu"), torch.bfloat16)
    check_kernel("sdpa", torch.device("cpu"), torch.bfloat16)


def test_flash_attention_is_called_in_its_own_layout(monkeypatch):
    """Without the package: a stand-in that has flash-attn's documented layout (B, T, N, D)."""

    def flash_attn_func(q, k, v):
        return sdpa_kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    monkeypatch.setattr(attention, "check_kernel", lambda *args: None)
    q, k, v = qkv(2, 3)
    torch.testing.assert_close(flash_kernel(q[:, :, :3], k, v), sdpa_kernel(q[:, :, :3], k, v))


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available() or attention.importlib.util.find_spec("flash_attn") is None,
    reason="needs CUDA and flash-attn",
)
def test_flash_attention_agrees_with_pytorch():
    q, k, v = (x.cuda().to(torch.bfloat16) for x in qkv(2, 64))
    exact = sdpa_kernel(q.double(), k.double(), v.double())
    plain = (sdpa_kernel(q, k, v).double() - exact).abs().max()
    assert (flash_kernel(q, k, v).double() - exact).abs().max() <= 2 * plain + 1e-3


def test_checkpointed_block_gives_the_same_gradients():
    x = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
    gradients = []
    for activation_checkpointing in (False, True):
        torch.manual_seed(0)
        block = Block(16, 2, qk_norm=True, activation_checkpointing=activation_checkpointing).double()
        loss = block(x, RoPE2D((1, 2), 1, 8, dtype=torch.float64), CausalPattern(2)).square().sum()
        gradients.append(torch.autograd.grad(loss, [x, *block.parameters()]))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_cudnn_is_kept_out_until_the_last_thread_leaves():
    assert torch.backends.cuda.cudnn_sdp_enabled()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with without_cudnn:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with without_cudnn:
        thread.start()
        assert inside.wait(60)
        with without_cudnn:
            assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # the other thread is still within
    leave.set()
    thread.join()
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_cudnn_is_kept_out_where_the_number_of_keys_changes(monkeypatch):
    """cuDNN makes a plan for every number of keys. In training few numbers come again and again."""
    seen = []
    real = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(
        attention.F,
        "scaled_dot_product_attention",
        lambda *tensors: seen.append(torch.backends.cuda.cudnn_sdp_enabled()) or real(*tensors),
    )

    def allowed(call) -> set[bool]:
        seen.clear()
        call()
        return set(seen)

    model, frames = tiny(heads=("camera",)), images(1, 3)
    assert allowed(lambda: model(frames)) == {True}
    with torch.no_grad():
        assert allowed(lambda: model(frames)) == {False}
        assert allowed(lambda: tiny(False, heads=("camera",))(frames)) == {True}  # one length alone
    assert allowed(lambda: StreamSession(model).push(frames[0, 0])) == {False}
    pool = SessionPool(model)
    streams = [pool.open() for _ in range(2)]
    [stream.push(frames[0, 0]) for stream in streams]
    assert allowed(pool.step) == {False}

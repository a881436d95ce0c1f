"""Sections of benchmarks/gpu.py that check the results of the device and its synchronizations."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from gpu_bench import Bench
from roofline import Rates

from streamvggt import (
    FrameDiversity,
    KeepAll,
    Keyframes,
    MotionKeyframes,
    ProbeSaliency,
    SelfSelective,
    SlidingWindow,
    StreamSession,
    TokenDiversity,
)
from streamvggt.layers.attention import KERNELS
from streamvggt.prediction import Prediction
from streamvggt.stream.pool import SessionPool
from streamvggt.transfer import unit_range

RECORDED = [
    SlidingWindow(1, 2),
    SlidingWindow(1, 1, 2),
    Keyframes(2, 3),
    MotionKeyframes(4.0, 3, 3),
    FrameDiversity(3, 1),
]
NO_WAIT = [
    KeepAll(),
    SlidingWindow(1, 2),
    Keyframes(2, 3),
    TokenDiversity(2, 1),
    SelfSelective(2, 1),
    ProbeSaliency(2, 1, 4),
]
ONE_WAIT = [MotionKeyframes(4.0, 3, 3), FrameDiversity(3, 1)]
HALF_ERROR = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest mean error of depth over its deviation; twice and more what benchmarks/precision.md has found on a CPU."""


def card(bench: Bench) -> Iterator[str]:
    """GPU and its rates."""
    if bench.on_cuda:
        properties = torch.cuda.get_device_properties(bench.device)
        yield f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, {properties.multi_processor_count} SMs"
        yield f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        q = torch.randn(1, 1, 64, 64, device=bench.device, dtype=torch.bfloat16)
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        yield f"order of attention kernels: {torch._C._get_sdp_priority_order()}"
    if not bench.on_cuda:
        bench.rates = Rates(flops=1e11, bytes=1e10)
        yield "not measured in a rehearsal: 0.1 TFLOP/s and 10 GB/s are assumed"
        return
    dtype = torch.bfloat16
    bench.rates = Rates.measured(bench.device, dtype)
    yield f"{bench.rates.flops / 1e12:.3g} TFLOP/s in a large product, {dtype} (H100, H200: about 790 expected)"
    yield f"{bench.rates.bytes / 1e12:.3g} TB/s in a large copy (H200: about 4.3 expected)"


def agreement(bench: Bench) -> Iterator[str]:
    """Agreement with a CPU and between execution modes."""
    levels = torch.arange(256, dtype=torch.uint8)
    on_device = unit_range(levels.to(bench.device)).cpu()
    bench.check("images of 8 bits are converted as on a CPU, bit-exactly", torch.equal(on_device, unit_range(levels)))
    few = {"depth": 3, "encoder_depth": 3, "dpt_layers": (0, 1, 2, 2), "camera_trunk_depth": 1}
    yield from _formats(bench, "the small network", weights="random:small")
    yield from _formats(bench, "three blocks of full width", **few)
    yield from _recordings(bench)
    yield from _pool(bench)
    yield from _kernels(bench, few)
    if bench.on_cuda and torch.cuda.device_count() > 1:
        frames = bench.images(4)
        found = _pushed(StreamSession(bench.network(device="cuda:1", weights="random:small")), frames)
        expected = _pushed(StreamSession(bench.network(weights="random:small")), frames)
        bench.check("cuda:1 computes what cuda:0 does", _apart(found, expected) <= 1e-2, "bfloat16")
        timer = StreamSession(
            bench.network(device="cuda:1", weights="random:small"), policy=SlidingWindow(1, 1), step_mode="cuda_graph"
        )
        bench.check("a step is recorded on cuda:1", len(_pushed(timer, frames)) == 4)
    else:
        yield "- skipped: a second card (there is none)"


def _formats(bench: Bench, title: str, **network) -> Iterator[str]:
    frames = bench.images(4, 224, 224)
    cpu = _pushed(StreamSession(bench.network(torch.float32, device="cpu", **network)), [x.cpu() for x in frames])
    before = torch.backends.cudnn.allow_tf32
    exact = StreamSession(bench.network(torch.float32, **network))  # switches TF32 off
    found = _pushed(exact, frames)
    bench.check(f"{title}: float32 is a CPU's within 1e-4", _apart(found, cpu) <= 1e-4, f"{_apart(found, cpu):.1e}")
    torch.backends.cudnn.allow_tf32 = True
    exact.reset()
    yield f"- {title}: with TF32 in convolutions {_apart(_pushed(exact, frames), cpu):.1e}"
    torch.backends.cudnn.allow_tf32 = before
    for dtype in (torch.bfloat16, torch.float16):
        half = _pushed(StreamSession(bench.network(dtype, **network)), frames)
        errors = [
            ((a.depth.float() - b.depth).abs().mean() / b.depth.std().clamp(min=1e-6)).item()
            for a, b in zip(half, found, strict=True)
        ]
        pose = max((a.pose_enc.float() - b.pose_enc).abs().max().item() for a, b in zip(half, found, strict=True))
        bench.check(
            f"{title}: {dtype} is float32 within {HALF_ERROR[dtype]}",
            max(errors) <= HALF_ERROR[dtype],
            f"depth {max(errors):.1e}, pose {pose:.1e}",
        )


def _recordings(bench: Bench) -> Iterator[str]:
    """Check that a captured step is bit-exact to the eager one, also after reset and restore."""
    model, frames = bench.network(weights="random:small"), bench.images(6 if bench.rehearse else 10, 112, 112)
    for number, policy in enumerate(RECORDED):
        for storage in (("auto", "int8")[number % 2],) if bench.rehearse else ("auto", "int8"):
            eager = StreamSession(model, policy=policy, kv_cache_dtype=storage)
            session = StreamSession(model, policy=policy, kv_cache_dtype=storage, step_mode=bench.recorded)
            expected, found = _pushed(eager, frames), _pushed(session, frames)
            session.reset()
            again = _pushed(session, frames)
            with tempfile.TemporaryDirectory() as folder:
                session.save(Path(folder) / "stream.pt")
                session.restore(Path(folder) / "stream.pt")
            beyond, expected_beyond = _pushed(session, frames[:3]), _pushed(eager, frames[:3])
            equal = _apart(found, expected) == _apart(again, expected) == _apart(beyond, expected_beyond) == 0
            bench.check(f"{policy}, {storage}: recorded = eager bit-exactly, after reset and restore too", equal)
            if bench.is_over:
                yield "- skipped: further policies"
                return


def _pool(bench: Bench) -> Iterator[str]:
    model, frames = bench.network(torch.float32, weights="random:small"), bench.images(4, 112, 112)
    pool = SessionPool(model)
    streams = [pool.open(policy=SlidingWindow(1, 1)) for _ in range(4)]
    found = []
    for frame in frames:
        futures = [stream.push(frame) for stream in streams]
        pool.step()
        found.append(futures[-1].result())
    error = _apart(found, _pushed(StreamSession(model, policy=SlidingWindow(1, 1)), frames))
    bench.check("four streams together are each alone, to rounding", error <= 1e-4, f"{error:.1e}")
    yield from ()


def _kernels(bench: Bench, few: dict) -> Iterator[str]:
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        yield "- skipped: the flash-attn package (not installed)"
        return
    q, k, v = (torch.randn(1, 16, n, 64, device=bench.device, dtype=torch.bfloat16) for n in (1041, 9369, 9369))
    exact = KERNELS["math"](q.float(), k.float(), v.float())
    errors = {name: (KERNELS[name](q, k, v).float() - exact).abs().max().item() for name in ("sdpa", "flash")}
    bench.check("flash-attn is as exact as PyTorch's kernel", errors["flash"] <= 2 * errors["sdpa"], str(errors))


def waits(bench: Bench) -> Iterator[str]:
    """Host-device synchronizations."""
    model, frames = bench.network(weights="random:small"), bench.images(8 if bench.rehearse else 12, 112, 112)
    for policy in NO_WAIT:
        number = _waiting(bench, StreamSession(model, policy=policy), frames)
        bench.check(f"{policy}: no wait in a frame", number == 0, f"{number} in 4 frames")
    for policy in ONE_WAIT:
        number = _waiting(bench, StreamSession(model, policy=policy), frames)
        bench.check(f"{policy}: one wait in a frame at most", number <= 4, f"{number} in 4 frames")
    session = StreamSession(model, policy=SlidingWindow(1, 2), step_mode=bench.recorded)
    bench.check("a recorded step: no wait", _waiting(bench, session, frames) == 0)
    yield from ()


def _waiting(bench: Bench, session: StreamSession, frames: list[torch.Tensor]) -> int:
    """Count the synchronizations of the last four frames of a stream with a full memory, by CUDA's sync debug mode."""
    _pushed(session, frames[:-4])
    with _sync_watch(bench) as seen:
        _pushed(session, frames[-4:])
    return sum("synchroniz" in str(warning.message) for warning in seen)


@contextmanager
def _sync_watch(bench: Bench) -> Iterator[list]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if bench.on_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            if bench.on_cuda:
                torch.cuda.set_sync_debug_mode("default")


def _pushed(session: StreamSession, frames: list[torch.Tensor]) -> list[Prediction]:
    return [session.push(frame) for frame in frames]


def _apart(found: list[Prediction], expected: list[Prediction]) -> float:
    """Return the largest difference of depth and pose over all frames, relative to the largest value of each."""
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("depth", "pose_enc"):
            x, y = (getattr(prediction, name).float().cpu() for prediction in (ours, theirs))
            worst = max(worst, ((x - y).abs().max() / y.abs().max()).item())
    return worst

"""Sections of benchmarks/gpu.py on speed and memory of streams."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_bench import HEADS, Bench, frame_times
from roofline import Roofline
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from streamvggt import (
    VGGT,
    FrameDiversity,
    KeepAll,
    ProbeSaliency,
    SelfSelective,
    SlidingWindow,
    StreamSession,
    TokenDiversity,
)

TARGETS = {1: 8, 10: 8, 50: 20, 100: 32}
"""Milliseconds of a frame of 518×392 on an H200 that sees so many earlier frames."""
FLAT = 0.03
"""Largest change of the median time per 1,000 frames of a bounded stream."""


def targets(bench: Bench) -> Iterator[str]:
    """Time of a frame by the number of cached frames, with its lower bound."""
    model = bench.network().requires_grad_(False)  # the FLOP counter would look for gradients
    steps = ["eager", bench.recorded, *(["compile"] if bench.compiled and bench.on_cuda else [])]
    for height, width in ((392, 518),) if bench.rehearse else ((392, 518), (294, 518)):
        images = bench.images(8, height, width)
        floor = Roofline.of(model, images[0][None, None], bench.rates)
        yield f"\nrandom:full, bfloat16, {width}×{height}, {', '.join(HEADS)}; medians of 30 frames\n"
        yield "| frames seen | step | ms | p95, ms | floor, ms | target | kernels a frame | device at work |"
        yield "|---|---|---|---|---|---|---|---|"
        for held in (1,) if bench.rehearse else TARGETS:
            for step in steps:
                if bench.is_over:
                    yield "\nThe time of this section is over."
                    return
                yield _row(bench, model, images, held, step, floor, TARGETS.get(held) if height == 392 else None)
            bench.free()
    yield "\nWeights of convolutions, eager, one frame seen:\n"
    yield from _layouts(bench, model, bench.images(8))


def _row(
    bench: Bench, model: VGGT, images: list[Tensor], held: int, step: str, floor: Roofline, target: int | None
) -> str:
    session = StreamSession(model, policy=SlidingWindow(0, held), step_mode=step)
    number = 3 if bench.rehearse else 30
    for position in range(held + 4 + number):
        session.push(images[position % len(images)])
    ms, p95 = frame_times(session, number)
    kernels, share = _kernels(bench, session, images)
    verdict = "" if target is None else f"{'met' if ms <= target else f'missed by {ms - target:.1f}'} ({target} ms)"
    least = floor.milliseconds(session.memory)
    return f"| {held} | {step} | {ms:.2f} | {p95:.2f} | {least:.2f} | {verdict} | {kernels:.0f} | {share:.0%} |"


def _kernels(bench: Bench, session: StreamSession, images: list[Tensor], frames: int = 3) -> tuple[float, float]:
    """Return the kernels per frame and the fraction of time in which one runs. On a CPU, count operations."""
    activity = ProfilerActivity.CUDA if bench.on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        begun = time.perf_counter()
        for image in images[:frames]:
            session.push(image)
        if bench.on_cuda:
            torch.cuda.synchronize(bench.device)
        spent = time.perf_counter() - begun
    events = [event for event in profiler.events() if (event.device_type.name == "CUDA") == bench.on_cuda]
    busy = sum(event.self_device_time_total if bench.on_cuda else event.self_cpu_time_total for event in events)
    return len(events) / frames, busy * 1e-6 / spent


def _layouts(bench: Bench, model: VGGT, images: list[Tensor]) -> Iterator[str]:
    for name, layout in (("as they come", torch.contiguous_format), ("channels last", torch.channels_last)):
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.weight.data = module.weight.data.contiguous(memory_format=layout)
        session = StreamSession(model, policy=SlidingWindow(0, 1))
        for position in range(5 if bench.rehearse else 35):
            session.push(images[position % len(images)])
        yield f"- {name}: {frame_times(session, 2 if bench.rehearse else 30)[0]:.2f} ms"


def attention(bench: Bench) -> Iterator[str]:
    """Attention alone: 16 heads of width 64, queries of one frame, keys from a slice of a larger cache."""
    tokens, heads = (8, 2) if bench.rehearse else (1041, 16)
    dtype = torch.bfloat16
    q = torch.randn(1, heads, tokens, 64, device=bench.device, dtype=dtype)
    yield "| frames seen | kernel | first call of a new length, ms | again, ms | TFLOP/s |"
    yield "|---|---|---|---|---|"
    for held in (1, 2) if bench.rehearse else (1, 10, 50, 100):
        cache = torch.randn(2, 1, heads, (held + 8) * tokens, 64, device=bench.device, dtype=dtype)
        for name, kernel in _attentions(bench).items():
            try:
                first, again = _first_and_again(bench, partial(_over, kernel, q, cache), (held + 1) * tokens)
            except (RuntimeError, ImportError) as error:
                yield f"| {held} | {name} | does not run here: {str(error).splitlines()[0][:60]} | | |"
                continue
            rate = 4 * heads * tokens * (held + 1) * tokens * 64 / again / 1e9
            yield f"| {held} | {name} | {first:.2f} | {again:.3f} | {rate:.3g} |"
            if bench.is_over:
                return


def _over(kernel: Callable, q: Tensor, cache: Tensor, length: int) -> Tensor:
    return kernel(q, *cache[:, :, :, :length])


def _first_and_again(bench: Bench, call: Callable[[int], object], length: int) -> tuple[float, float]:
    """Return the milliseconds of a call with a new number of keys (some kernels plan it), and of a later one."""
    call(length)  # loads the kernel
    first = min(bench.milliseconds(partial(call, length - fewer), 1, warm=False) for fewer in (1, 2, 3))
    return first, bench.milliseconds(partial(call, length), 20)


def _attentions(bench: Bench) -> dict:
    if not bench.on_cuda:
        return {"math": scaled_dot_product_attention}

    def by(backend: SDPBackend):
        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v)

        return call

    def packaged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from flash_attn import flash_attn_func

        return flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))

    def third(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl

        activate_flash_attention_impl("FA3")
        try:
            return by(SDPBackend.FLASH_ATTENTION)(q, k, v)
        finally:
            restore_flash_attention_impl()

    named = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    named["efficient"] = SDPBackend.EFFICIENT_ATTENTION
    return {**{name: by(backend) for name, backend in named.items()}, "flash-attn": packaged, "FA3": third}


def endurance(bench: Bench) -> Iterator[str]:
    """Ten thousand frames of one bounded stream, and 300 of others."""
    model, images = bench.network(), bench.images(16)
    part = 6 if bench.rehearse else 1000
    session = StreamSession(model, policy=SlidingWindow(1, 8 if not bench.rehearse else 1), step_mode=bench.recorded)
    medians, memory = [], []
    for number in range(1, (3 if bench.rehearse else 10) + 1):
        for position in range(part):
            session.push(images[position % len(images)])
        medians.append(frame_times(session, part)[0])
        memory.append(bench.allocated())
        yield (
            f"- up to frame {number * part:,}: median {medians[-1]:.2f} ms, "
            f"{memory[-1][0]:.3f} GB allocated, {memory[-1][1]:.3f} GB reserved"
        )
        if bench.is_over:
            break
    bench.check("a bounded stream takes no more memory after the first part", len(set(memory)) == 1)
    spread = max(abs(median / statistics.median(medians) - 1) for median in medians)
    yield f"- time per frame: {'flat' if spread <= FLAT else 'not flat'}, within {spread:.1%} of the median"
    others = [FrameDiversity(8, 1), SelfSelective(8), TokenDiversity(8), ProbeSaliency(5)]
    if bench.rehearse:
        others = [FrameDiversity(2, 1), SelfSelective(2, 1), TokenDiversity(2, 1), ProbeSaliency(2, 1, 4)]
    for policy in others:
        bench.free()
        session = StreamSession(model, policy=policy)
        for position in range(5 if bench.rehearse else 300):
            session.push(images[position % len(images)])
        ms, p95 = frame_times(session, 2 if bench.rehearse else 200)
        yield f"- {policy}: {ms:.2f} ms, p95 {p95:.2f}; {session.num_bytes / 1e9:.2f} GB"


def peaks(bench: Bench) -> Iterator[str]:
    """Peak memory of the device."""
    bench.forget_peak()
    begun = time.perf_counter()
    model, images = bench.network(), bench.images(8)
    size = sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e9
    yield f"- loading: {time.perf_counter() - begun:.1f} s; weights {size:.2f} GB, {_said(bench.peak())}"
    longest = 4 if bench.rehearse else 100
    for storage in ("auto", "int8"):
        bench.forget_peak()
        session = StreamSession(model, policy=KeepAll(), kv_cache_dtype=storage)
        for number in range(1, longest + 1):
            session.push(images[number % len(images)])
            if number in (longest // 10, longest // 2, longest):
                yield (
                    f"- all frames, {storage}, {number}: memory {session.num_bytes / 1e9:.2f} GB, {_said(bench.peak())}"
                )
    before = bench.allocated()[0]
    bench.forget_peak()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        session.save(Path(folder) / "stream.pt")
        extra = bench.peak()[0] - before
        yield f"- saving that stream: {extra:.3f} GB more on the device, {time.perf_counter() - begun:.1f} s"
    bench.check("saving takes no room on the device", extra <= 0.05 * max(session.num_bytes / 1e9, 1e-3))
    del session
    bench.forget_peak()
    recorded = StreamSession(model, policy=SlidingWindow(1, 8 if not bench.rehearse else 1), step_mode=bench.recorded)
    for position in range(12):
        recorded.push(images[position % len(images)])
    yield f"- recording a step that sees 9 frames: {_said(bench.peak())}"


def _said(peak: tuple[float, float]) -> str:
    return f"at most {peak[0]:.2f} GB allocated, {peak[1]:.2f} GB reserved"

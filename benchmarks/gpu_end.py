"""Sections of benchmarks/gpu.py on complete programs: reconstruct from files to files, and training steps."""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from components import attention_flops
from gpu_bench import HEADS, Bench, frame_times
from PIL import Image
from roofline import synchronize
from torch.utils.flop_counter import FlopCounterMode

from streamvggt import VGGT, SlidingWindow, StreamSession
from streamvggt.cli import main as command_line
from streamvggt.data.view import Batch
from streamvggt.losses.distill import DistillLoss
from streamvggt.stream.frames import load_frames
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import Teacher
from streamvggt.training.trainer import Trainer

CLIP = Path(__file__).parents[1] / "assets" / "clip.mp4"


def end_to_end(bench: Bench) -> Iterator[str]:
    """Frames per second of `streamvggt reconstruct`, from JPEG files to results."""
    few, many = (2, 4) if bench.rehearse else (20, 300)
    size = 56 if bench.rehearse else 518
    weights, device = "random:small" if bench.rehearse else "random:full", "cuda" if bench.on_cuda else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        clip = [frame.original for frame in load_frames(CLIP, size=56, max_frames=min(many, 48))]
        for number in range(many):
            large = Image.fromarray(clip[number % len(clip)]).resize((1920, 1080) if not bench.rehearse else (64, 48))
            large.save(photos / f"{number:04d}.jpg", quality=92)
        spent = []
        for number in (few, many):
            arguments = ["reconstruct", photos, "--out", Path(folder) / f"out{number}", "--weights", weights]
            arguments += ["--max-frames", number, "--size", size, "--policy", "window:1,8", "--device", device]
            begun = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as outputs:
                status = command_line([str(argument) for argument in arguments])
            spent.append(time.perf_counter() - begun)
            bench.check(f"reconstruct of {number} frames ends well", status == 0, outputs.getvalue()[-200:].strip())
    if spent[1] <= spent[0]:
        yield "- loading took longer than all frames: no rate"
        return
    rate = (many - few) / (spent[1] - spent[0])
    yield f"- {many} JPEGs of 1920×1080 at size {size}, camera and depth, eager: {rate:.1f} frames/s, loading apart"
    session = StreamSession(bench.network(heads=("camera", "depth")), policy=SlidingWindow(1, 8))
    for image in bench.images(4, 294, 518) * (2 if bench.rehearse else 10):
        session.push(image)
    ms = frame_times(session, 4 if bench.rehearse else 30)[0]
    yield f"- the network alone: {1000 / ms:.1f} frames/s; the device is at work {rate * ms / 1000:.0%} of the time"


class OneBatch:
    """Returns one batch for every step. Data loading is measured elsewhere."""

    def __init__(self, num_frames: int, height: int, width: int):
        generator = torch.Generator().manual_seed(0)
        shape = (1, num_frames, height, width)
        self.batch = Batch(
            images=torch.rand(1, num_frames, 3, height, width, generator=generator),
            depth=1 + torch.rand(shape, generator=generator),
            valid=torch.ones(shape, dtype=torch.bool),
            sky=torch.zeros(shape, dtype=torch.bool),
            intrinsics=torch.eye(3).expand(1, num_frames, 3, 3).clone(),
            cam_from_world=torch.eye(4)[:3].expand(1, num_frames, 3, 4).clone(),
            is_metric=torch.zeros(1, dtype=torch.bool),
        )

    def __getitem__(self, index: int) -> Batch:
        return self.batch


def training(bench: Bench) -> Iterator[str]:
    """Published training step: 10 frames, a teacher, a frozen encoder."""
    height, width = (28, 42) if bench.rehearse else (392, 518)
    data = OneBatch(2 if bench.rehearse else 10, height, width)
    yield "| precision | checkpointing | s a step | images/s | TFLOP of a step | of the measured rate | peak, GB |"
    yield "|---|---|---|---|---|---|---|"
    teacher = bench.network(torch.float32, causal=False)
    for precision, checkpointing in (("bf16", True), ("bf16", False), ("fp16", True)):
        if not bench.on_cuda and precision == "fp16":
            continue
        bench.forget_peak()
        student = bench.network(torch.float32, activation_checkpointing=checkpointing).train()
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield _training_row(bench, student, teacher, data, precision, checkpointing, Path(folder))
            except torch.OutOfMemoryError:
                yield f"| {precision} | {checkpointing} | does not fit | | | | |"
        del student
        if bench.is_over:
            yield "\nThe time of this section is over."
            return


def _training_row(
    bench: Bench, student: VGGT, teacher: VGGT, data: OneBatch, precision: str, checkpointing: bool, folder: Path
) -> str:
    trainer = Trainer(
        model=student,
        supervision=Teacher(teacher),
        loss=DistillLoss(track=None),
        data=data,
        optim=OptimConfig(lr=1e-6, steps=100, freeze=["aggregator.patch_embed.*"]),
        output_dir=folder,
        precision=precision,
    )
    try:
        steps = trainer.steps(8)
        spent = []
        for _ in range(3 if bench.rehearse else 8):
            begun = time.perf_counter()
            next(steps)
            synchronize(bench.device)
            spent.append(time.perf_counter() - begun)
        seconds = statistics.median(spent[1 if bench.rehearse else 3 :])
        student.requires_grad_(False)  # the FLOP counter would look for gradients
        flops = _step_flops(student, teacher, data.batch.images.to(bench.device))
    finally:
        trainer.log.close()
    images = data.batch.num_frames / seconds
    share = flops / seconds / bench.rates.flops
    return (
        f"| {precision} | {'yes' if checkpointing else 'no'} | {seconds:.3f} | {images:.1f} | {flops / 1e12:.3g} "
        f"| {share:.0%} | {bench.peak()[0]:.1f} |"
    )


def _step_flops(student: VGGT, teacher: VGGT, images: torch.Tensor) -> float:
    """FLOPs of the teacher's forward pass and of the student's forward and backward, without recomputation."""
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}

    def forward(call: Callable[[], object]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
            call()
        return counter.get_total_flops()

    encoder = forward(lambda: student.aggregator.encode_patches(images))  # frozen, and shared with the teacher
    whole = forward(lambda: student(images, heads=HEADS))
    return forward(lambda: teacher(images, heads=HEADS)) + 3 * (whole - encoder)

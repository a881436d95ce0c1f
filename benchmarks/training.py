"""Measure training throughput: steps and images per second, and the fraction of the machine's peak FLOPs.

    python benchmarks/training.py finetune_tiny data=synthetic num_frames=[8,8] xfeat_weights=null --out out/training.md

The first arguments are a configuration and overrides, as for src/train.py. The weights can be random. `data=synthetic`
and `xfeat_weights=null` need no rendered clips and no download. The step uses one batch, so its time is the same.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import hydra
import torch
from environment_info import output_path, publish
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from streamvggt.flags import whole

CONFIG = str(Path(__file__).parent.parent / "config")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=whole(), default=12)
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    with hydra.initialize_config_dir(CONFIG, version_base=None), tempfile.TemporaryDirectory() as folder:
        config = hydra.compose(arguments.config, [*arguments.overrides, f"output_dir={folder}"])
        trainer = hydra.utils.instantiate(config.trainer, _convert_="all")
        data = trainer.data
        begun = time.perf_counter()
        batch = data[0]
        loading = time.perf_counter() - begun

        class Same:
            def __getitem__(self, index):
                return batch

        trainer.data = Same()  # the network only; loading is timed separately
        trainer.num_workers = 0
        seconds = []
        for _ in trainer.steps(2):
            pass
        for _ in range(arguments.steps):
            begun = time.perf_counter()
            for _ in trainer.steps(1):
                pass
            synchronize(trainer.device)
            seconds.append(time.perf_counter() - begun)
        with FlopCounter() as counter:
            for _ in trainer.steps(1):
                pass
        trainer.log.close()
    step = statistics.median(seconds)
    images = batch.num_sequences * batch.num_frames * trainer.gradient_accumulation_steps
    peak = matmul_flops(trainer.device, config.trainer.precision)
    height, width = batch.images.shape[-2:]
    flops = counter.flops
    lines = [
        f"# Training throughput: {arguments.config}",
        "",
        f"{batch.num_sequences} × {batch.num_frames} images of {width}×{height} per micro-batch, "
        f"precision {config.trainer.precision}.",
        "",
        "| | |",
        "|---|---|",
        f"| median of {arguments.steps} steps | {step:.3f} s ({min(seconds):.3f} to {max(seconds):.3f}) |",
        f"| images per second | {images / step:.1f} |",
        f"| loading one batch (one process) | {loading:.3f} s |",
        f"| arithmetic per step, forward and backward | {flops / 1e9:.1f} GFLOP |",
        f"| achieved | {flops / step / 1e9:.1f} GFLOP/s |",
        f"| fraction of the rate of a large matrix product ({peak / 1e9:.0f} GFLOP/s) "
        f"| {flops / step / peak * 100:.0f} % |",
    ]
    publish(lines, arguments.out, trainer.device)


class FlopCounter(TorchDispatchMode):
    """Count the FLOPs of forward and backward pass.

    PyTorch's FlopCounterMode also tracks modules and fails if a module gets a parameter as input without gradient.
    """

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=output)
        return output


def matmul_flops(device: torch.device, precision: str) -> float:
    """Return the FLOPs per second of a matrix product of 4,096 (2,048 on a CPU)."""
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    side = 4096 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        synchronize(device)
        begun = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

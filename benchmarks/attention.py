"""Compare attention kernels for one frame against a KV cache, at the head width of the released network (64).

    python benchmarks/attention.py --out benchmarks/attention.md

On CUDA: PyTorch's kernels separately (flash, cuDNN, memory-efficient), PyTorch's own choice, and the flash-attn package
if it is installed. On a CPU: PyTorch's kernel and the explicit formula in tiles.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from components import clock, flops_per_second
from environment_info import output_path, publish
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamvggt.flags import whole
from streamvggt.layers.attention import KERNELS, check_kernel, get_kernel

HEADS, WIDTH, TOKENS = 16, 64, 1041  # the released network at 518×392
BACKENDS = {
    "PyTorch: flash": SDPBackend.FLASH_ATTENTION,
    "PyTorch: cuDNN": SDPBackend.CUDNN_ATTENTION,
    "PyTorch: memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def through(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return KERNELS["sdpa"](q, k, v)


def kernels(device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    if device.type == "cpu":
        return {"PyTorch": torch.nn.functional.scaled_dot_product_attention, "explicit, in tiles": KERNELS["math"]}
    found = {"sdpa: PyTorch chooses": KERNELS["sdpa"]}
    if device.type == "cuda":
        found |= {name: partial(through, backend) for name, backend in BACKENDS.items()}
        try:
            check_kernel("flash", device, dtype)
            found["flash: the flash-attn package"] = get_kernel("flash")
        except (ImportError, ValueError) as error:
            print(f"skipped: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], choices=("float32", "bfloat16", "float16"))
    parser.add_argument(
        "--frames", type=whole(), nargs="+", default=[1, 2, 9, 50, 100], help="number of attended frames"
    )
    parser.add_argument("--tokens", type=whole(), default=TOKENS, help="of a frame")
    parser.add_argument("--heads", type=whole(), default=HEADS)
    parser.add_argument("--times", type=whole(), default=10)
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    read = clock(device)
    rows = []
    for dtype_name in arguments.dtypes:
        dtype = getattr(torch, dtype_name)
        rate = flops_per_second(dtype, device)
        for name, kernel in kernels(device, dtype).items():
            cells = []
            for frames in arguments.frames:
                shape = (1, arguments.heads, arguments.tokens * frames, WIDTH)
                k, v = (torch.randn(shape, dtype=dtype, device=device) for _ in range(2))
                q = torch.randn(1, arguments.heads, arguments.tokens, WIDTH, dtype=dtype, device=device)
                seconds = []
                try:
                    for _ in range(arguments.times + 1):
                        begun = read()
                        kernel(q, k, v)
                        seconds.append(read() - begun)
                except RuntimeError as error:  # a backend that does not support this case
                    cells.append(str(error).splitlines()[0][:40])
                    continue
                spent = statistics.median(seconds[1:])
                flops = 4 * arguments.tokens**2 * frames * arguments.heads * WIDTH
                cells.append(f"{spent * 1e3:.3g} ({flops / spent / rate:.0%})")
            rows.append(f"| {dtype_name}, {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    how = "processor time of the one thread" if read is time.thread_time else "on the wall"
    report = [
        "# Attention of one frame over its memory",
        "",
        f"{arguments.tokens} queries, {arguments.heads} heads of {WIDTH}. Milliseconds of a layer, medians {how},",
        "and its FLOPs over the rate of a large matrix product in the same number format.",
        "",
        "| | " + " | ".join(f"{frames} frames" if frames > 1 else "1 frame" for frames in arguments.frames) + " |",
        "|---" * (len(arguments.frames) + 1) + "|",
        *rows,
    ]
    publish(report, arguments.out, device)


if __name__ == "__main__":
    main()

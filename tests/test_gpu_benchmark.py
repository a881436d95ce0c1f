"""The benchmark for a GPU runs from end to end; here with toy sizes on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_section_is_rehearsed(tmp_path):
    out = tmp_path / "gpu.md"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--rehearse", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    output = out.read_text(encoding="utf-8")
    assert done.returncode == 0, output + done.stderr[-2000:]
    assert output.count("\n## ") == 9
    assert "FAILED" not in output and "Skipped: the time is over" not in output


def test_without_a_gpu_it_says_what_to_do(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--out", tmp_path / "gpu.md"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--rehearse" in done.stderr

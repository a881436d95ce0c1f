"""The benchmark for a GPU runs from end to end; here with toy sizes on a CPU."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_section_is_rehearsed(tmp_path):
    out = tmp_path / "gpu.md"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--rehearse", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    output = out.read_text(encoding="utf-8")
    assert done.returncode == 0, output + done.stderr[-2000:]
    assert output.count("\n## ") == 9
    assert "FAILED" not in output and "Skipped: time limit reached" not in output
    assert "The time of this section is over" not in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.md")])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")
    assert "--rehearse" in capsys.readouterr().err

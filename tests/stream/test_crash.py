"""A stream whose process is killed continues from its saved state as if nothing had happened."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import killed_process
import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_killed_stream_continues_bit_exactly(tmp_path):
    tests = Path(killed_process.__file__).parent
    path = os.pathsep.join([str(tests.parent / "src"), str(tests)])
    subprocess.run(
        [sys.executable, killed_process.__file__, tmp_path], check=True, env={**os.environ, "PYTHONPATH": path}
    )
    for name in killed_process.POLICIES:
        whole = (tmp_path / name / "whole" / "answers.txt").read_text(encoding="utf-8").splitlines()
        killed = (tmp_path / name / "killed" / "answers.txt").read_text(encoding="utf-8").splitlines()
        assert len(whole) == killed_process.NUM_FRAMES
        assert set(killed) == set(whole)  # those that were computed twice, too
        times = Counter(int(line.split()[0]) for line in killed)
        # Killed after 20, saved at 14; while saving 59, saved at 44; after 60, saved at 59; twice while saving 104.
        assert times == Counter([*range(150), *range(15, 21), *range(45, 61), *(2 * [*range(90, 105)])])

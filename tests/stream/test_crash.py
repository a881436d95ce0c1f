"""A stream whose process is killed continues from its saved state as if nothing had happened."""

import os
from collections import Counter

import killed_process
import pytest
from launching import finish, start


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_killed_stream_continues_bit_exactly(tmp_path):
    done = finish(start(killed_process.run_all, tmp_path, folder=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    for name in killed_process.POLICIES:
        whole = (tmp_path / name / "whole" / "answers.txt").read_text(encoding="utf-8").splitlines()
        killed = (tmp_path / name / "killed" / "answers.txt").read_text(encoding="utf-8").splitlines()
        assert len(whole) == killed_process.NUM_FRAMES
        assert set(killed) == set(whole)  # those that were computed twice, too
        times = Counter(int(line.split()[0]) for line in killed)
        # Killed after 10, saved at 7; while saving 31, saved at 23; after 32, saved at 31; twice while saving 55.
        assert times == Counter([*range(60), *range(8, 11), *range(24, 33), *(2 * [*range(48, 56)])])

"""The result of a run does not depend on who reads its messages."""

import json
import os
import subprocess
import sys

import pytest

from streamvggt.cli.streams import LastingStream


@pytest.mark.skipif(os.name == "nt", reason="shell syntax of POSIX")
@pytest.mark.parametrize("redirection", ["| head -0", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_is_finished_without_a_reader_of_its_messages(photos, options, tmp_path, redirection):
    words = [sys.executable, "-u", "-m", "streamvggt", "reconstruct", photos, "--out", tmp_path / "out"]
    words += [*options, "--max-frames", "2"]
    script = f'set -o pipefail; "$@" {redirection}'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["status"] == "finished"


def test_a_stream_drops_its_text_after_the_end_of_its_reader(tmp_path):
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as pipe:
        stream = LastingStream(pipe)
        os.close(reader)
        for _ in range(2):
            assert stream.write("text") == 4
            stream.flush()

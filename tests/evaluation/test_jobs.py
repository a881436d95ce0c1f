"""Work that is stopped and gone on with, split over processes, and records that keep two configurations apart."""

import os
import shutil
import sys

import numpy as np
import pytest

from streamvggt.evaluation.jobs import FailureLog, Job, is_complete, load_prediction, run_jobs, save_array, save_arrays
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.evaluation.run_metadata import open_run, read_run, read_scores, write_scores


def process(rank=0, count=1) -> ProcessGroup:
    processes = ProcessGroup()
    processes.rank, processes.count, processes.barrier = rank, count, lambda: None
    return processes


def go(folder, made, fail=(), names=("a", "b", "c", "d", "e"), processes=None):
    processes = processes or process()
    outcome = FailureLog(processes)
    jobs = [Job(name, [folder / f"{name}.npy"]) for name in names]

    def make(job):
        if job.name in fail:
            raise ValueError("too difficult")
        made.append(job.name)
        save_array(job.paths[0], np.full(3, ord(job.name)))

    run_jobs(jobs, make, processes, outcome, title="test")
    return outcome.finish()


def test_what_is_there_is_not_made_again_and_what_is_damaged_is(tmp_path, capsys):
    made = []
    assert go(tmp_path, made, fail=("b", "d")) == 1
    assert made == ["a", "c", "e"]
    output = capsys.readouterr().err
    assert "test, b: too difficult" in output and "2 problems, see above: test, b; test, d" in output
    damaged = tmp_path / "c.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    made.clear()
    assert go(tmp_path, made) == 0
    assert made == ["b", "c", "d"]
    assert "c.npy is damaged" in capsys.readouterr().err
    assert load_prediction(damaged).tolist() == [ord("c")] * 3


def test_processes_share_the_work_without_rest(tmp_path):
    made = [[], []]
    for rank in range(2):
        go(tmp_path, made[rank], processes=process(rank, 2))
    assert made == [["a", "c", "e"], ["b", "d"]]


def test_damage_is_seen(tmp_path):
    save_arrays(tmp_path / "x.npz", depth=np.arange(100), pose=np.eye(3))
    assert is_complete(tmp_path / "x.npz")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    assert not is_complete(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x\.npz is damaged"):
        load_prediction(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="missing"):
        load_prediction(tmp_path / "y.npz")


def run(folder, **settings):
    settings = {"weights_fingerprint": "abc", "dtype": "float32", **settings}
    with process() as processes:
        open_run(folder, protocol="monodepth", dataset="nyu", settings=settings, metadata={}, processes=processes)


def test_a_result_never_mixes_two_configurations(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "a")
    with pytest.raises(ValueError, match=r"dtype was 'float32' and is now 'bfloat16'.*choose another --output_dir"):
        run(tmp_path / "a", dtype="bfloat16")
    record = read_run(tmp_path / "a")
    assert record["settings"]["dtype"] == "float32"
    assert record["command"] == sys.argv and "torch" in record["versions"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0001depth.npy").write_text("of another program", encoding="utf-8")
    with pytest.raises(ValueError, match="their settings are unknown"):
        run(tmp_path / "b")


def test_two_evaluations_do_not_share_a_folder(tmp_path):
    with process() as processes:
        open_run(tmp_path / "a", protocol="x", dataset="y", settings={}, metadata={}, processes=processes)
        open_run(tmp_path / "a", protocol="x", dataset="y", settings={}, metadata={}, processes=processes)
        with pytest.raises(BlockingIOError, match=f"held by process {os.getpid()} on"):
            run(tmp_path / "a")
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(FileNotFoundError, match="it was deleted or moved"):
            go(tmp_path / "a", [], processes=processes)
    assert not (tmp_path / "a").exists()


def test_every_flipped_bit_of_a_prediction_is_noticed(tmp_path):
    save_array(tmp_path / "x.npy", np.arange(100))
    whole = (tmp_path / "x.npy").read_bytes()
    for place in range(0, len(whole), 31):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "x.npy").write_bytes(damaged)
        assert not is_complete(tmp_path / "x.npy")


def test_scores_of_several_kinds_lie_side_by_side(tmp_path):
    write_scores(tmp_path, "scale", {"Abs Rel": 0.1}, {"alley_1": {"Abs Rel": 0.1}})
    write_scores(tmp_path, "metric", {"Abs Rel": 0.3}, {"alley_1": {"Abs Rel": 0.3}})
    write_scores(tmp_path, "scale", {"Abs Rel": 0.2}, {"alley_1": {"Abs Rel": 0.2}})
    scores = read_scores(tmp_path)
    assert {name: score["numbers"]["Abs Rel"] for name, score in scores.items()} == {"scale": 0.2, "metric": 0.3}

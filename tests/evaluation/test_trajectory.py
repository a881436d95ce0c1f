"""Camera trajectories: the readers, and the whole command on the procedural world."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt import cli
from streamvggt.data.decode import DataError
from streamvggt.datasets import get_module
from streamvggt.evaluation import trajectory
from streamvggt.evaluation.jobs import run_main, save_arrays
from streamvggt.geometry.camera import compose_poses, invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion

ROOT = Path(__file__).parents[2]
LAYOUT_OF = {"sintel": "sintel", "tum": "tum", "scannet": "scannetv2"}
FRAMES = 4


@pytest.fixture(scope="module")
def clips():
    return world_clips(2, FRAMES, 42, 56)


@pytest.fixture(scope="module")
def data(tmp_path_factory, clips) -> Path:
    root = tmp_path_factory.mktemp("eval")
    for name in LAYOUT_OF.values():
        get_module(name).write(root, clips)
    return root


def run(data: Path, out: Path, weights: Path, *more) -> int:
    argv = ["--data_root", data, "--output_dir", f"{out}/{{data}}", "--weights", weights, *more]
    return run_main(lambda: trajectory.main([str(word) for word in argv]))


@pytest.fixture(scope="module")
def once(data, weights, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("once")
    assert run(data, out, weights) == 0
    return out


def numbers(out: Path, dataset: str) -> dict[str, float]:
    return json.loads((out / dataset / "result.json").read_text(encoding="utf-8"))


def predictions(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("*/*.npz") if not path.stem.endswith("-aligned"))


def with_poses(once: Path, out: Path, data: Path, change) -> Path:
    """A finished run with poses computed by `change` from ground truth."""
    shutil.copytree(once, out)
    for path in predictions(out):
        true = trajectory.SETS[path.parent.name](data).read(path.stem).cam_from_world
        save_arrays(path, **dict(np.load(path)) | {"cam_from_world": change(true).numpy()})
    return out


@pytest.mark.parametrize("dataset", trajectory.SETS)
def test_readers_give_back_what_was_written(dataset, data, clips):
    reader = trajectory.SETS[dataset](data)
    assert len(reader.scenes) == 2
    for sequence, clip in zip(reader.scenes, clips, strict=True):
        found = reader.read(sequence)
        true = torch.stack([view.cam_from_world for view in clip]).double()
        torch.testing.assert_close(found.cam_from_world, true, atol=1e-5, rtol=0)
        assert len(found.images) == FRAMES and all(path.exists() for path in found.images)


def test_ground_truth_is_perfect_in_any_world_and_scale(data, once, weights, tmp_path):
    half = torch.tensor([0.3, -0.2, 0.5, 1.0], dtype=torch.float64)
    world = torch.cat([matrix_from_quaternion(half), torch.tensor([[1.0], [2], [3]]).double()], -1)

    def moved(true):
        poses = compose_poses(true, world)
        poses[..., 3] *= 7
        return poses

    out = with_poses(once, tmp_path / "out", data, moved)
    assert run(data, out, weights, "--score_only") == 0
    for dataset in trajectory.SETS:
        found = numbers(out, dataset)
        assert found == pytest.approx({"ATE": 0, "RPE trans": 0, "RPE rot": 0}, abs=1e-4)


def test_errors_by_hand(data, once, weights, tmp_path):
    """The last camera turned by 12° about its own axis: one step of three is off, by that; all centers are right."""
    c, s = math.cos(math.radians(12)), math.sin(math.radians(12))
    turn = torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0]], dtype=torch.float64)
    out = with_poses(once, tmp_path / "turned", data, lambda true: torch.cat([true[:3], compose_poses(turn, true[3:])]))
    assert run(data, out, weights, "--score_only") == 0
    expected = {"ATE": 0, "RPE trans": 0, "RPE rot": 12 / math.sqrt(3)}
    assert numbers(out, "tum") == pytest.approx(expected, abs=1e-4)
    # A camera that does not move: the true centers are as far from it as from their middle.
    out = with_poses(once, tmp_path / "still", data, lambda true: true[:1].expand(FRAMES, 3, 4))
    assert run(data, out, weights, "--score_only") == 0
    spreads, steps = [], []
    for sequence in trajectory.SETS["scannet"](data).scenes:
        centers = invert_pose(trajectory.SETS["scannet"](data).read(sequence).cam_from_world)[..., 3]
        spreads.append((centers - centers.mean(0)).square().sum(-1).mean().sqrt())
        steps.append(centers.diff(dim=0).square().sum(-1).mean().sqrt())
    found = numbers(out, "scannet")
    assert found["ATE"] == pytest.approx(sum(spreads).item() / 2, rel=1e-5)
    assert found["RPE trans"] == pytest.approx(sum(steps).item() / 2, rel=1e-5)


def test_both_ways_are_kept_for_images(once):
    shown = np.load(once / "sintel" / "alley_2-aligned.npz")
    assert shown["world_from_cam"].shape == shown["true_world_from_cam"].shape == (FRAMES, 3, 4)


def test_unknown_poses_do_not_count(data, weights, tmp_path):
    shutil.copytree(data / "scannetv2", tmp_path / "data/scannetv2")
    path = tmp_path / "data/scannetv2/scene0707_00/pose_90.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = " ".join(["-inf"] * 16)
    path.write_text("\n".join(lines), encoding="utf-8")
    assert run(tmp_path / "data", tmp_path / "out", weights, "--eval_dataset", "scannet") == 0
    shown = np.load(tmp_path / "out/scannet/scene0707_00-aligned.npz")
    assert shown["frames"].tolist() == ["frame_0000", "frame_0002", "frame_0003"]


def test_an_interrupted_run_continues_to_the_same_numbers(data, once, weights, tmp_path, monkeypatch, capsys):
    calls = []
    predict = trajectory.ModelRunner.predict_sequence

    def stops_at_the_fourth(self, images):
        calls.append(images)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return predict(self, images)

    monkeypatch.setattr(trajectory.ModelRunner, "predict_sequence", stops_at_the_fourth)
    assert run(data, tmp_path, weights) == 130
    assert len(predictions(tmp_path)) == 3
    damaged = predictions(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert run(data, tmp_path, weights) == 0
    assert len(calls) == 4 + 1 + 3
    assert f"{damaged} is damaged" in capsys.readouterr().err
    for dataset in trajectory.SETS:
        assert numbers(tmp_path, dataset) == numbers(once, dataset)


def test_two_processes_make_the_same_numbers(data, once, weights, tmp_path, process_of_two):
    """One after the other, so the first one cannot score the second's share yet."""
    for rank in (0, 1):
        with process_of_two(rank):
            assert run(data, tmp_path, weights) == 1 - rank
        assert len(predictions(tmp_path)) == 3 * (rank + 1)
    assert run(data, tmp_path, weights, "--score_only") == 0
    for dataset in trajectory.SETS:
        assert numbers(tmp_path, dataset) == numbers(once, dataset)


def test_what_is_missing_damaged_or_different_is_reported(data, once, weights, tmp_path, capsys):
    shutil.copytree(data / "tum", tmp_path / "data/tum")
    assert run(tmp_path / "data", tmp_path / "out", weights) == 1
    output = capsys.readouterr()
    assert "sintel is skipped: no folder at" in output.err and "tum      ATE" in output.out
    assert run(data, once, weights, "--pose_eval_stride", 2) == 1
    assert "stride was 1 and is now 2" in capsys.readouterr().err
    assert run(data, once, weights, "--eval_dataset", "tum", "--seq_list", "nowhere") == 1
    assert "has no nowhere, only rgbd_dataset" in capsys.readouterr().err
    (path,) = (tmp_path / "data/tum").glob("*sitting_halfsphere/groundtruth_90.txt")
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    with pytest.raises(DataError, match="4 images but 3 poses"):
        trajectory.SETS["tum"](tmp_path / "data").read(path.parent.name)
    path.write_text("1 2 3", encoding="utf-8")
    with pytest.raises(DataError, match="expected lines of 8 numbers"):
        trajectory.SETS["tum"](tmp_path / "data").read(path.parent.name)


@pytest.mark.slow
def test_run_sh_with_vggt(data, weights, tmp_path):
    chosen = {"DATA_ROOT": str(data), "WEIGHTS": str(weights), "DEVICE": "cpu", "MODEL_NAME": "VGGT"}
    chosen |= {"OUTPUT": f"{tmp_path}/{{data}}_{{model_name}}", "DATASETS": "sintel tum"}
    words = ["bash", "eval/trajectory/run.sh"]
    done = subprocess.run(words, cwd=ROOT / "src", env=os.environ | chosen, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(numbers(tmp_path, "tum_VGGT")) == {"ATE", "RPE trans", "RPE rot"}
    assert (
        json.loads((tmp_path / "sintel_VGGT/run.json").read_text(encoding="utf-8"))["settings"]["inference"] == "full"
    )


def test_data_check_checks_images_and_poses(data, tmp_path, capsys):
    shutil.copytree(data / "tum", tmp_path / "data/tum")
    words = ["data", "check", str(tmp_path / "data"), "tum", "--out", str(tmp_path / "check.png")]
    assert cli.main(words) == 0
    assert "ok    tum: 2 scenes, 8 frames" in capsys.readouterr().out
    damaged = next((tmp_path / "data/tum").glob("*/rgb_90/*.png"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert cli.main(words) == 1
    assert f"{damaged}: the image is cut off" in capsys.readouterr().out


def test_windows_are_an_option(data, weights, once, tmp_path):
    """Longer than the clips they change nothing; shorter they are stitched."""
    for words in ("8,2", "2,1"):
        assert run(data, tmp_path / words, weights, "--submaps", words, "--eval_dataset", "tum") == 0
        settings = json.loads((tmp_path / words / "tum" / "run.json").read_text(encoding="utf-8"))["settings"]
        assert settings["submaps"] == words and settings["heads"] == ["camera", "depth"]
    assert numbers(tmp_path / "8,2", "tum") == pytest.approx(numbers(once, "tum"), rel=1e-5)
    assert numbers(tmp_path / "2,1", "tum") != pytest.approx(numbers(once, "tum"), rel=1e-3)
    words = ("--submaps", "2,1", "--eval_dataset", "tum")
    assert run(data, tmp_path / "loop_closure", weights, *words, "--loop_closure") == 0  # there are none
    assert numbers(tmp_path / "loop_closure", "tum") == numbers(tmp_path / "2,1", "tum")
    assert run(data, tmp_path, weights, *words, "--inference", "full") == 1
    assert run(data, tmp_path, weights, "--loop_closure") == 1

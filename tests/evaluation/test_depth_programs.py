"""The depth evaluations from images to numbers: on the truth, interrupted, split, damaged, incomplete, by run.sh."""

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamvggt.evaluation import depth_protocol
from streamvggt.evaluation.depth_protocol import DEPTH_SETS, DepthProtocol
from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.monodepth import MonoDepth
from streamvggt.evaluation.run_metadata import read_run, read_scores
from streamvggt.evaluation.video_depth import VideoDepth

ROOT = Path(__file__).parents[2]
PROTOCOLS = {"monodepth": MonoDepth(), "video_depth": VideoDepth()}


def predict(protocol: DepthProtocol, weights, data, out, *words: str) -> int:
    words = ["--weights", str(weights), "--data_root", str(data), "--output_dir", f"{out}/{{data}}", *words]
    return run_main(lambda: protocol.main([*words, "--device", "cpu"], score=False))


def score(protocol: DepthProtocol, data, out, *words: str) -> int:
    words = ["--data_root", str(data), "--output_dir", f"{out}/{{data}}", *words]
    return run_main(lambda: protocol.main(words, predict=False))


def numbers(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=PROTOCOLS)
def protocol(request) -> DepthProtocol:
    return PROTOCOLS[request.param]


def write_truth(protocol: DepthProtocol, dataset: str, data: Path, folder: Path, change=lambda depth: depth) -> None:
    """Predictions: changed ground-truth depth, with a number where it is unknown."""
    reader = DEPTH_SETS[dataset](data)
    for scene in reader.scenes:
        for clip in protocol.clips(reader, scene, folder, 1):
            for frame, path in zip(clip.frames, clip.paths, strict=True):
                depth = reader.depth(scene, frame).numpy()
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, change(np.where(depth > 0, depth, 1)).astype(np.float32))


@pytest.mark.parametrize("dataset", DEPTH_SETS)
def test_ground_truth_is_perfect(protocol, dataset, depth_sets, tmp_path):
    if dataset == "nyu" and protocol.name == "video_depth":
        pytest.skip("single images")
    write_truth(protocol, dataset, depth_sets, tmp_path / dataset)
    assert score(protocol, depth_sets, tmp_path, "--eval_dataset", dataset) == 0
    found = numbers(tmp_path / dataset / protocol.result_name(protocol.alignments[0]))
    assert found["Abs Rel"] < 1e-6 and found["RMSE"] < 1e-5 and found["δ < 1.25"] == 1


def test_corruptions_by_hand(depth_sets, tmp_path):
    for change, wanted in {
        "half": (lambda depth: depth * 0.5, {"metric": 0.5, "scale": 0, "scale&shift": 0, "scale&shift_exact": 0}),
        "two thirds": (lambda depth: depth * 1.5, {"metric": 0.5, "scale": 0, "scale&shift_exact": 0}),
        "affine": (lambda depth: depth * 2 + 3, {"scale&shift_exact": 0}),
    }.values():
        write_truth(VideoDepth(), "bonn", depth_sets, tmp_path / "bonn", change)
        assert score(VideoDepth(), depth_sets, tmp_path, "--eval_dataset", "bonn", "--align", *wanted) == 0
        for name, value in wanted.items():
            found = numbers(tmp_path / "bonn" / f"result_{name}.json")
            assert found["Abs Rel"] == pytest.approx(value, abs=2e-4), name


def test_one_scale_for_a_video_and_one_for_each_image(depth_sets, tmp_path):
    """Frames of different scales are all right one by one, but not as a video."""
    found = {}
    for protocol in PROTOCOLS.values():
        factors = iter([1.0, 2.0, 4.0] * 2)
        write_truth(protocol, "bonn", depth_sets, tmp_path / protocol.name / "bonn", lambda d, f=factors: d * next(f))
        assert score(protocol, depth_sets, tmp_path / protocol.name, "--eval_dataset", "bonn") == 0
        found[protocol.name] = numbers(tmp_path / protocol.name / "bonn" / protocol.result_name(protocol.alignments[0]))
    assert found["monodepth"]["Abs Rel"] < 1e-6
    assert found["video_depth"]["Abs Rel"] > 0.3


@pytest.fixture(scope="module")
def whole_runs(weights, depth_sets, tmp_path_factory) -> dict[str, Path]:
    """An uninterrupted run of each protocol."""
    runs = {}
    for name, protocol in PROTOCOLS.items():
        runs[name] = tmp_path_factory.mktemp(name)
        assert predict(protocol, weights, depth_sets, runs[name], "--eval_dataset", "bonn", "sintel") == 0
        assert score(protocol, depth_sets, runs[name], "--eval_dataset", "bonn", "sintel") == 0
    return runs


def assert_same_results(protocol: DepthProtocol, one: Path, other: Path) -> None:
    for dataset in ("bonn", "sintel"):
        name = f"{dataset}/{protocol.result_name(protocol.alignments[0])}"
        assert (one / name).read_text(encoding="utf-8") == (other / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("place", [1, 5, 9])
def test_an_interrupted_run_continues_to_the_same_numbers(
    protocol, place, whole_runs, weights, depth_sets, tmp_path, monkeypatch
):
    """Stopped at a frame of the first video, of the second, and of the second test set."""
    calls = 0
    save = depth_protocol.save_array

    def save_or_stop(path, array):
        nonlocal calls
        calls += 1
        if calls == place:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f".{path.stem}.part.npy").write_bytes(b"half")  # as a killed process leaves it
            raise KeyboardInterrupt
        save(path, array)

    words = ("--eval_dataset", "bonn", "sintel")
    monkeypatch.setattr(depth_protocol, "save_array", save_or_stop)
    assert predict(protocol, weights, depth_sets, tmp_path, *words) == 130
    assert score(protocol, depth_sets, tmp_path, *words) == 1, "half a result has no numbers"
    calls = 100
    assert predict(protocol, weights, depth_sets, tmp_path, *words) == 0
    whole_ones = place - 1 if protocol.name == "monodepth" else (place - 1) // 3 * 3
    assert calls - 100 == 12 - whole_ones, "what was there is not made again"
    assert score(protocol, depth_sets, tmp_path, *words) == 0
    assert_same_results(protocol, tmp_path, whole_runs[protocol.name])


def test_scoring_runs_without_the_network_and_records_its_settings(protocol, whole_runs, weights):
    folder = whole_runs[protocol.name] / "bonn"
    run, scores = read_run(folder), read_scores(folder)
    assert run["protocol"] == protocol.name and run["settings"]["model"] == "StreamVGGT"
    assert run["settings"]["inference"] == "stream" and run["settings"]["size"] == 56
    assert len(run["settings"]["weights_fingerprint"]) == 16 and run["about"]["weights"] == str(weights)
    (found,) = scores.values()
    assert (
        found["num_sequences"] == 2 and found["num_frames"] == 6 and set(found["sequences"]) == {"balloon2", "crowd2"}
    )


def test_a_damaged_prediction_is_named_and_made_again(protocol, whole_runs, weights, depth_sets, capsys):
    out = whole_runs[protocol.name]
    before = numbers(out / "bonn" / protocol.result_name(protocol.alignments[0]))
    path = sorted(out.glob("bonn/crowd2/*.npy"))[1]
    path.write_bytes(path.read_bytes()[:200])
    assert score(protocol, depth_sets, out, "--eval_dataset", "bonn") == 1
    output = capsys.readouterr().err
    assert f"{path} is damaged" in output and "run the prediction step again" in output
    assert predict(protocol, weights, depth_sets, out, "--eval_dataset", "bonn") == 0
    assert f"{path} is damaged: it is computed again" in capsys.readouterr().err
    assert score(protocol, depth_sets, out, "--eval_dataset", "bonn") == 0
    assert numbers(out / "bonn" / protocol.result_name(protocol.alignments[0])) == before


def test_another_configuration_is_rejected(protocol, whole_runs, weights, depth_sets, capsys):
    out = whole_runs[protocol.name]
    assert predict(protocol, weights, depth_sets, out, "--eval_dataset", "bonn", "--policy", "window:1,1") == 1
    assert "policy was 'all' and is now 'window:1,1'" in capsys.readouterr().err
    assert predict(protocol, "random:small", depth_sets, out, "--eval_dataset", "bonn", "--size", "56") == 1
    assert "weights_fingerprint was" in capsys.readouterr().err


def test_a_bad_image_fails_its_sequence_and_no_other(weights, depth_sets, tmp_path, capsys):
    data = tmp_path / "data"
    for folder in ("rgb_110", "depth_110"):
        for scene in ("balloon2", "crowd2"):
            place = data / "bonn/rgbd_bonn_dataset" / f"rgbd_bonn_{scene}" / folder
            place.mkdir(parents=True)
            for path in (depth_sets / place.relative_to(data)).iterdir():
                (place / path.name).write_bytes(path.read_bytes())
    bad = sorted((data / "bonn/rgbd_bonn_dataset/rgbd_bonn_balloon2/rgb_110").iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:100])
    assert predict(VideoDepth(), weights, data, tmp_path, "--eval_dataset", "bonn") == 1
    output = capsys.readouterr().err
    assert str(bad) in output and "1 problem, see above: bonn, balloon2" in output
    assert len(list((tmp_path / "bonn" / "crowd2").iterdir())) == 3
    assert score(VideoDepth(), data, tmp_path, "--eval_dataset", "bonn") == 1
    assert "missing" in capsys.readouterr().err


def test_images_and_depth_that_do_not_belong_together(depth_sets, tmp_path, capsys):
    folder = tmp_path / "kitti/depth_selection/val_selection_cropped"
    for part, names in {"image_gathered": "ab", "groundtruth_depth_gathered": "abc"}.items():
        (folder / part / "drive_02").mkdir(parents=True)
        for name in names:
            cv2.imwrite(str(folder / part / "drive_02" / f"{name}.png"), np.ones((20, 30), np.uint16))
    assert score(MonoDepth(), tmp_path, tmp_path, "--eval_dataset", "kitti") == 1
    assert "2 images but 3 depth files; without partner: c" in capsys.readouterr().err


def run_sh(protocol: str, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEVICE": "cpu", **environment}
    words = ["bash", f"eval/{protocol}/run.sh"]
    return subprocess.run(words, cwd=ROOT / "src", env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_processes"), [("monodepth", 1), ("video_depth", 2)])
def test_run_sh_with_a_missing_set(name, num_processes, whole_runs, weights, depth_sets, tmp_path):
    (tmp_path / "data").mkdir()
    for folder in ("bonn", "sintel"):
        (tmp_path / "data" / folder).symlink_to(depth_sets / folder)
    done = run_sh(
        name,
        WEIGHTS=str(weights),
        DATA_ROOT=str(tmp_path / "data"),
        DATASETS="bonn kitti sintel",
        OUTPUT=f"{tmp_path}/{{data}}",
        PROCESSES=str(num_processes),
    )
    assert done.returncode == 1
    assert done.stderr.count("kitti is skipped: no folder at") == 1
    assert done.stdout.count("Abs Rel") == 2
    for dataset in ("bonn", "sintel"):
        path = Path(dataset) / PROTOCOLS[name].result_name(PROTOCOLS[name].alignments[0])
        assert numbers(tmp_path / path) == pytest.approx(numbers(whole_runs[name] / path), rel=1e-6)


def test_the_bidirectional_network_attends_to_the_full_sequence(protocol, weights, depth_sets, tmp_path, capsys):
    words = ("--eval_dataset", "bonn", "--model_name", "VGGT")
    assert predict(protocol, weights, depth_sets, tmp_path, *words) == 0
    settings = read_run(tmp_path / "bonn")["settings"]
    assert settings["model"] == "VGGT" and settings["inference"] == "full" and settings["policy"] is None
    assert predict(protocol, weights, depth_sets, tmp_path / "b", *words, "--inference", "stream") == 1
    assert "cannot stream" in capsys.readouterr().err


def test_the_causal_network_has_equal_outputs_streamed_and_whole(whole_runs, weights, depth_sets, tmp_path):
    words = ("--eval_dataset", "bonn", "--inference", "full")
    assert predict(VideoDepth(), weights, depth_sets, tmp_path, *words) == 0
    for path in sorted(tmp_path.glob("bonn/*/*.npy")):
        streamed = np.load(whole_runs["video_depth"] / path.relative_to(tmp_path))
        np.testing.assert_allclose(np.load(path), streamed, rtol=1e-3)

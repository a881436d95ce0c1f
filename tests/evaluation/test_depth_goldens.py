"""The published evaluation programs on a miniature data set: our programs on the same files give the same numbers."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from streamvggt.datasets.sintel import write_dpt
from streamvggt.evaluation.depth_protocol import load_pair
from streamvggt.evaluation.monodepth import MonoDepth
from streamvggt.evaluation.video_depth import VideoDepth

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")
RESULTS = json.loads(str(GOLDENS["e2e_results_json"]))


def clips(dataset: str):
    for key in GOLDENS.files:
        if key.startswith(f"e2e_gt__{dataset}__"):
            yield key.split("__")[2], GOLDENS[key], GOLDENS[key.replace("e2e_gt", "e2e_pred")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """True depth as encoded in the archive, beside images of a few pixels."""
    root = tmp_path_factory.mktemp("data")

    def image(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)

    def depth(path: Path, values: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".dpt":
            write_dpt(path, values)
        elif path.suffix == ".npy":
            np.save(path, values)
        else:
            assert cv2.imwrite(str(path), values)

    kitti = root / "kitti" / "depth_selection" / "val_selection_cropped"
    for scene, true, _ in clips("sintel"):
        for i, values in enumerate(true):
            image(root / "sintel/training/final" / scene / f"frame_{i + 1:04d}.png")
            depth(root / "sintel/training/depth" / scene / f"frame_{i + 1:04d}.dpt", values)
    for scene, true, _ in clips("bonn"):
        folder = root / "bonn/rgbd_bonn_dataset" / f"rgbd_bonn_{scene}"
        for i, values in enumerate(true):
            image(folder / "rgb_110" / f"154826640{i}.{50000 + i}.png")
            depth(folder / "depth_110" / f"154826650{i}.{10000 + i}.png", values)
    for scene, true, _ in clips("kitti"):
        for i, values in enumerate(true):
            image(kitti / "image_gathered" / scene / f"{i + 5:010d}.png")
            depth(kitti / "groundtruth_depth_gathered" / scene / f"{i + 5:010d}.png", values)
    for _, true, _ in clips("nyu"):
        for i, values in enumerate(true):
            image(root / "nyu_v2/val/nyu_images" / f"{i + 1:05d}.png")
            depth(root / "nyu_v2/val/nyu_depths" / f"{i + 1:05d}.npy", values)
    return root


STEMS = {
    "sintel": lambda i: f"frame_{i + 1:04d}",
    "bonn": lambda i: f"154826640{i}.{50000 + i}",
    "kitti": lambda i: f"{i + 5:010d}",
    "nyu": lambda i: f"{i + 1:05d}",
}


def write_predictions(folder: Path, dataset: str, video: bool) -> None:
    missing = str(GOLDENS["e2e_sintel_missing_sequences"])
    for scene, _, predicted in clips(dataset):
        if dataset == "sintel" and scene in json.loads(missing):
            continue
        place = folder if dataset == "nyu" else folder / scene
        place.mkdir(parents=True, exist_ok=True)
        for i, depth in enumerate(predicted):
            np.save(place / (f"frame_{i:04d}.npy" if video else f"{STEMS[dataset](i)}depth.npy"), depth)


def assert_numbers(path: Path, wanted: dict[str, float], tolerance: float) -> None:
    numbers = json.loads(path.read_text(encoding="utf-8"))
    assert list(numbers) == list(wanted)
    np.testing.assert_allclose(list(numbers.values()), list(wanted.values()), rtol=tolerance)


@pytest.mark.parametrize("dataset", ["sintel", "bonn", "kitti", "nyu"])
def test_monocular(data, tmp_path, dataset):
    write_predictions(tmp_path, dataset, video=False)
    words = ["--eval_dataset", dataset, "--data_root", str(data), "--output_dir", str(tmp_path)]
    assert MonoDepth().main(words, predict=False) == 0
    assert_numbers(tmp_path / "metric.json", RESULTS[f"mono/{dataset}"], 1e-5)


def test_the_file_is_written_as_published(data, tmp_path):
    """Which data set the published text is of, its numbers tell."""
    text = str(GOLDENS["e2e_metric_json_raw_text"])
    dataset = next(name for name in STEMS if RESULTS[f"mono/{name}"] == json.loads(text))
    write_predictions(tmp_path, dataset, video=False)
    words = ["--eval_dataset", dataset, "--data_root", str(data), "--output_dir", str(tmp_path)]
    MonoDepth().main(words, predict=False)
    ours = (tmp_path / "metric.json").read_text(encoding="utf-8")

    def frame(text: str) -> list[str]:
        return [part.rpartition(": ")[0] for part in text.split(", ")]

    assert frame(ours) == frame(text) and "\n" not in ours and "\\u03b4" in ours


@pytest.mark.parametrize("dataset", ["sintel", "bonn", "kitti"])
def test_video(data, tmp_path, dataset):
    write_predictions(tmp_path, dataset, video=True)
    words = ["--eval_dataset", dataset, "--data_root", str(data), "--output_dir", str(tmp_path)]
    assert VideoDepth().main([*words, "--align", "scale", "scale&shift", "metric"], predict=False) == 0
    for align in ("scale", "scale&shift", "metric"):
        # The search for scale and shift ends at a point that depends on the rounding of the CPU.
        tolerance = 1e-3 if align == "scale&shift" else 1e-4
        assert_numbers(tmp_path / f"result_{align}.json", RESULTS[f"video/{dataset}/{align}"], tolerance)


def test_predictions_are_resized_as_published(tmp_path):
    class Reader:
        def depth(self, scene, frame):
            return torch.ones(24, 32)

    np.save(tmp_path / "depth.npy", GOLDENS["resize_small"])
    resized, _ = load_pair(Reader(), "", "", tmp_path / "depth.npy")
    np.testing.assert_allclose(resized, GOLDENS["resize_cubic_24x32"], rtol=1e-6, atol=1e-6)


def test_a_missing_prediction_is_an_error_and_not_a_smaller_mean(data, tmp_path, capsys):
    write_predictions(tmp_path, "kitti", video=True)
    words = ["--eval_dataset", "kitti", "--data_root", str(data), "--output_dir", str(tmp_path)]
    scene = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())[0]
    (tmp_path / scene / "frame_0001.npy").unlink()
    assert VideoDepth().main(words, predict=False) == 1
    output = capsys.readouterr().err
    assert "1 of 6 predictions are missing" in output and "frame_0001.npy" in output
    assert not (tmp_path / "result_scale.json").exists()
    others = [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != scene]
    assert VideoDepth().main([*words, "--seq_list", *others], predict=False) == 0

"""Reconstruction: the published views, both readers, and the whole command on the procedural world."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.decode import DataError
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View
from streamvggt.datasets import get_module, prepare
from streamvggt.datasets import seven_scenes as preparation
from streamvggt.datasets.neural_rgbd import NeuralRGBD
from streamvggt.datasets.seven_scenes import SevenScenes
from streamvggt.evaluation import mv_recon
from streamvggt.evaluation.jobs import run_main, save_arrays
from streamvggt.evaluation.recon_views import center_crop_slices, preprocess_view, view_size
from streamvggt.geometry.camera import Cameras, compose_poses, invert_pose, pose_enc_from_cameras

ROOT = Path(__file__).parents[2]
GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")
SETS = {"7scenes": "seven_scenes", "NRGBD": "neural_rgbd"}


# Views as published.


def view_of(image: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray) -> View:
    depth = torch.from_numpy(depth)
    sky = torch.zeros_like(depth, dtype=torch.bool)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    return View(pixels, depth, depth > 0, sky, torch.from_numpy(intrinsics), torch.eye(4)[:3])


@pytest.mark.parametrize("case", range(4))
def test_views_are_cut_as_published(case):
    view = view_of(GOLDEN["crop_img"], GOLDEN["crop_depth"], GOLDEN["crop_K"])
    output = preprocess_view(view, tuple(GOLDEN["crop_targets_wh"][case].tolist()))
    np.testing.assert_array_equal(image_array(output.image), GOLDEN[f"crop_out_img_{case}"])
    np.testing.assert_array_equal(output.depth, GOLDEN[f"crop_out_depth_{case}"])
    np.testing.assert_allclose(output.intrinsics, GOLDEN[f"crop_out_K_{case}"], atol=1e-5)


def test_true_cameras_and_depth_pixels_as_published():
    index = np.arange(480 * 640, dtype=np.float32).reshape(480, 640)
    for focal, wanted in zip((525, 554.2562584220408), GOLDEN["crop_real_K_7scenes_nrgbd"], strict=True):
        intrinsics = np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], np.float32)
        output = preprocess_view(view_of(np.zeros((480, 640, 3), np.uint8), index, intrinsics), view_size(518))
        np.testing.assert_allclose(output.intrinsics, wanted, rtol=1e-6)
        corners = output.depth[:: 392 - 1, :: 518 - 1]
        np.testing.assert_array_equal(corners, GOLDEN["crop_real_depth_index_corners"])
        np.testing.assert_array_equal(output.depth[0], GOLDEN["crop_real_depth_index_row0"])
        np.testing.assert_array_equal(output.depth[:, 0] // 640, GOLDEN["crop_real_depth_index_col0"])


def test_sizes_and_the_part_that_is_compared():
    assert [view_size(size) for size in (518, 512, 224, 112)] == [(518, 392), (512, 384), (224, 224), (112, 84)]
    assert center_crop_slices((518, 392)) == (slice(84, 308), slice(147, 371))
    assert center_crop_slices((224, 224)) == (slice(0, 224), slice(0, 224))
    assert center_crop_slices((112, 84)) == (slice(18, 66), slice(32, 80))


# Readers.


@pytest.fixture(scope="module")
def clips() -> dict[str, list[list[View]]]:
    return {name: world_clips(2, 4, 60, 80, fov=get_module(name).FOV) for name in SETS.values()}


@pytest.fixture(scope="module")
def data(tmp_path_factory, clips) -> Path:
    root = tmp_path_factory.mktemp("eval")
    for name in SETS.values():
        get_module(name).write(root, clips[name])
    return root


@pytest.mark.parametrize("dataset", SETS)
def test_readers_give_back_what_was_written(dataset, data, clips):
    kind = mv_recon.SETS[dataset].reader
    reader = kind(data / kind.folder)
    assert len(reader.scenes) == 2
    for scene, clip in zip(reader.scenes, clips[SETS[dataset]], strict=True):
        for frame, true in zip(reader.frames(scene), clip, strict=True):
            view = reader.read(scene, frame)
            near = true.valid & (true.depth < 9.999)
            assert torch.equal(view.valid, near) or (view.valid ^ near).float().mean() < 1e-3
            torch.testing.assert_close(view.depth[view.valid], true.depth[view.valid], atol=6e-4, rtol=0)
            torch.testing.assert_close(view.intrinsics, true.intrinsics, atol=1e-3, rtol=0)
            torch.testing.assert_close(view.cam_from_world, true.cam_from_world, atol=1e-5, rtol=0)
            torch.testing.assert_close(view.image, true.image, atol=3e-3, rtol=0)


def test_neural_rgbd_counts_frames_as_numbers_and_leaves_out_unknown_poses(tmp_path):
    clip = world_clips(1, 11, 30, 40)
    get_module("neural_rgbd").write(tmp_path, clip)
    path = tmp_path / "neural_rgbd/breakfast_room/poses.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4 * 3 : 4 * 4] = ["nan nan nan nan"] * 4
    path.write_text("\n".join(lines), encoding="utf-8")
    reader = NeuralRGBD(tmp_path / "neural_rgbd")
    assert reader.frames("breakfast_room") == ["0", "1", "2", "4", "5", "6", "7", "8", "9", "10"]
    torch.testing.assert_close(reader.read("breakfast_room", "10").cam_from_world, clip[0][10].cam_from_world)
    path.write_text("\n".join(lines[:40]), encoding="utf-8")
    with pytest.raises(DataError, match=r"img10.png, but poses.txt has only 10"):
        NeuralRGBD(tmp_path / "neural_rgbd")


def test_raw_depth_of_seven_scenes_is_registered_by_hand(tmp_path):
    """A wall two meters away stays two meters away, but seen from the side and with another focal length."""
    wall = np.full((480, 640), 2000, np.uint16)
    wall[0, 0] = 65535
    wall[200:280, 300:340] = 1000  # a box before it
    seen = preparation.register(wall)
    rotation, shift = preparation.COLOR_FROM_DEPTH[:, :3], preparation.COLOR_FROM_DEPTH[:, 3]
    for x, y, meters in ((100, 100, 2.0), (320, 240, 1.0), (500, 400, 2.0)):
        point = rotation @ np.array([(x + 0.5 - 320) / 585 * meters, (y + 0.5 - 240) / 585 * meters, meters]) + shift
        u, v = np.rint(525 * point[:2] / point[2] + [320, 240]).astype(int)
        assert abs(int(seen[v, u]) - 1000 * point[2]) <= 3  # a neighbor may have fallen onto it
    assert 0.6 < (seen > 0).mean() < 0.85  # 525 / 585 squared of the picture, less what lies outside
    assert seen.max() < 2100


def test_seven_scenes_prepared_equal_those_registered_while_reading(data, tmp_path):
    raw, scene = tmp_path / "raw", "chess/seq-01"
    shutil.copytree(data / "7scenes", raw)
    shutil.rmtree(raw / "fire")
    for path in raw.rglob("*.depth.proj.png"):
        path.rename(path.with_name(path.name.replace(".proj", "")))
    assert prepare("seven_scenes", raw, tmp_path).prepared == [scene]
    prepared, registered = SevenScenes(tmp_path / "7scenes"), SevenScenes(raw)
    assert prepared.scenes == registered.scenes == [scene]
    for frame in prepared.frames(scene):
        assert torch.equal(prepared.read(scene, frame).depth, registered.read(scene, frame).depth)
    assert prepare("seven_scenes", raw, tmp_path).already_prepared == [scene]


def test_a_listed_sequence_that_is_not_there_is_named(data, tmp_path):
    shutil.copytree(data / "7scenes", tmp_path / "7scenes")
    shutil.rmtree(tmp_path / "7scenes/fire/seq-02")
    with pytest.raises(DataError, match="lists sequence 2"):
        SevenScenes(tmp_path / "7scenes")


# The command.


def run(data: Path, out: Path, weights: Path | str, *more) -> int:
    argv = ["--data_root", data, "--output_dir", out, "--weights", weights, "--size", 56, "--kf_every", 2, *more]
    return run_main(lambda: mv_recon.main([str(word) for word in argv]))


@pytest.fixture(scope="module")
def once(data, weights, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("once")
    assert run(data, out, weights) == 0
    return out


def predictions(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("*/*.npz") if not path.stem.endswith("-errors"))


def means(out: Path, dataset: str) -> dict[str, float]:
    (scores,) = json.loads((out / dataset / "scores.json").read_text(encoding="utf-8")).values()
    return scores["numbers"]


def true_views(data: Path, dataset: str, scene: str) -> list[View]:
    kind = mv_recon.SETS[dataset].reader
    reader = kind(data / kind.folder)
    return [preprocess_view(reader.read(scene, frame), (56, 42)) for frame in reader.frames(scene)[::2]]


def with_points(once: Path, out: Path, data: Path, change) -> Path:
    """A finished run with points computed by `change` from ground truth in the first camera. (S, H, W, 3)"""
    shutil.copytree(once, out)
    for path in predictions(out):
        dataset = path.parent.name
        views = true_views(data, dataset, path.stem.replace("_seq", "/seq"))
        world = views[0].cam_from_world
        true = torch.stack([view.points() for view in views]) @ world[:, :3].mT + world[:, 3]
        arrays = dict(np.load(path))
        save_arrays(path, **arrays | {"points": change(true).numpy()})
    return out


PERFECT = dict.fromkeys(("acc", "comp", "acc_med", "comp_med"), 0.0) | dict.fromkeys(
    ("nc1", "nc2", "nc1_med", "nc2_med", "nc", "nc_med"), 1.0
)


def test_ground_truth_is_perfect_in_any_scale_and_depth(data, once, weights, tmp_path):
    out = with_points(once, tmp_path / "out", data, lambda true: 3 * true + torch.tensor([0.0, 0, 5]))
    assert run(data, out, weights, "--score_only") == 0
    for dataset in SETS:
        assert means(out, dataset) == pytest.approx(PERFECT, abs=1e-5)


def test_a_small_motion_is_taken_out_and_a_far_one_is_not(data, once, weights, tmp_path):
    out = with_points(once, tmp_path / "near", data, lambda true: true + torch.tensor([0.02, -0.01, 0]))
    assert run(data, out, weights, "--score_only") == 0
    assert means(out, "NRGBD")["acc"] < 2e-3
    far = with_points(once, tmp_path / "far", data, lambda true: true + torch.tensor([1000.0, 0, 0]))
    assert run(data, far, weights, "--score_only") == 0
    assert means(far, "NRGBD")["acc"] == pytest.approx(1000, rel=0.02)
    assert means(far, "NRGBD")["comp_med"] == pytest.approx(1000, rel=0.02)


def test_points_that_are_not_finite_are_skipped_and_move_no_others(data, once, weights, tmp_path):
    def broken(true):
        true = true.clone()
        true[0, ::2, :, 1] = torch.nan
        return true

    out = with_points(once, tmp_path / "out", data, broken)
    assert run(data, out, weights, "--score_only") == 0
    for dataset in SETS:
        assert means(out, dataset)["acc"] == pytest.approx(0, abs=1e-5)


def test_depth_and_cameras_of_the_ground_truth_are_perfect_in_any_world_and_scale(data, weights, tmp_path):
    assert run(data, tmp_path, weights, "--use_proj") == 0
    for path in predictions(tmp_path):
        views = true_views(data, path.parent.name, path.stem.replace("_seq", "/seq"))
        poses = torch.stack([view.cam_from_world for view in views])
        poses = compose_poses(poses, invert_pose(poses[:1]))
        poses[..., 3] *= 3
        cameras = Cameras(poses, torch.stack([view.intrinsics for view in views]))
        depth = 3 * torch.stack([view.depth for view in views])[..., None]
        arrays = dict(np.load(path)) | {"depth": depth.numpy()}
        save_arrays(path, **arrays | {"pose_enc": pose_enc_from_cameras(cameras, (42, 56)).numpy()})
    assert run(data, tmp_path, weights, "--use_proj", "--score_only") == 0
    # The network's principal point is the middle, the prepared views' is a tenth of a pixel beside it.
    assert means(tmp_path, "7scenes")["acc"] < 5e-3
    assert means(tmp_path, "7scenes")["nc"] > 0.95


def test_logs_are_the_published_lines(once):
    text = (once / "logs_all.txt").read_text(encoding="utf-8")
    assert text == "".join((once / dataset / "logs_all.txt").read_text(encoding="utf-8") for dataset in SETS)
    number = re.compile(r"\d+\.\d+(e-\d+)?")
    first, _, mean = text.splitlines()[:3]
    assert number.sub("#", first) == (
        "Idx: chess/seq-01, Acc: #, Comp: #, NC1: #, NC2: # - Acc_med: #, Compc_med: #, NC1c_med: #, NC2c_med: #"
    )
    assert mean.startswith("mean                : acc: ") and mean.endswith(" | ")


def test_clouds_are_written(once):
    folder = once / "7scenes"
    shown = np.load(folder / "chess_seq-01-errors.npz")
    assert shown["points"].shape == (*shown["distance"].shape, 3) and shown["colours"].dtype == np.uint8
    for name in ("gt", "mask", "mask_align"):
        assert (folder / f"chess_seq-01-{name}.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")


def test_an_interrupted_run_continues_to_the_same_numbers(data, once, weights, tmp_path, monkeypatch, capsys):
    calls = []
    predict = mv_recon.ModelRunner.predict_sequence

    def stops_at_the_third(self, images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, images)

    monkeypatch.setattr(mv_recon.ModelRunner, "predict_sequence", stops_at_the_third)
    assert run(data, tmp_path, weights) == 130
    assert len(predictions(tmp_path)) == 2
    damaged = predictions(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert run(data, tmp_path, weights) == 0
    assert len(calls) == 6  # the damaged one and those not done
    assert f"{damaged} is damaged" in capsys.readouterr().err
    assert (tmp_path / "logs_all.txt").read_text(encoding="utf-8") == (once / "logs_all.txt").read_text(
        encoding="utf-8"
    )


def test_other_settings_are_rejected_and_what_is_missing_is_named(data, once, weights, tmp_path, capsys):
    assert run(data, once, weights, "--revisit", 2) == 1
    assert "revisit was 1 and is now 2" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    shutil.copytree(data / "neural_rgbd", tmp_path / "data/neural_rgbd")
    assert run(tmp_path / "data", tmp_path / "out", weights) == 1
    output = capsys.readouterr()
    assert "7scenes is skipped: 7-Scenes: no folder at" in output.err and "NRGBD    mean" in output.out
    again = (tmp_path / "data", tmp_path / "out", weights, "--eval_dataset", "NRGBD", "--score_only")
    assert run(*again, "--use_proj") == 1
    assert "give the flags that it was made with" in capsys.readouterr().err
    predictions(tmp_path / "out")[0].unlink()
    assert run(*again) == 1
    assert "is missing: run the prediction step again" in capsys.readouterr().err
    assert not (tmp_path / "out/logs_all.txt").exists()


def test_frames_seen_twice_and_confident_points_only(data, weights, tmp_path):
    assert run(data, tmp_path / "a", weights, "--revisit", 2, "--eval_dataset", "NRGBD") == 0
    assert np.load(predictions(tmp_path / "a")[0])["points"].shape == (2, 42, 56, 3)
    confidence = np.median(np.load(predictions(tmp_path / "a")[0])["points_conf"])
    more = ("--revisit", 2, "--eval_dataset", "NRGBD", "--score_only")
    assert run(data, tmp_path / "a", weights, *more, "--conf_thresh", confidence) == 0
    scores = json.loads((tmp_path / "a/NRGBD/scores.json").read_text(encoding="utf-8"))
    (every, sure) = scores.values()
    assert list(scores)[1].startswith("point head, confidence ≥ ")
    scene = next(iter(every["sequences"]))
    assert sure["sequences"][scene]["num_points"] < every["sequences"][scene]["num_points"]


def test_two_processes_make_the_same_numbers(data, once, weights, tmp_path, process_of_two):
    """One after the other, so the first one cannot know the numbers of the second yet."""
    for rank in (0, 1):
        with process_of_two(rank):
            assert run(data, tmp_path, weights) == 1 - rank
        assert len(predictions(tmp_path)) == 2 * (rank + 1)
    assert run(data, tmp_path, weights, "--score_only") == 0
    assert (tmp_path / "logs_all.txt").read_text(encoding="utf-8") == (once / "logs_all.txt").read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_run_sh(data, once, weights, tmp_path):
    chosen = {"DATA_ROOT": str(data), "WEIGHTS": str(weights), "OUTPUT": str(tmp_path), "DEVICE": "cpu"}
    words = ["bash", "eval/mv_recon/run.sh", "--size", "56", "--kf_every", "2"]
    done = subprocess.run(words, cwd=ROOT / "src", env=os.environ | chosen, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs_all.txt").read_text(encoding="utf-8") == (once / "logs_all.txt").read_text(
        encoding="utf-8"
    )


def test_vggt_runs_too(data, weights, tmp_path):
    more = ("--model_name", "VGGT", "--eval_dataset", "NRGBD")
    assert run(data, tmp_path, weights, *more) == 0
    assert json.loads((tmp_path / "NRGBD/run.json").read_text(encoding="utf-8"))["settings"]["inference"] == "full"

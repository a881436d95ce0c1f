"""Poses on CO3Dv2: the published draws, cameras and annotations; the whole command on the procedural world."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.choices import CO3D_CATEGORIES
from streamvggt.datasets import co3d_annotations, prepare
from streamvggt.datasets._co3d_download import get_cameras, pytorch3d_to_opencv
from streamvggt.datasets.co3d_annotations import read_annotations, select
from streamvggt.evaluation import co3d
from streamvggt.evaluation.frame_samples import sample_frames
from streamvggt.evaluation.jobs import run_main, save_arrays
from streamvggt.geometry.camera import compose_poses

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")


def stored(name: str):
    return json.loads(str(GOLDEN[name]))


# Published numbers.


def test_annotations_as_published():
    output = select(
        stored("co3d_frame_annotations"), stored("co3d_sequence_annotations"), stored("co3d_set_lists"), min_quality=0.5
    )
    assert json.dumps(output["train"]) == str(GOLDEN["co3d_out_train"])
    assert json.dumps(output["test"]) == str(GOLDEN["co3d_out_test"])


def test_cameras_as_published():
    output = pytorch3d_to_opencv(torch.from_numpy(GOLDEN["pt3d_R"]), torch.from_numpy(GOLDEN["pt3d_T"]))
    assert torch.equal(output, torch.from_numpy(GOLDEN["pt3d_extri"]))


def frames(count: int, far: bool = False) -> list[dict]:
    return [{"T": [0, 0, 2e5 if far else 1]}] * count


def test_draws_as_published():
    lengths = GOLDEN["samp_lengths"].tolist()
    annotations = {"apple": {f"sequence{number}": frames(length) for number, length in enumerate(lengths)}}
    ids = {draw.sequence: list(draw.ids) for draw in sample_frames(annotations, seed=int(GOLDEN["samp_seed"]))}
    wanted = {f"sequence{number}": row.tolist() for number, row in enumerate(GOLDEN["samp_ids"]) if row[0] >= 0}
    assert ids == wanted


def test_fast_draws_as_published():
    annotations = {
        category: {name: frames(60) for name in names}
        for category, names in zip(("apple", "vase"), stored("samp_fast_eval_in"), strict=True)
    }
    draws = sample_frames(annotations, seed=int(GOLDEN["samp_seed"]), fast=True)
    names = [[draw.sequence for draw in draws if draw.category == category] for category in annotations]
    assert names == stored("samp_fast_eval_out")


def test_draws_of_each_sequences_own_do_not_depend_on_the_others():
    both = {"apple": {"a": frames(60)}, "vase": {"b": frames(80)}}
    alone = {"vase": {"b": frames(80)}}

    def ids_of_b(annotations, **options):
        return next(d.ids for d in sample_frames(annotations, seed=0, **options) if d.sequence == "b")

    assert ids_of_b(both, per_sequence=True) == ids_of_b(alone, per_sequence=True)
    assert ids_of_b(both) != ids_of_b(alone)


def test_what_is_short_or_absurdly_far_draws_nothing():
    annotations = {"apple": {"a": frames(49), "b": frames(60, far=True), "c": frames(60)}}
    only = {"apple": {"c": frames(60)}}
    assert [d.ids for d in sample_frames(annotations, seed=0)] == [d.ids for d in sample_frames(only, seed=0)]


# The command.


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("co3d")
    co3d_annotations.write(root, world_clips(3, 6, 42, 56))
    assert not prepare("co3d_annotations", root / "co3d_v2", root).failed
    return root


def run(data: Path, out: Path, *more: str, categories=("apple", "vase")) -> int:
    argv = ["--co3d_dir", data / "co3d_v2", "--co3d_anno_dir", data / "co3d_v2_annotations", "--output_dir", out]
    argv += ["--num_frames", 4, "--min_num_images", 5, "--weights", "random:small", "--size", 56, *more]
    argv += ["--category", *categories] if categories else []
    return run_main(lambda: co3d.main([str(word) for word in argv]))


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def once(data, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("once") / "co3d"
    assert run(data, out) == 0
    return out


def predictions(out: Path) -> dict[str, Path]:
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(out.glob("*/*.npz"))}


def with_poses(once: Path, out: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A finished run with poses computed by `change` from the name and the ground truth of a sequence."""
    for name, path in predictions(once).items():
        arrays = dict(np.load(path))
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        output = change(name, torch.from_numpy(arrays["gt_cam_from_world"]))
        save_arrays(out / f"{name}.npz", **arrays | {"cam_from_world": output.numpy()})
    (out / "run.json").write_text((once / "run.json").read_text(encoding="utf-8"), encoding="utf-8")
    return out


def test_annotations_contain_the_ground_truth_cameras(data):
    clips = world_clips(3, 6, 42, 56)
    found = read_annotations(data / "co3d_v2_annotations", "apple")
    assert list(found) == ["110_13051_23361", "110_13051_23362"]  # not the one of low quality
    truth = torch.stack([view.cam_from_world for view in clips[2]]).double()
    torch.testing.assert_close(get_cameras(found["110_13051_23362"]), truth, atol=1e-6, rtol=0)


def test_ground_truth_is_perfect_in_any_world_and_scale_and_a_mirrored_one_is_not(data, once, tmp_path, capsys):
    world = pytorch3d_to_opencv(torch.from_numpy(GOLDEN["pt3d_R"][0]), torch.from_numpy(GOLDEN["pt3d_T"][0]))
    mirror = torch.tensor([-1.0, 1, 1], dtype=torch.float64)

    def output(name: str, true: torch.Tensor) -> torch.Tensor:
        poses = compose_poses(true, world)
        poses[..., 3] *= 7
        if name.startswith("vase"):  # left is right, in the camera and in the world
            poses = torch.cat([mirror[:, None] * poses[..., :3] * mirror, (mirror * poses[..., 3])[..., None]], -1)
        return poses

    out = with_poses(once, tmp_path, output)
    assert run(data, out) == 0
    found = results(out)
    assert found["categories"]["apple"] == {"AUC@30": 1, "AUC@15": 1, "AUC@5": 1, "AUC@3": 1}
    assert found["categories"]["vase"]["AUC@30"] < 0.9
    assert found["mean"]["AUC@30"] == pytest.approx((1 + found["categories"]["vase"]["AUC@30"]) / 2)
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("Summary of AUC results:")
    assert lines[begin + 1] == lines[begin + 4] == "-" * 50
    assert lines[begin + 2] == "apple          : 1.0000 (AUC@30), 1.0000 (AUC@15), 1.0000 (AUC@5), 1.0000 (AUC@3)"
    assert lines[begin + 3].startswith("vase           : 0.")
    assert lines[begin + 5].startswith("Mean AUC: 0.")


def test_a_turn_of_ten_degrees_of_one_camera_by_hand(data, once, tmp_path):
    """Three of the six pairs of four frames have the turned camera: 10° off, below 20 of the thresholds 1 … 30."""
    c, s = np.cos(np.pi / 18), np.sin(np.pi / 18)
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)

    def output(name: str, true: torch.Tensor) -> torch.Tensor:
        return torch.cat([true[:3], turn @ true[3:]])

    out = with_poses(once, tmp_path, output)
    assert run(data, out) == 0
    # 10° up to rounding: the threshold 10 may or may not count.
    assert results(out)["mean"]["AUC@30"] == pytest.approx(0.5 + 0.5 * 20.5 / 30, abs=0.5 * 0.51 / 30)
    assert results(out)["mean"]["AUC@5"] == pytest.approx(0.5)


def test_scoring_reads_files_alone_and_damaged_ones_are_made_again(data, once, tmp_path, capsys, monkeypatch):
    before, paths = results(once), predictions(once)
    first, second = list(paths.values())[:2]
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    second.unlink()
    calls = []
    original = co3d.load_images
    monkeypatch.setattr(co3d, "load_images", lambda *given: calls.append(given) or original(*given))
    assert run(data, once) == 0
    assert len(calls) == 2
    assert f"{first} is damaged" in capsys.readouterr().err
    assert results(once) == before
    assert run(data, once) == 0
    assert run(data, once, "--score_only", "--weights", "nowhere") == 0
    assert results(once) == before and len(calls) == 2


def test_two_processes_make_the_same_numbers(data, once, tmp_path, process_of_two):
    out = tmp_path / "out"
    for rank in (0, 1):
        with process_of_two(rank):
            run(data, out)
        assert len(predictions(out)) == (2 if rank == 0 else 3)
    assert run(data, out) == 0
    assert results(out) == results(once)


def test_other_settings_or_draws_are_rejected(data, once, capsys):
    assert run(data, once, "--seed", "1") == 1
    assert "seed was 0 and is now 1" in capsys.readouterr().err
    assert run(data, once, categories=("apple",)) == 1
    before = results(once)
    for flags in (("--seed", "1"), ("--use_ba",)):
        capsys.readouterr()
        assert run(data, once, "--score_only", *flags) == 1
        assert capsys.readouterr().err.count("give the flags that it was made with") == 3
    assert results(once) == before


def test_what_is_missing_is_named(data, tmp_path, capsys):
    assert run(data, tmp_path / "a", categories=("apple", "car")) == 1
    assert results(tmp_path / "a")["missing_categories"] == ["car"]
    assert "without annotations: car" in capsys.readouterr().out
    assert run(data, tmp_path / "b", categories=("car",)) == 1
    assert "has no annotations" in capsys.readouterr().err
    assert run(data / "nowhere", tmp_path / "c") == 1
    assert "data prepare co3d_annotations" in capsys.readouterr().err
    assert run(data, tmp_path / "d", "--num_frames", "7") == 1
    assert "no sequence has" in capsys.readouterr().err


def test_debug_takes_apples_that_are_there(data, tmp_path):
    assert run(data, tmp_path, "--debug", "--image_loader", "squash", categories=()) == 0
    assert list(results(tmp_path)["categories"]) == ["apple"]


def test_vggt_and_bundle_adjustment_never_fail(data, tmp_path, capsys):
    assert run(data, tmp_path, "--model_name", "VGGT", "--use_ba", "--tracks", "sift", categories=("apple",)) == 0
    output = results(tmp_path)["bundle_adjustment"]
    assert output["refined"] + output["kept"] == 2
    assert output["kept"] == 0 or "keep the network's poses" in capsys.readouterr().out


def test_categories_are_the_published_ones():
    assert len(CO3D_CATEGORIES) == 41 and list(CO3D_CATEGORIES) == sorted(CO3D_CATEGORIES)

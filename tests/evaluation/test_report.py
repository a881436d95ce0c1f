"""The result page: our numbers beside the published ones, how they were made, pictures; nothing hidden."""

import json
import re

import numpy as np
import pytest
import torch

from streamvggt.cli import main
from streamvggt.evaluation import report
from streamvggt.evaluation.depth_protocol import DEPTH_SETS
from streamvggt.evaluation.run_metadata import write_json, write_scores
from streamvggt.evaluation.video_depth import VideoDepth

NETWORK = {"model": "StreamVGGT", "weights_fingerprint": "0123456789abcdef", "inference": "stream", "policy": "all"}
NETWORK |= {"camera_cache": "per_iteration", "dtype": "float32", "size": 518}


def result(folder, protocol, dataset, score="scale", numbers=None, sequences=(), about=None, settings=None, **more):
    run = {"protocol": protocol, "dataset": dataset, "settings": NETWORK | (settings or {}), "started": "2026-11-24"}
    write_json(folder / "run.json", run | {"about": {"weights": "tiny.pth", "machine": "a card", **(about or {})}})
    write_scores(folder, score, numbers or {}, dict.fromkeys(sequences, numbers), **more)


def depth_numbers(value: float) -> dict[str, float]:
    return {"Abs Rel": value, "δ < 1.25": 0.9}


def make(root) -> str:
    assert report.main([str(root)]) == 0
    return (root / "report.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.S)))


def test_published_numbers_stand_with_their_source():
    known = report.published()
    for table in known["tables"]:
        for row in table["rows"]:
            assert row["source"] in known["sources"]
            assert set(row["numbers"]) <= set(table["datasets"])
            assert all(len(values) == len(table["columns"]) for values in row["numbers"].values())
    (table,) = (table for table in known["tables"] if table["protocol"] == "monodepth")
    (paper,) = (row for row in table["rows"] if row["method"] == "StreamVGGT")
    assert paper["numbers"]["nyu"] == [0.055, 95.9] and paper["source"] == "P"


def test_one_network_is_one_row_and_another_memory_another(tmp_path):
    result(tmp_path / "a", "video_depth", "sintel", numbers=depth_numbers(0.4321))
    result(tmp_path / "b", "video_depth", "bonn", numbers=depth_numbers(0.1234))
    result(tmp_path / "c", "video_depth", "bonn", numbers=depth_numbers(0.2), settings={"policy": "window:1,8"})
    html = make(tmp_path)
    ours = re.findall(r"<tr class=ours>.*?</tr>", html)
    assert [text_of(row).strip() for row in ours] == [
        "StreamVGGT (tiny, 01234567), streamed here 0.432 90.0 0.123 90.0",
        "StreamVGGT (tiny, 01234567), streamed, memory window:1,8 here 0.200 90.0",
    ]
    assert "StreamVGGT P 0.323 65.7 0.059 97.2 0.173 72.1" in text_of(html)
    assert "Monocular depth" not in html, "tables without results of ours are skipped"


def test_other_alignments_go_to_their_tables(tmp_path):
    for name, value in {"scale": 0.1, "scale_exact": 0.09, "metric": 0.7}.items():
        result(tmp_path, "video_depth", "bonn", name, depth_numbers(value))
    output = text_of(make(tmp_path))
    assert "streamed, scale_exact here 0.090" in output
    assert "Video depth in meters" in output and "streamed here 0.700" in output


def test_no_result_hides_another(tmp_path):
    for folder, score in (("a", "point head"), ("a_proj", "depth and cameras"), ("again", "point head")):
        result(tmp_path / folder, "mv_recon", "NRGBD", score, {"acc": 0.1})
    result(tmp_path / "pose", "co3d", "co3d", "AUC", {"AUC@30": 0.8}, settings={"image_loader": "crop"})
    result(tmp_path / "ba", "co3d", "co3d", "AUC", {"AUC@30": 0.9}, settings={"image_loader": "squash", "use_ba": True})
    rows = [text_of(row).split(" here")[0].strip() for row in re.findall(r"<tr class=ours>.*?</tr>", make(tmp_path))]
    network = "StreamVGGT (tiny, 01234567), streamed"
    others = ["", "", ", depth and cameras", " [again]", ", bundle adjustment, squash images"]
    assert sorted(rows) == sorted(network + other for other in others)


def test_a_part_of_a_test_set_is_marked_and_so_are_random_weights(tmp_path):
    whole = {"num_sequences": 5, "num_frames": 550, "num_published": [5, 550]}
    result(tmp_path / "a", "video_depth", "bonn", numbers=depth_numbers(0.3), **whole)
    html = make(tmp_path)
    assert "†" not in html and "mean nothing" not in html
    about = {"weights": "random:small"}
    result(tmp_path / "a", "video_depth", "bonn", numbers=depth_numbers(0.3), about=about, **whole | {"num_frames": 8})
    html = make(tmp_path)
    assert "0.300†" in html and "not comparable" in html and "mean nothing" in html


def test_how_it_was_made_is_reported_with_every_sequence(tmp_path):
    result(tmp_path / "a", "monodepth", "nyu", "median", depth_numbers(0.3), sequences=["val"])
    output = text_of(make(tmp_path))
    for words in (
        "weights_fingerprint 0123456789abcdef",
        "machine a card",
        "predicted 2026-11-24",
        "val 0.3000 0.9000",
    ):
        assert words in output


def test_predictions_of_another_program_are_shown_as_such(tmp_path):
    write_scores(tmp_path / "video_depth" / "bonn_theirs", "scale", depth_numbers(0.5), {})
    write_scores(tmp_path / "of another layout" / "bonn", "scale", depth_numbers(0.4), {})
    output = text_of(make(tmp_path))
    assert "predictions of another program (bonn_theirs) here 0.500" in output
    assert "of another layout · bonn" in output


def test_images_of_every_kind(depth_sets, tmp_path):
    about = {"data_root": str(depth_sets)}
    result(tmp_path / "depth", "video_depth", "bonn", numbers=depth_numbers(0), about=about, settings={"stride": 1})
    reader = DEPTH_SETS["bonn"](depth_sets)
    for scene in reader.scenes:
        (clip,) = VideoDepth().clips(reader, scene, tmp_path / "depth", 1)
        for frame, path in zip(clip.frames, clip.paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, reader.depth(scene, frame).numpy().clip(0.5).astype(np.float32))
    random = np.random.default_rng(0)
    points = random.normal(size=(50, 3)).astype(np.float32)
    cloud = {"points": points, "colours": np.zeros((50, 3), np.uint8), "distance": points[:, 0] ** 2}
    result(tmp_path / "clouds", "mv_recon", "7scenes", "point head", {"acc": 0.1})
    np.savez(tmp_path / "clouds" / "chess_seq-03-errors.npz", **cloud, **{f"gt_{k}": v for k, v in cloud.items()})
    poses = torch.eye(4)[:3].repeat(5, 1, 1).numpy()
    poses[:, :, 3] = random.normal(size=(5, 3))
    result(tmp_path / "poses", "co3d", "co3d", "AUC", {"AUC@30": 0.8})
    (tmp_path / "poses" / "apple").mkdir()
    np.savez(tmp_path / "poses" / "apple" / "1.npz", cam_from_world=poses * 2, gt_cam_from_world=poses)
    result(tmp_path / "ways", "trajectory", "tum", "Sim(3)", {"ATE": 0.1})
    np.savez(tmp_path / "ways" / "sitting-aligned.npz", world_from_cam=poses + 0.1, true_world_from_cam=poses)
    html = make(tmp_path)
    assert html.count("<img") == 5
    for words in ("Bonn, crowd2: images", "chess_seq-03: points", "apple/1: camera centers", "sitting: way"):
        assert words in html


def test_a_test_set_that_is_gone_costs_its_images_only(tmp_path, capsys):
    about = {"data_root": str(tmp_path / "gone")}
    result(tmp_path / "a", "video_depth", "bonn", numbers=depth_numbers(0.3), about=about, settings={"stride": 1})
    assert "0.300" in make(tmp_path)
    assert "no figures" in capsys.readouterr().out


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="run an evaluation first"):
        report.main([str(tmp_path)])


def test_a_record_that_is_damaged_is_named(tmp_path):
    result(tmp_path / "a", "video_depth", "bonn", numbers=depth_numbers(0.3))
    (tmp_path / "a" / "run.json").write_text(json.dumps({})[:1], encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        report.main([str(tmp_path)])


def test_fixtures_are_not_in_the_columns_of_the_test_sets(tmp_path):
    """Neither with a record of their predictions nor without, and a real set beside them stays where it is."""
    assert main(["data", "make-fixtures", str(tmp_path / "sets"), "bonn", "--frames", "2", "--size", "28", "42"]) == 0
    made, real = tmp_path / "sets/bonn/rgbd_bonn_dataset", tmp_path / "real/bonn"
    result(tmp_path / "r/a", "video_depth", "bonn", numbers=depth_numbers(0.4321), data=made)
    write_scores(tmp_path / "r/video_depth/bonn_theirs", "scale", depth_numbers(0.5432), {}, data=made)
    result(tmp_path / "r/b", "video_depth", "bonn", numbers=depth_numbers(0.1234), data=real)
    columns, apart = text_of(make(tmp_path / "r")).split("Results on fixtures")
    assert "0.123 90.0" in columns and "0.432" not in columns and "0.543" not in columns
    table = apart.split("How these were made")[0]
    assert "0.432 90.0" in table and "0.543 90.0" in table and "0.123" not in table


def test_without_fixtures_there_is_no_section_of_them(tmp_path):
    result(tmp_path, "video_depth", "bonn", numbers=depth_numbers(0.1234))
    assert "on fixtures" not in make(tmp_path)

"""Bonn, KITTI, NYU: downloads in miniature, prepared, are what the evaluation reads."""

import cv2
import h5py
import numpy as np
import pytest

from streamvggt.datasets import prepare
from streamvggt.datasets.bonn import Bonn
from streamvggt.datasets.kitti import Kitti
from streamvggt.datasets.nyu import Nyu


def picture(path, value, dtype=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 8) if dtype == np.uint16 else (6, 8, 3), value, dtype)
    assert cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize("inner", ["rgbd_bonn_dataset", "."])
def test_bonn_takes_the_31st_to_the_140th_by_place(tmp_path, inner):
    folder = tmp_path / "raw" / inner / "rgbd_bonn_crowd2"
    for number in range(145):
        picture(folder / "rgb" / f"{1000 + number}.png", number, np.uint8)
        picture(folder / "depth" / f"{3000 + number}.png", 5000 + number)  # other times
    rows = "".join(f"{number} 0 0 0 0 0 0 1\n" for number in range(145))
    (folder / "groundtruth.txt").write_text("# time x y z\n" + rows, encoding="utf-8")
    assert prepare("bonn", tmp_path / "raw", tmp_path / "eval").prepared == ["rgbd_bonn_crowd2"]
    bonn = Bonn(tmp_path / "eval")
    assert bonn.scenes == ["crowd2"] and bonn.frames("crowd2") == [str(1030 + number) for number in range(110)]
    assert bonn.depth("crowd2", "1031")[0, 0].item() == 5031 / 5000
    poses = (
        (tmp_path / "eval/bonn/rgbd_bonn_dataset/rgbd_bonn_crowd2/groundtruth_110.txt")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert len(poses) == 110 and poses[0].startswith("30 ") and poses[-1].startswith("139 ")


def test_kitti_takes_pairs_only(tmp_path):
    drive = "2011_09_26_drive_0002_sync"
    raw = tmp_path / "raw"
    for number in range(5, 120):
        name = f"{number:010d}.png"
        picture(raw / "val" / drive / "proj_depth/groundtruth/image_02" / name, 256 * number)
        if number != 7:
            picture(raw / "2011_09_26" / drive / "image_02/data" / name, 1, np.uint8)
    report = prepare("kitti", raw, tmp_path / "eval")
    assert len(report.prepared) == 2 and not report.failed
    kitti = Kitti(tmp_path / "eval")
    assert kitti.scenes == [f"{drive}_02"]
    frames = kitti.frames(f"{drive}_02")
    assert len(frames) == 109 and f"{7:010d}" not in frames and frames[-1] == f"{114:010d}"
    assert kitti.depth(f"{drive}_02", f"{9:010d}")[0, 0].item() == 9


def test_nyu(tmp_path):
    (tmp_path / "raw/val/official").mkdir(parents=True)
    rgb = np.random.default_rng(0).integers(0, 255, (3, 6, 8), np.uint8)
    for number in range(2):
        with h5py.File(tmp_path / f"raw/val/official/{number:05d}.h5", "w") as file:
            file["rgb"], file["depth"] = rgb, np.full((6, 8), 1.5 + number, np.float32)
    prepare("nyu", tmp_path / "raw", tmp_path / "eval")
    nyu = Nyu(tmp_path / "eval")
    assert nyu.frames("val") == ["00000", "00001"]
    assert nyu.depth("val", "00001").unique().tolist() == [2.5]
    assert (cv2.imread(str(nyu.image_path("val", "00000")))[..., ::-1] == rgb.transpose(1, 2, 0)).all()

"""Preparation of the test sets of camera trajectories."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from streamvggt.data.decode import read_png16
from streamvggt.datasets import prepare
from streamvggt.datasets.scannetv2 import ScanNetTrajectories
from streamvggt.datasets.tum import Tum, associate


def test_nearest_times_are_paired_once():
    assert associate([0.0, 1.0, 2.0], [0.015, 0.99, 1.005, 5.0]) == [(0, 0), (1, 2)]
    assert associate([0.0, 0.01], [0.009]) == [(1, 0)]
    assert associate([0.0], [0.02]) == []


def test_tum_takes_every_third_pair_and_no_more_than_ninety(tmp_path):
    folder = tmp_path / "raw/rgbd_dataset_freiburg3_walking_xyz"
    (folder / "rgb").mkdir(parents=True)
    times = [1341845688 + 0.04 * number for number in range(280)]
    for time in times:
        (folder / f"rgb/{time:.6f}.png").write_bytes(f"{time:.6f}".encode())
    (folder / "rgb.txt").write_text(
        "# color images\n" + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times), encoding="utf-8"
    )
    poses = [f"{t + 0.004:.4f} {number} 0 0 0 0 0 1" for number, t in enumerate(times) if number != 3]
    (folder / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(poses), encoding="utf-8")
    assert prepare("tum", tmp_path / "raw", tmp_path).prepared == [folder.name]
    sequence = Tum(tmp_path).read(folder.name)
    assert len(sequence.images) == 90
    centers = -sequence.cam_from_world[:, 0, 3]
    # The image without a pose is skipped before every third is taken.
    assert centers[:3].tolist() == [0, 4, 7]
    assert [path.stem for path in sequence.images[:3]] == [f"{times[n]:.6f}" for n in (0, 4, 7)]


def sens(num_frames: int) -> bytes:
    color = cv2.imencode(".jpg", np.zeros((6, 8, 3), np.uint8))[1].tobytes()
    content = struct.pack("<IQ4s", 4, 4, b"name") + np.tile(np.eye(4, dtype="<f4").ravel(), 4).tobytes()
    content += struct.pack("<2i4IfQ", 2, 1, 8, 6, 4, 3, 1000.0, num_frames)
    for number in range(num_frames):
        pose = np.eye(4, dtype="<f4")
        pose[0, 3] = number
        depth = zlib.compress(np.full((3, 4), 1000 + number, "<u2").tobytes())
        content += pose.tobytes() + struct.pack("<4Q", 0, 0, len(color), len(depth)) + color + depth
    return content


@pytest.mark.parametrize("kind", ["sens", "export"])
def test_scannet_takes_every_third_frame(kind, tmp_path):
    folder = tmp_path / "raw/scans_test/scene0707_00"
    folder.mkdir(parents=True)
    if kind == "sens":
        (folder / "scene0707_00.sens").write_bytes(sens(11))
    else:
        for name in ("color", "depth", "pose"):
            (folder / name).mkdir()
        for number in range(11):
            (folder / f"color/{number}.jpg").write_bytes(b"a picture")
            cv2.imwrite(str(folder / f"depth/{number}.png"), np.full((3, 4), 1000 + number, np.uint16))
            pose = np.eye(4)
            pose[0, 3] = number
            np.savetxt(folder / f"pose/{number}.txt", pose)
    assert prepare("scannetv2", tmp_path / "raw", tmp_path).prepared == ["scene0707_00"]
    sequence = ScanNetTrajectories(tmp_path).read("scene0707_00")
    assert (-sequence.cam_from_world[:, 0, 3]).tolist() == [0, 3, 6, 9]
    depth = read_png16(tmp_path / "scannetv2/scene0707_00/depth_90/frame_0002.png")
    assert (depth == 1006).all()

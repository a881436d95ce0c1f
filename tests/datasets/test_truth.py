"""Data sets against facts of their official tools: headers, tables, formulas and example values that we did not write.

Tests marked `real` read files of the data sets where they are (real_files.py); every other test is a small twin of the
same bytes.
"""

import csv
import struct
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from real_files import REAL, real
from scipy.spatial.transform import Rotation

from streamvggt.data.check import check
from streamvggt.data.consistency import agreement
from streamvggt.data.decode import DataError
from streamvggt.datasets import blendedmvs, hypersim, prepare, seven_scenes, sintel, tum
from streamvggt.datasets._depth_set import read_fixed_point
from streamvggt.datasets._tfrecord import message
from streamvggt.datasets.blendedmvs import read_pfm
from streamvggt.datasets.bonn import STEPS_PER_METER as BONN_STEPS
from streamvggt.datasets.hypersim import Hypersim, PinholeCamera
from streamvggt.datasets.kitti import STEPS_PER_METER as KITTI_STEPS
from streamvggt.datasets.seven_scenes import SevenScenes
from streamvggt.datasets.virtual_kitti2 import FILES as VIRTUAL_KITTI

# Hypersim: the published table takes uv in [-1, 1], v upwards, to rays in OpenGL axes.

TABLE_ROWS = {
    # scene, M_cam_from_uv row by row, as the table writes it; size 1024.0 × 768.0
    "ai_001_001": "0.5773502886169104 0.0 0.0 0.0 0.4330127164626828 0.0 0.0 0.0 -1.0",
}


def table_row(numbers: str) -> dict[str, str]:
    keys = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    size = {"settings_output_img_width": "1024.0", "settings_output_img_height": "768.0"}
    return size | dict(zip(keys, numbers.split(), strict=True))


def official_rays(row: dict[str, str], columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Directions of pixels, OpenCV axes, by the table's own definition. (..., 3)"""
    u = (columns + 0.5) / float(row["settings_output_img_width"]) * 2 - 1
    v = 1 - (rows + 0.5) / float(row["settings_output_img_height"]) * 2
    M = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
    return np.stack([u, v, np.ones_like(u)], -1) @ M.T * [1, -1, -1]


def test_hypersim_field_of_view_of_the_common_lens():
    """60 degrees over 1024 pixels, the principal point in the middle."""
    camera = PinholeCamera.of(table_row(TABLE_ROWS["ai_001_001"]))
    focal = 512 / np.tan(np.pi / 6)
    np.testing.assert_allclose(camera.intrinsics, [[focal, 0, 511.5], [0, focal, 383.5], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(camera.rotation, np.eye(3), atol=1e-7)


@real
def test_hypersim_cameras_of_the_whole_table():
    rows = hypersim._rows(REAL / "hypersim" / hypersim.CAMERAS)
    assert len(rows) == 482
    pixels = np.array([[0, 0, 1], [1023, 0, 1], [0, 767, 1], [1023, 767, 1], [300, 500, 1]], float)
    skews, kept = [], 0
    for row in rows.values():
        camera = PinholeCamera.of(row)
        wanted = official_rays(row, *pixels[:, :2].T)
        rays = pixels @ (camera.rotation @ np.linalg.inv(camera.intrinsics)).T
        unit = [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (wanted, rays)]
        np.testing.assert_allclose(unit[0], unit[1], atol=1e-9)
        skews.append(abs(camera.intrinsics[0, 1]) / camera.intrinsics[0, 0])
        kept += camera.skew_error < hypersim.MAX_SKEW_ERROR
    assert sum(skew < 1e-4 for skew in skews) == 452 and max(skews) < 0.0191
    assert kept == 452 + 11
    turned = PinholeCamera.of(rows["ai_007_005"])
    assert np.degrees(Rotation.from_matrix(turned.rotation).magnitude()) == pytest.approx(12.95, abs=0.005)
    np.testing.assert_allclose(turned.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]], [864.2, 864.2, 511.5, 184.7], atol=0.06)


def hdf5(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = values


@real
@pytest.mark.parametrize("scene", ["ai_007_005", "ai_001_001"])
def test_hypersim_scene_of_the_real_table_reprojects(tmp_path, scene):
    """A box of 6 m with two cameras, every pixel by the table's own rays."""
    row = hypersim._rows(REAL / "hypersim" / hypersim.CAMERAS)[scene]
    with open(tmp_path / hypersim.CAMERAS, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, row)
        table.writeheader()
        table.writerow(row)
    detail, images = tmp_path / scene / "_detail", tmp_path / scene / "images"
    rotations = Rotation.from_rotvec([[0.1, 0.2, 0], [0.05, 0.35, 0.1]]).as_matrix()  # OpenCV axes, world-from-camera
    places = np.array([[0.0, 0, 0], [0.5, -0.2, 0.3]])
    hdf5(detail / "cam_00/camera_keyframe_orientations.hdf5", rotations * [1, -1, -1])
    hdf5(detail / "cam_00/camera_keyframe_positions.hdf5", places / 0.0254)
    (detail / "metadata_scene.csv").write_text("parameter_name,value\nmeters_per_asset_unit,0.0254\n", encoding="utf-8")
    for number, (rotation, place) in enumerate(zip(rotations, places, strict=True)):
        rays = official_rays(row, *np.meshgrid(np.arange(1024), np.arange(768))) @ rotation.T
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        distance = np.where(rays > 0, 3 - place, -3 - place) / rays
        distance = distance.min(-1)
        points = place + distance[..., None] * rays
        geometry, final = images / "scene_cam_00_geometry_hdf5", images / "scene_cam_00_final_hdf5"
        hdf5(geometry / f"frame.{number:04d}.depth_meters.hdf5", distance.astype(np.float32))
        hdf5(final / f"frame.{number:04d}.color.hdf5", np.abs(np.sin(points)).astype(np.float16))
    assert prepare("hypersim", tmp_path, tmp_path).prepared == [f"{scene}/cam_00"]
    source = Hypersim(tmp_path / hypersim.FOLDER)
    first, second = (source.read(f"{scene}/cam_00", frame) for frame in ("000000", "000001"))
    found = agreement(first, second)
    assert found.overlap > 0.4 and found.consistent_ratio > 0.98, found


# Formats and example values of official tools.


def pfm(header: bytes, values: np.ndarray) -> bytes:
    return header + values[::-1].astype("<f4").tobytes()


@pytest.mark.parametrize(
    "header", [b"Pf\n3 2\n-1.0\n", b"Pf\n3 2 \n-1.000000\n", b"Pf \n3 2\n-1\n", b"Pf\r\n3 2\r\n-1.0\r\n"]
)
def test_blendedmvs_pfm_headers(tmp_path, header):
    """The data set writes a blank before the end of the line of sizes; rows go from the bottom up."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "x.pfm").write_bytes(pfm(header, values))
    np.testing.assert_array_equal(read_pfm(tmp_path / "x.pfm"), values)
    (tmp_path / "x.pfm").write_bytes(pfm(header, values)[:-1])
    with pytest.raises(DataError, match="24 bytes were expected, it has 23"):
        read_pfm(tmp_path / "x.pfm")


def test_blendedmvs_camera_file(tmp_path):
    """MVSNet's text: extrinsic (camera-from-world), intrinsic, then depth range."""
    text = (
        "extrinsic\n1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n\nintrinsic\n500 0 384\n0 500 288\n0 0 1\n\n0.5 0.01 128 1.8\n"
    )
    (tmp_path / "x_cam.txt").write_text(text, encoding="utf-8")
    intrinsics, extrinsic = blendedmvs.read_camera(tmp_path / "x_cam.txt")
    assert intrinsics[0].tolist() == [500, 0, 384] and extrinsic[:3, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "steps"),
    [("KITTI development kit: value / 256", KITTI_STEPS), ("TUM and Bonn: 5000 is one meter", BONN_STEPS)],
)
def test_fixed_point_depth(tmp_path, name, steps):
    wanted = {"KITTI": 256, "TUM a": 5000}[name[:5]]
    cv2.imwrite(str(tmp_path / "x.png"), np.array([[wanted, 0, 2 * wanted]], np.uint16))
    assert read_fixed_point(tmp_path / "x.png", steps).tolist() == [[1.0, -1.0, 2.0]]


def test_virtual_kitti_depth_is_in_centimeters(tmp_path):
    """Its page: a pixel of 1 is 1 cm; the sky is at 655.35 m."""
    cv2.imwrite(str(tmp_path / "00000_depth.png"), np.array([[1, 100, 65535]], np.uint16))
    np.testing.assert_allclose(VIRTUAL_KITTI.read_depth(tmp_path, "00000"), [[0.01, 1, 655.35]])


def test_sintel_files(tmp_path):
    """Sintel's SDK: the tag 202021.25 as float32 is the bytes PIEH, then width and height as int32."""
    (tmp_path / "x.dpt").write_bytes(b"PIEH" + struct.pack("<ii3f", 3, 1, 1.5, 2.5, 3.5))
    assert sintel.read_dpt(tmp_path / "x.dpt").tolist() == [[1.5, 2.5, 3.5]]


def test_seven_scenes_registration_of_one_point():
    """SimpleRecon's numbers by hand: the point moves by the baseline, and whole millimeters are cut off."""
    depth = np.zeros((480, 640), np.uint16)
    depth[240, 320] = 2000
    T = seven_scenes.COLOR_FROM_DEPTH
    point = T[:, :3] @ [0.5 / 585 * 2, 0.5 / 585 * 2, 2] + T[:, 3]
    x, y = np.rint(point[:2] / point[2] * 525 + [320, 240]).astype(int)
    registered = seven_scenes.register(depth)
    assert registered[y, x] == int(point[2] * 1000) and (registered > 0).sum() == 1
    assert point[2] * 1000 % 1 > 0.5, "rounding would give another number"


def test_waymo_without_lasers_names_the_file(tmp_path):
    """As a real record of the camera-only downloads: five lasers without range images."""
    frame = message("Frame")()
    frame.pose.transform.extend(np.eye(4).ravel())
    for name in range(1, 6):
        frame.context.laser_calibrations.add(name=name)
        frame.lasers.add()
    content = frame.SerializeToString()
    (tmp_path / "x.tfrecord").write_bytes(struct.pack("<Q", len(content)) + bytes(4) + content + bytes(4))
    report = prepare("waymo", tmp_path, tmp_path)
    assert "x.tfrecord: frame 0: expected range images of lasers, got none" in report.failed["x.tfrecord"]


@real
def test_waymo_real_frame_without_lasers_names_the_file(tmp_path):
    report = prepare("waymo", REAL / "waymo", tmp_path)
    assert "frame 0: expected range images" in report.failed["pvps_data_one_frame.tfrecord"]


@real
def test_seven_scenes_real_bytes(tmp_path):
    assert prepare("seven_scenes", REAL / "seven_scenes", tmp_path).prepared == ["heads/seq-01"]
    split = "train" if "1" in (REAL / "seven_scenes/heads/TrainSplit.txt").read_text(encoding="utf-8") else "test"
    (tmp_path / "7scenes/heads" / seven_scenes.SPLITS[split]).unlink()
    (tmp_path / "7scenes/heads" / seven_scenes.SPLITS[split]).write_text("sequence1\n", encoding="utf-8")
    findings = check(SevenScenes(tmp_path / "7scenes", split), name="7-Scenes")
    assert findings.is_valid and np.median(findings.verdicts[0].consistent_ratio) > 0.75, str(findings)
    assert check(SevenScenes(tmp_path / "7scenes", split), name="7-Scenes", num_pairs=None).is_valid


@real
def test_tum_real_lists():
    images, poses = (tum.read_list(REAL / "tum" / name) for name in ("rgb.txt", "groundtruth.txt"))
    pairs = tum.associate([time for time, _ in images], [time for time, _ in poses])
    assert len(pairs) > 0.9 * len(images)
    assert all(abs(images[i][0] - poses[j][0]) < 0.02 for i, j in pairs)
    assert all(len(rest.split()) == 7 for _, rest in poses)

"""Every training set against its official tool: formulas, headers and example values we did not write.

Hypersim, BlendedMVS, Virtual KITTI 2, Waymo's real frame and the evaluation sets are in test_truth.py.
"""

import json
import math
import struct
import zlib
from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from streamvggt.data.decode import read_exr, write_rgb
from streamvggt.data.encode import write_png
from streamvggt.data.own.nerfstudio import read_transforms
from streamvggt.data.own.tum import read_tum
from streamvggt.datasets import neural_rgbd, omniobject3d, prepare, source_class, waymo
from streamvggt.datasets._co3d_download import camera
from streamvggt.datasets._colmap import read_colmap
from streamvggt.datasets._tfrecord import message

H, W = 30, 40
GRAY = np.full((H, W, 3), 128, np.uint8)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def image(path: Path, pixels: np.ndarray = GRAY) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_rgb if pixels.ndim == 3 else write_png)(path, pixels)


def prepared(name: str, raw: Path, root: Path):
    """The only view of the only scene."""
    report = prepare(name, raw, root)
    assert len(report.prepared) == 1, report
    kind = source_class(name)
    source = kind(root / kind.folder)
    (scene,) = source.scenes
    return source.read(scene, source.frames(scene)[0])


def test_co3d_cameras_are_those_of_pytorch3d():
    """cameras_from_opencv_projection: focal / s, -(c - size / 2) / s, s = min(size) / 2; R.T with x, y negated."""
    R, t = Rotation.from_rotvec([0.1, -0.2, 0.3]).as_matrix(), np.array([0.1, 0.2, 3])
    focal, center, size = np.array([60.0, 50.0]), np.array([22.0, 14.0]), np.array([W, H])
    half = size.min() / 2
    viewpoint = {
        "R": (R.T * [-1, -1, 1]).tolist(),
        "T": (t * [-1, -1, 1]).tolist(),
        "focal_length": (focal / half).tolist(),
        "principal_point": (-(center - size / 2) / half).tolist(),
        "intrinsics_format": "ndc_isotropic",
    }
    intrinsics, pose = camera(viewpoint, (H, W))
    np.testing.assert_allclose(pose[:3], np.column_stack([R, t]), atol=1e-12)
    # PyTorch3D's first pixel has its center at (0.5, 0.5).
    np.testing.assert_allclose(intrinsics, [[60, 0, 21.5], [0, 50, 13.5], [0, 0, 1]], atol=1e-12)


def test_wildrgbd_metadata_and_poses(tmp_path):
    """wildrgbd_generate_point_cloud.py: K = reshape(3, 3).T, depth / 1000, points = pose · K⁻¹ · depth (x, y, 1)."""
    scene = tmp_path / "raw/apple/scenes/scene_001"
    K = [600.0, 0, 0, 0, 610, 0, 250, 190, 1]  # column by column, as the file has it
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec([0.2, 0.1, 0]).as_matrix(), [1, 2, 3]
    write(scene / "metadata", json.dumps({"w": 512, "h": 384, "K": K}))
    write(scene / "cam_poses.txt", " ".join(map(str, (0, *pose.ravel()))))
    pixels = np.full((384, 512), 2000, np.uint16)
    image(scene / "rgb/00000.png", np.zeros((384, 512, 3), np.uint8))
    image(scene / "depth/00000.png", pixels)
    image(scene / "masks/00000.png", np.zeros((384, 512), np.uint8))
    for name in ("camera_eval_list.json", "nvs_list.json"):
        write(tmp_path / "raw/apple" / name, json.dumps({"train": ["scenes/scene_001"], "val": []}))
    view = prepared("wildrgbd", tmp_path / "raw", tmp_path)
    middle = pose @ [0, 0, 2, 1]  # the point at the principal point
    x, y = view.intrinsics[:2, 2].round().int().tolist()
    ray = np.linalg.inv(view.intrinsics.double().numpy()) @ [x, y, 1]
    world_from_cam = view.cameras.world_from_cam.double().numpy()
    np.testing.assert_allclose(world_from_cam[:, :3] @ (2 * ray) + world_from_cam[:, 3], middle[:3], atol=5e-3)
    np.testing.assert_allclose(world_from_cam, pose[:3], atol=1e-6)
    assert view.depth[y, x] == 2


@pytest.mark.parametrize(("name", "depth"), [("arkitscenes", "lowres_depth"), ("arkitscenes_highres", "highres_depth")])
def test_arkitscenes_trajectory_and_pincam(tmp_path, name, depth):
    """DATA.md and TrajStringToMatrix: world-from-camera = inv([Rodrigues(axis-angle) | t]); w h fx fy cx cy; mm."""
    scene, vector, t = tmp_path / "raw/Training/47333462", np.array([1.6, 0.05, -0.02]), np.array([0.3, -0.2, 1.0])
    lines = [" ".join(map(str, (time, *vector, *t))) for time in (100.0, 100.2)]
    write(scene / "lowres_wide.traj", "\n".join(lines))
    image(scene / "vga_wide/47333462_100.100.png")
    write(scene / "vga_wide_intrinsics/47333462_100.100.pincam", f"{W} {H} 35 36 20 15")
    image(scene / f"{depth}/47333462_100.101.png", np.full((H // 2, W // 2), 1500, np.uint16))
    view = prepared(name, tmp_path / "raw", tmp_path)
    extrinsics = np.eye(4)
    extrinsics[:3, :3], extrinsics[:3, 3] = cv2.Rodrigues(vector)[0], t
    np.testing.assert_allclose(view.cameras.world_from_cam, np.linalg.inv(extrinsics)[:3], atol=1e-5)
    np.testing.assert_allclose(view.intrinsics, [[35, 0, 20], [0, 36, 15], [0, 0, 1]], atol=1e-4)
    assert (view.depth == 1.5).all() and view.is_metric


def test_scannet_sens_header(tmp_path):
    """SensReader: version 4, sensor, 4 matrices, compressions (jpeg 2, zlib 1), sizes, shift, number of frames."""
    matrices = [np.eye(4), np.eye(4), np.diag([50.0, 50, 1, 1]), np.eye(4)]
    pose = np.eye(4)
    pose[0, 3] = 2
    jpeg = cv2.imencode(".jpg", GRAY)[1].tobytes()
    depth = zlib.compress(np.full((H, W), 3000, "<u2").tobytes())
    content = struct.pack("<IQ15s", 4, 15, b"StructureSensor")
    content += b"".join(matrix.astype("<f4").tobytes() for matrix in matrices)
    content += struct.pack("<iiIIIIfQ", 2, 1, W, H, W, H, 1000.0, 1)
    content += pose.astype("<f4").tobytes() + struct.pack("<QQQQ", 1, 1, len(jpeg), len(depth)) + jpeg + depth
    write(tmp_path / "raw/scans/scene0000_00/scene0000_00.sens", content)
    view = prepared("scannet", tmp_path / "raw", tmp_path)
    assert (view.depth == 3).all() and view.intrinsics[0, 0] == 50
    np.testing.assert_allclose(view.cameras.world_from_cam, pose[:3], atol=1e-6)


CAMERAS = """# Camera list with one line of data per camera:
1 SIMPLE_PINHOLE 3072 2304 2559.81 1536 1152
2 PINHOLE 3072 2304 2560.56 2560.56 1536 1152
3 SIMPLE_RADIAL 3072 2304 2559.69 1536 1152 -0.0218531
"""
IMAGES = """# Image list with two lines of data per image:
1 0.851773 0.0165051 0.503764 -0.142941 -0.737434 1.02973 3.74354 1 P1180141.JPG
2362.39 248.498 -1 1784.7 268.254 -1 1784.7 268.254 -1
2 0.851773 0.0165051 0.503764 -0.142941 -0.737434 1.02973 3.74354 2 P1180142.JPG
1190.83 663.957 -1 1258.77 640.354 -1
"""


def test_scannetpp_reads_the_example_of_colmap_as_colmap_does(tmp_path):
    """The example of COLMAP's page "Output Format"."""
    for name, content in (("cameras", CAMERAS), ("images", IMAGES), ("points3D", "")):
        write(tmp_path / f"{name}.txt", content)
    model = pycolmap.Reconstruction(tmp_path)
    ours = read_colmap(tmp_path)
    assert [one.name for one in ours] == ["P1180141.JPG", "P1180142.JPG"]
    for one in ours:
        (theirs,) = (picture for picture in model.images.values() if picture.name == one.name)
        np.testing.assert_allclose(np.linalg.inv(one.world_from_cam)[:3], theirs.cam_from_world().matrix(), atol=1e-5)
        assert one.camera.parameters.tolist() == model.cameras[theirs.camera_id].params.tolist()


def test_megadepth_cameras_are_those_of_colmaps_undistorter(tmp_path):
    """Images and cameras by `image_undistorter`; only the sizes of MegaDepth's own images are not proved by this."""
    sparse, raw = tmp_path / "sparse", tmp_path / "raw"
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="SIMPLE_RADIAL", width=120, height=90, params=[100, 62, 43, -0.05])
    )
    pose = pycolmap.Rigid3d(np.column_stack([Rotation.from_rotvec([0.1, 0, 0.2]).as_matrix(), [1, 2, 3]]))
    model.add_image_with_trivial_frame(pycolmap.Image(name="x.jpg", camera_id=1, image_id=1), pose)
    image(tmp_path / "images/x.jpg", np.full((90, 120, 3), 99, np.uint8))
    for folder in (sparse, raw / "MegaDepth_v1_SfM/0001/sparse/manhattan/0"):
        folder.mkdir(parents=True)
        model.write_binary(folder)
    options = pycolmap.UndistortCameraOptions(max_image_size=80)
    pycolmap.undistort_images(tmp_path / "dense", sparse, tmp_path / "images", undistort_options=options)
    (theirs,) = pycolmap.Reconstruction(tmp_path / "dense/sparse").cameras.values()
    dense = raw / "MegaDepth_v1/0001/dense0"
    write(dense / "imgs/x.jpg", (tmp_path / "dense/images/x.jpg").read_bytes())
    (dense / "depths").mkdir()
    with h5py.File(dense / "depths/x.h5", "w") as file:
        file["depth"] = np.ones((theirs.height, theirs.width), np.float32)
    assert prepare("megadepth", raw, tmp_path).prepared == ["0001/0"]
    stored = np.load(tmp_path / "processed_megadepth/0001/0/x.jpg.npz")
    np.testing.assert_allclose(stored["intrinsics"], theirs.calibration_matrix() - [[0, 0, 0.5], [0, 0, 0.5], [0] * 3])
    np.testing.assert_allclose(stored["cam2world"][:3], pose.inverse().matrix(), atol=1e-9)


def test_waymo_rays_are_those_of_range_image_utils():
    """compute_inclination and compute_range_image_polar; then x, y, z = cos·cos, sin·cos, sin."""
    height, width = 4, 10
    calibration = message("LaserCalibration")()
    calibration.beam_inclination_min, calibration.beam_inclination_max = -0.3, 0.05
    extrinsic = np.eye(4)
    extrinsic[:3, :3] = Rotation.from_euler("z", 0.7).as_matrix()
    inclination = ((np.arange(height) + 0.5) / height * 0.35 - 0.3)[::-1, None]
    ratios = (np.arange(width, 0, -1) - 0.5) / width
    azimuth = (ratios * 2 - 1) * np.pi - np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    x, y = np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination)
    rays = np.stack([x, y, np.broadcast_to(np.sin(inclination), x.shape)], -1)
    np.testing.assert_allclose(waymo.laser_rays(calibration, extrinsic, height, width), rays, atol=1e-12)


def test_omniobject3d_focal_length_and_depth_of_nothing():
    """oo3d.py: 555.5555155968841 pixels at half of 800; a camera of 50 mm on 36 mm; 65504 where there is nothing."""
    intrinsics = omniobject3d.intrinsics_from_angle(0.6911112070083618, 800, 800)
    assert intrinsics[0, 0] / 2 == pytest.approx(555.5555155968841, rel=1e-12)
    assert intrinsics[0, 0] == pytest.approx(800 * 50 / 36, rel=1e-6)
    assert omniobject3d.NO_HIT_DEPTH == 65504 == np.finfo(np.float16).max


def test_point_odyssey_depth(tmp_path):
    """reprojection.py: depth_16bit / 65535 * 1000."""
    scene, steps = tmp_path / "raw/train/dancing", np.full((H, W), 244, np.uint16)
    image(scene / "rgbs/rgb_00000.jpg")
    image(scene / "depths/depth_00000.png", steps)
    K = np.array([[50.0, 0, 20], [0, 50, 15], [0, 0, 1]])
    np.savez(scene / "anno.npz", intrinsics=K[None], extrinsics=np.eye(4)[None])
    view = prepared("point_odyssey", tmp_path / "raw", tmp_path)
    np.testing.assert_allclose(view.depth, steps.astype(np.float32) / 65535.0 * 1000.0, rtol=1e-6)


def test_spring_depth(tmp_path):
    """spring_utils: disp1[::2, ::2], depth = fx * 0.065 / disparity, a line of intrinsics per frame."""
    scene, random = tmp_path / "raw/train/0004", np.random.default_rng(0)
    disparity = random.uniform(1, 2, (4 * H, 4 * W)).astype(np.float32)
    image(scene / "frame_left/frame_left_0001.png", np.zeros((2 * H, 2 * W, 3), np.uint8))
    (scene / "disp1_left").mkdir()
    with h5py.File(scene / "disp1_left/disp1_left_0001.dsp5", "w") as file:
        file["disparity"] = disparity
    write(scene / "cam_data/intrinsics.txt", "2100 2100 40 30")
    write(scene / "cam_data/extrinsics.txt", " ".join(map(str, np.eye(4).ravel())))
    view = prepared("spring", tmp_path / "raw", tmp_path)
    official = 2100 * 0.065 / disparity[::2, ::2]
    found = np.abs(official[None, None] - view.depth.numpy()[..., None, None]).min((-1, -2))
    assert view.depth.shape == (H, W) and found.max() < 1e-4 * official.max(), "each is the depth of a pixel"


def test_mvs_synth_depth_is_the_channel_y(tmp_path):
    """The data set's files: OpenEXR with one 32-bit channel, Y; a camera in JSON with f_x, f_y, c_x, c_y, extrinsic."""
    scene, depth = tmp_path / "raw/0000", np.full((H, W), 7, np.float32)
    image(scene / "images/0000.png")
    (scene / "depths").mkdir()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Y": depth}) as file:
        file.write(str(scene / "depths/0000.exr"))
    np.testing.assert_array_equal(read_exr(scene / "depths/0000.exr"), depth)
    extrinsic = [[0.0, 1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]  # left-handed
    write(scene / "poses/0000.json", json.dumps({"f_x": 50, "f_y": 50, "c_x": 20, "c_y": 15, "extrinsic": extrinsic}))
    view = prepared("mvs_synth", tmp_path / "raw", tmp_path)
    assert np.linalg.det(np.array(extrinsic)[:3, :3]) < 0 < np.linalg.det(view.cam_from_world[:, :3])


def test_neural_rgbd_focal_length_is_that_of_60_degrees():
    """Its focal.txt has 554.2562584220408 for 640 pixels."""
    assert neural_rgbd.FOCAL == 554.2562584220408
    assert math.degrees(neural_rgbd.FOV) == pytest.approx(60)


FOX = {
    **{"camera_angle_x": 0.7481849417937728, "camera_angle_y": 1.2193576119562444, "fl_x": 1375.52, "fl_y": 1374.49},
    **{"k1": 0.0578421, "k2": -0.0805099, "p1": -0.000980296, "p2": 0.00015575},
    **{"cx": 554.558, "cy": 965.268, "w": 1080.0, "h": 1920.0, "aabb_scale": 4},
}
"""The camera of instant-ngp's example scene "fox"."""


def test_own_data_reads_the_camera_of_instant_ngp(tmp_path):
    """Sizes are written as 1080.0, and the field of view is that of the focal length."""
    image(tmp_path / "images/0001.jpg")
    frames = [{"file_path": "images/0001.jpg", "sharpness": 30, "transform_matrix": np.eye(4).tolist()}]
    write(tmp_path / "transforms.json", json.dumps(FOX | {"frames": frames}))
    (frame,) = read_transforms(tmp_path)
    assert frame.lens.size == (1080, 1920)
    assert list(frame.lens.params[:8]) == [1375.52, 1374.49, 554.558, 965.268, *list(FOX.values())[4:8]]
    np.testing.assert_array_equal(np.diag(frame.world_from_cam), [1, -1, -1, 1])  # OpenGL's camera, OpenCV's axes
    angle_only = {key: FOX[key] for key in ("camera_angle_x", "w", "h")}
    write(tmp_path / "transforms.json", json.dumps(angle_only | {"frames": frames}))
    (frame,) = read_transforms(tmp_path)
    assert frame.lens.params[0] == pytest.approx(1375.52, abs=0.005)


def test_own_data_reads_the_line_of_tum(tmp_path):
    """The file formats' page: "timestamp tx ty tz qx qy qz qw" of world-from-camera; 5000 is 1 m; fr1's camera."""
    write(tmp_path / "rgb.txt", "# color images\n1305031102.175304 rgb/1305031102.175304.png\n")
    write(tmp_path / "depth.txt", "# depth maps\n1305031102.160407 depth/1305031102.160407.png\n")
    line = "1305031102.1758 1.3405 0.6266 1.6575 0.6574 0.6126 -0.2949 -0.3248"
    write(tmp_path / "groundtruth.txt", f"# ground truth trajectory\n{line}\n")
    write(tmp_path / "calibration.txt", "517.3 516.5 318.6 255.3 0.2624 -0.9531 -0.0054 0.0026 1.1633")
    image(tmp_path / "rgb/1305031102.175304.png")
    image(tmp_path / "depth/1305031102.160407.png", np.full((H, W), 5000, np.uint16))
    (frame,) = read_tum(tmp_path)
    np.testing.assert_allclose(frame.world_from_cam[:3, 3], [1.3405, 0.6266, 1.6575])
    x, y, z, w = 0.6574, 0.6126, -0.2949, -0.3248
    np.testing.assert_allclose(frame.world_from_cam[2, 0], 2 * (x * z - y * w), atol=1e-4)
    assert frame.world_from_cam[2, 2] < 0, "the camera looks down"
    assert frame.depth_unit * 5000 == 1

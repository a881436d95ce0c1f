"""ScanNet from its recordings, and from what its own exporter makes of them."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.consistency import agreement
from streamvggt.data.encode import millimeters, write_png
from streamvggt.data.encode import world_from_cam as pose_of
from streamvggt.data.transforms import image_array
from streamvggt.datasets import prepare
from streamvggt.datasets._sens import SensFile
from streamvggt.datasets.scannet import ScanNet

(CLIP,) = world_clips(1, 5, 48, 64)
LOST = 2


def poses():
    """World-from-camera; tracking is lost in one frame."""
    matrices = [pose_of(view) for view in CLIP]
    matrices[LOST] = np.full((4, 4), -np.inf)
    return matrices


def jpegs():
    """Twice as large as the depth, as a camera of more pixels has them."""
    for view in CLIP:
        large = cv2.resize(image_array(view.image)[..., ::-1], (128, 96), interpolation=cv2.INTER_CUBIC)
        yield cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def sens_bytes(depth_compression: int = 1) -> bytes:
    def matrix(values) -> bytes:
        return np.asarray(values, "<f4").tobytes()

    K = np.eye(4)
    K[:3, :3] = CLIP[0].intrinsics.numpy()
    out = [struct.pack("<IQ", 4, 9), b"Structure"]
    out += [matrix(np.diag([2, 2, 1, 1]) @ K), matrix(np.eye(4)), matrix(K), matrix(np.eye(4))]
    out += [struct.pack("<ii4IfQ", 2, depth_compression, 128, 96, 64, 48, 1000, len(CLIP))]
    for view, pose, jpeg in zip(CLIP, poses(), jpegs(), strict=True):
        depth = millimeters(view).astype("<u2").tobytes()
        if depth_compression == 1:
            depth = zlib.compress(depth)
        out += [matrix(pose), struct.pack("<4Q", 7, 7, len(jpeg), len(depth)), jpeg, depth]
    return b"".join([*out, struct.pack("<Q", 0)])


def write_sens(raw, folder="scans", **options):
    scene = raw / folder / "scene0000_00"
    scene.mkdir(parents=True)
    (scene / "scene0000_00.sens").write_bytes(sens_bytes(**options))


def write_export(raw, folder="scans_train"):
    scene = raw / folder / "scene0000_00"
    for part in ("color", "pose", "intrinsic"):
        (scene / part).mkdir(parents=True)
    K = np.eye(4)
    K[:3, :3] = CLIP[0].intrinsics.numpy()
    np.savetxt(scene / "intrinsic/intrinsic_depth.txt", K, fmt="%f")
    for number, (view, pose, jpeg) in enumerate(zip(CLIP, poses(), jpegs(), strict=True)):
        (scene / f"color/{number}.jpg").write_bytes(jpeg)
        write_png(scene / f"depth/{number}.png", millimeters(view))
        np.savetxt(scene / f"pose/{number}.txt", pose, fmt="%f")


@pytest.mark.parametrize(
    ("write", "split"),
    [(write_sens, "train"), (write_export, "train"), (lambda raw: write_sens(raw, "scans_test"), "test")],
)
def test_a_recording_becomes_the_world(write, split, tmp_path):
    write(tmp_path / "raw")
    report = prepare("scannet", tmp_path / "raw", tmp_path)
    assert report.prepared == [f"scans_{split}/scene0000_00"] and not report.failed
    source = ScanNet(tmp_path / ScanNet.folder, split)
    kept = [number for number in range(len(CLIP)) if number != LOST]
    assert source.frames("scene0000_00") == [f"{number:05d}" for number in kept], "numbers keep their gap"
    views = [source.read("scene0000_00", frame) for frame in source.frames("scene0000_00")]
    for number, view in zip(kept, views, strict=True):
        truth = CLIP[number]
        torch.testing.assert_close(view.intrinsics, truth.intrinsics, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(view.cam_from_world, truth.cam_from_world, rtol=0, atol=1e-4)
        assert (view.depth - truth.depth)[view.valid].abs().max() <= 0.00051
        assert (view.image - truth.image).abs().mean() < 0.03
    assert agreement(views[0], views[1]).consistent_ratio >= agreement(CLIP[0], CLIP[1]).consistent_ratio - 0.03


def test_raw_depth_is_read_too_and_what_cannot_be_is_reported(tmp_path):
    path = tmp_path / "a.sens"
    path.write_bytes(sens_bytes(depth_compression=0))
    with SensFile(path) as recording:
        assert recording.header.num_frames == len(list(recording)) == len(list(recording)), "can be read again"
    path.write_bytes(sens_bytes(depth_compression=2))
    with pytest.raises(ValueError, match=r"a.sens is compressed as 2 \(color\) and 2 \(depth\).*SensReader"):
        SensFile(path)
    path.write_bytes(sens_bytes()[:-5000])
    with SensFile(path) as recording, pytest.raises(ValueError, match=r"a.sens ends in the middle.*download it again"):
        list(recording)
    path.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(ValueError, match=r"a.sens is not a .sens file of version 4"):
        SensFile(path)


def test_a_scene_without_poses_is_skipped_and_a_damaged_one_fails(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    write_export(raw)
    for path in (raw / "scans_train/scene0000_00/pose").iterdir():
        np.savetxt(path, np.full((4, 4), -np.inf))
    damaged = raw / "scans_train/scene0001_00/scene0001_00.sens"
    damaged.parent.mkdir()
    damaged.write_bytes(sens_bytes()[:3000])
    report = prepare("scannet", raw, tmp_path)
    assert report.skipped == {"scans_train/scene0000_00": "no frame has a pose"}
    assert "ends in the middle of a frame" in report.failed["scans_train/scene0001_00"]
    assert not list((tmp_path / ScanNet.folder).glob("*/scene*"))

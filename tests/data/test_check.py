"""`data check` judges every scene: whatever is wrong with one is found and named, and intact data pass."""

from dataclasses import replace

import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.check import check
from streamvggt.data.decode import DataError, read_image, read_json, read_npy, read_npz
from streamvggt.geometry.camera import invert_pose

FRAMES = 16
AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
QUARTER_TURN = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])


class Views:
    """Scenes in memory."""

    is_metric = True

    def __init__(self, clips):
        self.clips = {f"scene{number}": clip for number, clip in enumerate(clips)}
        self.scenes = list(self.clips)

    def frames(self, scene):
        return [str(number) for number in range(len(self.clips[scene]))]

    def read(self, scene, frame):
        return self.clips[scene][int(frame)]


@pytest.fixture(scope="module")
def clips():
    return world_clips(2, FRAMES, 60, 80, stride=4)


def scaled(factor):
    return lambda view: replace(view, depth=view.depth * factor)


def inverted(view):
    return replace(view, cam_from_world=invert_pose(view.cam_from_world))


def opengl(view):
    return replace(view, cam_from_world=AXES @ view.cam_from_world)


def with_focal(factor):
    return lambda view: replace(
        view, intrinsics=view.intrinsics * torch.tensor([[factor, 1, 1], [1, factor, 1], [1] * 3])
    )


def with_depth_of(clip, others):
    return [replace(view, depth=other.depth, valid=other.valid) for view, other in zip(clip, others, strict=True)]


def test_intact_scenes_pass(clips):
    findings = check(Views(clips), name="intact")
    assert findings.is_valid and "views agree in 2 scenes: 9" in str(findings), str(findings)
    assert len(findings.rows) == 2


WRONG = {
    "1000 times too large": scaled(1000),
    "1000 times too small": scaled(0.001),
    "2 times too large": scaled(2),
    "poses look inverted": inverted,
    "OpenGL": opengl,
    "depth looks 1.2 times too large": scaled(1.2),
    "focal length looks 1.2 times too large": with_focal(1.2),
    "focal length looks 1.2 times too small": with_focal(1 / 1.2),
    "OpenCV's x, y, z are -y, x, z": lambda view: replace(view, cam_from_world=QUARTER_TURN @ view.cam_from_world),
}
WRONG_CLIPS = {
    "depth of a frame looks like that of the next frame": lambda clip: with_depth_of(clip[:-1], clip[1:]),
    "depth of a frame looks like that of the frame before": lambda clip: with_depth_of(clip[1:], clip[:-1]),
    "poses jump from frame to frame": lambda clip: [
        replace(view, cam_from_world=clip[7 * number % FRAMES].cam_from_world) for number, view in enumerate(clip)
    ],
}


@pytest.mark.parametrize("words", [*WRONG, *WRONG_CLIPS])
def test_one_wrong_scene_among_five_is_named_with_the_reason(clips, words):
    wrong = WRONG_CLIPS[words](clips[1]) if words in WRONG_CLIPS else [WRONG[words](view) for view in clips[1]]
    findings = check(Views([clips[0], clips[0], wrong, clips[0], clips[0]]), name="wrong")
    assert [verdict.scene for verdict in findings.disagreeing] == ["scene2"]
    assert words in findings.disagreeing[0].problem
    assert "VIEWS DISAGREE in 1 of 5 scenes" in str(findings) and not findings.is_valid
    assert findings.rows[0][0].startswith("wrong   scene2"), "the picture shows the worst pair"


@pytest.mark.parametrize("every", [2, 4, 8])
@pytest.mark.parametrize("factor", [1000, 0.001])
def test_frames_in_another_unit_are_found(clips, every, factor):
    mixed = [scaled(factor)(view) if number % every == 0 else view for number, view in enumerate(clips[0])]
    findings = check(Views([mixed, clips[1]]), name="mixed", num_frames=None)
    assert not findings.is_valid and any("scene0" in problem for problem in findings.problems)
    assert not any("scene1" in problem for problem in findings.problems)


def test_everything_in_millimeters_is_found(clips):
    """Depth and poses agree, but not with meters."""

    def millimeters(view):
        pose = torch.cat([view.cam_from_world[:, :3], 1000 * view.cam_from_world[:, 3:]], 1)
        return replace(scaled(1000)(view), cam_from_world=pose)

    findings = check(Views([[millimeters(view) for view in clips[0]]]), name="mm")
    assert "expected 0.03 to 1000.0 meters" in findings.problems[0]


def test_depth_of_another_shape_than_the_image_is_found(clips):
    narrow = [
        replace(view, depth=view.depth[:, :40], valid=view.valid[:, :40], sky=view.sky[:, :40]) for view in clips[0]
    ]
    findings = check(Views([narrow]), name="narrow", has_cameras=False)
    assert "the image has 80×60 pixels, its depth 40×60" in findings.failed[0]


def absurd_npy(path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1024), }".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def absurd_npz(path):
    import zipfile

    absurd_npy(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".npy"), "pose.npy")


def huge_png(path):
    """A gray PNG that says 60,000 by 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("deep.json", lambda path: path.write_text("[" * 100_000, encoding="utf-8"), read_json),
        ("huge.npy", absurd_npy, read_npy),
        ("huge.npz", absurd_npz, read_npz),
        ("huge.png", huge_png, read_image),
    ],
)
def test_absurd_files_are_bad_data_by_name(tmp_path, name, write, read):
    write(tmp_path / name)
    with pytest.raises(DataError, match=name):
        read(tmp_path / name)

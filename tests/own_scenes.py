"""The procedural world in the layouts of other tools, written as those tools write it."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.encode import depth_array, millimeters, world_from_cam, write_image, write_png
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View

__all__ = ["world_clips"]
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def write_transforms(folder: Path, views: Sequence[View], depth: str | None = "png") -> dict:
    """As ns-process-data writes it: OPENCV, pixel centers at halves, OpenGL axes. depth: "png" (mm), "npy" or None."""
    height, width = views[0].depth.shape
    K = views[0].intrinsics.double().numpy()
    content = {
        "w": width, "h": height, "camera_model": "OPENCV", "fl_x": K[0, 0], "fl_y": K[1, 1],
        "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "frames": [],
    }  # fmt: skip
    for number, view in enumerate(views):
        name = f"frame_{number + 1:05d}"
        write_image(folder / f"images/{name}.png", view)
        pose = world_from_cam(view) @ OPENGL_FROM_OPENCV
        entry = {"file_path": f"images/{name}.png", "transform_matrix": pose.tolist()}
        if depth == "png":
            write_png(folder / f"depth/{name}.png", millimeters(view))
        elif depth:
            (folder / "depth").mkdir(exist_ok=True)
            np.save(folder / f"depth/{name}.npy", depth_array(view)[..., None])
        if depth:
            entry["depth_file_path"] = f"depth/{name}.{depth}"
        content["frames"].append(entry)
    save_transforms(folder, content)
    return content


def save_transforms(folder: Path, content: dict) -> None:
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf-8")


def write_colmap(folder: Path, views: Sequence[View], kind: str = "bin", has_depth: bool = True) -> None:
    """A dense workspace as `colmap image_undistorter` and `patch_match_stereo` leave it, written by pycolmap."""
    height, width = views[0].depth.shape
    model = pycolmap.Reconstruction()
    K = views[0].intrinsics.double().numpy()
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=width, height=height, params=params)
    model.add_camera_with_trivial_rig(camera)
    for number, view in enumerate(views, 1):
        write_image(folder / f"images/{number:04d}.png", view)
        image = pycolmap.Image(name=f"{number:04d}.png", camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(view.cam_from_world.double().numpy()))
        if has_depth:
            depth = depth_array(view)
            path = folder / f"stereo/depth_maps/{number:04d}.png.geometric.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            pycolmap.DepthMap.from_array(depth, 0.0, float(depth.max())).write(path)
    (folder / "sparse").mkdir()
    (model.write_binary if kind == "bin" else model.write_text)(folder / "sparse")


def write_tum(folder: Path, views: Sequence[View], start: float = 1305031102.175304) -> None:
    """Colors, depth and motion capture each with a clock of its own, as recorded."""
    K = views[0].intrinsics.double().numpy()
    lists = {name: [f"# {name} images", "# file: 'made.bag'", "# timestamp filename"] for name in ("rgb", "depth")}
    poses = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for number, view in enumerate(views):
        time = start + number / 30
        write_image(folder / f"rgb/{time:.6f}.png", view)
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        later = time + 0.004
        write_png(folder / f"depth/{later:.6f}.png", np.round(depth_array(view) * 5000).astype(np.uint16))
        lists["depth"].append(f"{later:.6f} depth/{later:.6f}.png")
        pose = world_from_cam(view)
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        poses.append(" ".join(f"{value:.9f}" for value in (time - 0.003, *pose[:3, 3], *quaternion)))
    for name, lines in (*lists.items(), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    numbers = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    (folder / "calibration.txt").write_text(" ".join(f"{number:.6f}" for number in numbers), encoding="utf-8")


def write_images(folder: Path, views: Sequence[View]) -> None:
    for number, view in enumerate(views):
        write_image(folder / f"IMG_{number + 1}.jpg", view)


def write_video(path: Path, views: Sequence[View]) -> None:
    height, width = views[0].depth.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (width, height))
    for view in views:
        writer.write(image_array(view.image)[..., ::-1])
    writer.release()

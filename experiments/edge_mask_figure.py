"""Draw the point cloud of some frames with and without the edge mask, from the side of their first camera.

    streamvggt reconstruct assets/clip.mp4 --out results/clip --weights tiny
    python -m experiments.edge_mask_figure results/clip --out assets/edge_mask.jpg
    python -m experiments.edge_mask_figure --measure

`--measure` counts points on no surface. The depth is the ground truth of the procedural world, averaged over 4×4 pixels
and interpolated back, as networks blur it. A point lies on no surface if no ground-truth depth within 2 pixels differs
by less than 5 %.
"""

from __future__ import annotations

import argparse
from itertools import product

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, unfold

from experiments.result_figure import frame_edges
from procedural_scenes.scene import STYLES
from procedural_scenes.world import SyntheticScenes
from streamvggt.export import ExportOptions, PointCloud, ReconstructionResult, merged_points
from streamvggt.files import atomic_write
from streamvggt.flags import image_path, real, some_path, whole
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import project

SIZE = (480, 640)


def draw(cloud: PointCloud, view: Cameras) -> np.ndarray:
    """Draw points as squares of 3×3 pixels, the nearest on top. RGB, uint8 (H, W, 3)"""
    pixels, depth = project(torch.from_numpy(cloud.points).double(), view)
    order = depth.argsort(descending=True)
    x, y = pixels[order].nan_to_num(-9).clamp(-9, 1e4).round().long().T.numpy()
    ahead, colors = (depth[order] > 0.05).numpy(), cloud.colors[order.numpy()]
    picture = np.full((*SIZE, 3), 255, np.uint8)
    for dy, dx in product(range(3), repeat=2):
        inside = ahead & (x + dx >= 0) & (x + dx < SIZE[1]) & (y + dy >= 0) & (y + dy < SIZE[0])
        picture[(y + dy)[inside], (x + dx)[inside]] = colors[inside]
    return picture


def side_view(cloud: PointCloud, first: Cameras, degrees: float) -> Cameras:
    """Return a camera that is turned around the middle of the points, from the first camera. (3, 4), (3, 3)"""
    points = torch.from_numpy(cloud.points).double() @ first.cam_from_world[:, :3].T + first.cam_from_world[:, 3]
    middle = points.median(0).values
    angle = np.radians(degrees)
    turn = torch.tensor([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    back = torch.tensor([0, 0, 0.3]) * middle[2]
    turned = torch.cat([turn @ first.cam_from_world[:, :3], torch.zeros(3, 1)], 1)
    turned[:, 3] = turn @ (first.cam_from_world[:, 3] - middle) + middle + back
    focal = 0.9 * SIZE[1]
    return Cameras(turned, torch.tensor([[focal, 0, SIZE[1] / 2], [0, focal, SIZE[0] / 2], [0, 0, 1]]).double())


def figure(result: ReconstructionResult, frames: tuple[int, int], degrees: float) -> np.ndarray:
    """Place the clouds without and with the mask side by side. RGB, uint8 (H, 2W, 3)"""
    pictures, view = [], None
    for drop_edges, label in ((False, "--no-edge-mask"), (True, "edge mask (default)")):
        cloud = merged_points(result, ExportOptions(frames=(*frames, None), conf_percentile=0, drop_edges=drop_edges))
        view = view or side_view(cloud, result[frames[0]].camera, degrees)
        picture = draw(cloud, view)
        cv2.putText(picture, f"{label}: {len(cloud):,} points", (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 2)
        pictures.append(picture)
    return np.concatenate(pictures, 1)


def off_surface(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return where no ground-truth depth within 2 pixels differs by less than 5 %. (S, H, W)"""
    near = unfold(truth.where(valid, torch.nan)[:, None], 5, padding=2).view(len(depth), 25, *depth.shape[1:])
    return valid & ~((near - depth[:, None]).abs() < 0.05 * depth[:, None]).any(1)


def measure(num_scenes: int) -> None:
    """Print the ratio of points on no surface, and the ratios of both kinds of points that the mask removes."""
    world = SyntheticScenes("test", style=STYLES["rooms"])
    batch = world.batch(0, num_scenes, 2, 112, 112, 0)
    truth, valid = batch.depth.flatten(0, 1), batch.valid.flatten(0, 1)
    coarse = interpolate(truth[:, None], scale_factor=0.25, mode="area")
    depth = interpolate(coarse, scale_factor=4, mode="bilinear")[:, 0]
    flying = off_surface(depth, truth, valid)
    edges = frame_edges(depth, batch.intrinsics.flatten(0, 1), valid)
    good = valid & ~flying
    before, after = flying.sum() / valid.sum(), (flying & ~edges).sum() / (valid & ~edges).sum()
    print(f"points on no surface: {before:.1%} without the mask, {after:.1%} with it")
    print(f"removed: {edges[flying].double().mean():.1%} of them, {edges[good].double().mean():.1%} of the others")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=some_path, nargs="?", help="result folder")
    parser.add_argument("--out", type=image_path, help="output image, .jpg or .png")
    parser.add_argument("--frames", type=whole(0), nargs=2, default=(0, 1), metavar=("START", "STOP"))
    parser.add_argument("--degrees", type=real(-180, 180), default=35.0, help="angle to the side of the first camera")
    parser.add_argument("--measure", action="store_true", help="print the table of `--measure` instead of drawing")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(16)
        return
    if not (arguments.result and arguments.out):
        parser.error("expected a result folder and --out, or --measure")
    picture = figure(ReconstructionResult(arguments.result), tuple(arguments.frames), arguments.degrees)
    with atomic_write(arguments.out) as unfinished:
        Image.fromarray(picture).save(unfinished, quality=90)


if __name__ == "__main__":
    main()

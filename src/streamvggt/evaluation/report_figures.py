"""Figures of results: depth next to ground truth, points colored by error, camera paths."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure

from streamvggt.data.decode import read_image
from streamvggt.data.sampling import evenly_spaced
from streamvggt.evaluation.depth_alignment import align_median
from streamvggt.evaluation.depth_protocol import DEPTH_SETS, DepthProtocol, load_pair
from streamvggt.evaluation.depth_sets import published
from streamvggt.evaluation.jobs import load_prediction
from streamvggt.evaluation.monodepth import MonoDepth
from streamvggt.evaluation.video_depth import VideoDepth
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import invert_pose

NUM_FRAMES = 4
TILE_WIDTH = 150
GRAY = (128, 128, 128)
MAX_ERROR = 0.25
"""Relative depth error at the end of the color range."""
ERROR_RANGE = 0.2
"""Point error in meters at the end of the color range."""


@dataclass(frozen=True)
class ResultFigure:
    """A PNG or JPEG with its caption."""

    caption: str
    content: bytes


def make_figures(protocol: str, folder: Path, run: Mapping[str, Any], count: int) -> list[ResultFigure]:
    """Create figures of `count` sequences of a result, or only a caption if the required files are missing."""
    makers = {
        "monodepth": lambda: depth_figures(MonoDepth(), folder, run, count),
        "video_depth": lambda: depth_figures(VideoDepth(), folder, run, count),
        "mv_recon": lambda: cloud_figures(folder, count),
        "co3d": lambda: pose_figures(folder, count),
        "trajectory": lambda: trajectory_figures(folder, count),
    }
    try:
        return makers[protocol]() if count and run else []
    except (OSError, ValueError, KeyError) as error:
        print(f"no figures of {folder}: {error}")
        return []


def depth_figures(protocol: DepthProtocol, folder: Path, run: Mapping[str, Any], count: int) -> list[ResultFigure]:
    """Create a strip per sequence: images, ground-truth depth, predicted depth, error."""
    reader = DEPTH_SETS[run["dataset"]](run["about"]["data_root"])
    figures = []
    for scene in evenly_spaced(reader.scenes, count):
        clips = protocol.clips(reader, scene, folder, run["settings"]["stride"])
        frames = [pair for clip in clips for pair in zip(clip.frames, clip.paths, strict=True)]
        frames = [(frame, path) for frame, path in evenly_spaced(frames, NUM_FRAMES) if path.exists()]
        if not frames:
            continue
        columns = []
        for frame, path in frames:
            predicted, true = load_pair(reader, scene, frame, path)
            valid = published(reader).rules.valid(true)
            if valid.any():
                predicted = predicted * align_median(predicted[valid], true[valid])[0].float()
            image = read_image(reader.image_path(scene, frame))[..., ::-1]  # BGR
            columns.append((image, predicted.numpy(), true.numpy(), valid.numpy()))
        known = np.concatenate([true[valid] for _, _, true, valid in columns])
        near, far = np.percentile(known, [2, 98]) if len(known) else (1.0, 2.0)
        strip = np.hstack([_depth_column(*column, near, far) for column in columns])
        caption = f"{reader.name}, {scene}: images; ground-truth depth; predicted depth, scaled to its median; "
        caption += f"relative error, black 0 to yellow {MAX_ERROR:.0%}. {near:.1f} m is red, {far:.1f} m is blue"
        figures.append(ResultFigure(caption, cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()))
    return figures


def _depth_column(
    image: np.ndarray, predicted: np.ndarray, true: np.ndarray, valid: np.ndarray, near: float, far: float
) -> np.ndarray:
    """Stack four tiles vertically, BGR."""
    error = np.abs(predicted - true) / np.where(valid, true, 1) / MAX_ERROR
    tiles = [
        image,
        _where_known(_heat(true, near, far), valid),
        _heat(predicted, near, far),
        _where_known(_colors(error, cv2.COLORMAP_INFERNO), valid),
    ]
    height = round(TILE_WIDTH * true.shape[0] / true.shape[1])
    tiles = [cv2.resize(tile, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA) for tile in tiles]
    return np.pad(np.vstack([np.pad(tile, ((0, 4), (0, 0), (0, 0))) for tile in tiles]), ((0, 0), (0, 4), (0, 0)))


def _where_known(colors: np.ndarray, valid: np.ndarray, size: int = 5) -> np.ndarray:
    """Paint pixels gray without valid pixels nearby. Sparse laser points are dilated. (H, W, 3)"""
    weight = cv2.blur(valid.astype(np.float32), (size, size))[..., None]
    mean = cv2.blur(colors.astype(np.float32) * valid[..., None], (size, size)) / np.maximum(weight, 1e-6)
    return np.where(valid[..., None], colors, np.where(weight > 1e-6, mean, GRAY)).astype(np.uint8)


def _heat(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Map log depth to colors: near is red, far is blue. (H, W, 3) BGR"""
    low, high = np.log(max(near, 1e-3)), np.log(max(far, near * 1.01, 2e-3))
    return _colors((high - np.log(np.maximum(depth, 1e-3))) / (high - low), cv2.COLORMAP_TURBO)


def _colors(values: np.ndarray, colors: int) -> np.ndarray:
    return cv2.applyColorMap((values.clip(0, 1) * 255).astype(np.uint8), colors)


def cloud_figures(folder: Path, count: int) -> list[ResultFigure]:
    """Draw the points of each scene in their colors, and both clouds colored by distance."""
    figures = []
    for path in evenly_spaced(sorted(folder.glob("*-errors.npz")), count):
        cloud = load_prediction(path)
        panels = {
            "estimated": (cloud["points"], cloud["colours"] / 255),
            "… by distance from the truth": (cloud["points"], cloud["distance"]),
            "true, by distance from those": (cloud["gt_points"], cloud["gt_distance"]),
        }
        center = np.median(cloud["gt_points"], 0)
        both = np.concatenate([_from_above(cloud[name] - center) for name in ("points", "gt_points")])
        low, high = np.percentile(both[:, :2], [1, 99], axis=0)
        figure = Figure(figsize=(8, 3), layout="constrained")
        for axes, (title, (points, values)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            points = _from_above(points - center)
            order = points[:, 2].argsort()[::-1]  # draw near points last
            points, values = points[order], values[order]
            size = np.clip(20_000 / len(points), 1, 6)
            options = {} if values.ndim > 1 else {"cmap": "inferno", "vmin": 0, "vmax": ERROR_RANGE}
            shown = axes.scatter(points[:, 0], points[:, 1], c=values, s=size, linewidths=0, **options)
            axes.set(aspect="equal", facecolor="#333", xticks=[], yticks=[])
            axes.set_title(title, fontsize=8)
            axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))  # the y axis points down
        figure.colorbar(shown, ax=figure.axes, shrink=0.7, label="meters", extend="max")
        name = path.name.removesuffix("-errors.npz")
        caption = f"{folder.name}, {name}: points seen from above and in front, after registration"
        figures.append(ResultFigure(caption, _png(figure)))
    return figures


def _from_above(points: np.ndarray, pitch: float = 35, yaw: float = 20) -> np.ndarray:
    """Rotate OpenCV axes to a view from above and from the side. (N, 3)"""
    a, b = np.radians([pitch, yaw])
    turn = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return points @ (tilt @ turn).T


def pose_figures(folder: Path, count: int) -> list[ResultFigure]:
    """Draw the camera centers of CO3D sequences after similarity alignment."""
    figures = []
    for path in evenly_spaced(sorted(folder.glob("*/*.npz")), count):
        arrays = load_prediction(path)
        estimated = arrays.get("refined_cam_from_world", arrays["cam_from_world"])
        ours, theirs = (
            invert_pose(torch.from_numpy(poses).double())[:, :, 3] for poses in (estimated, arrays["gt_cam_from_world"])
        )
        ours = align_points(ours, theirs).apply(ours)
        name = f"{path.parent.name}/{path.stem}: camera centers"
        figures.append(trajectory_figure(name, ours.numpy(), theirs.numpy(), "o"))
    return figures


def trajectory_figures(folder: Path, count: int) -> list[ResultFigure]:
    """Draw the aligned camera trajectories."""
    figures = []
    for path in evenly_spaced(sorted(folder.glob("*-aligned.npz")), count):
        arrays = load_prediction(path)
        ours, theirs = arrays["world_from_cam"][:, :3, 3], arrays["true_world_from_cam"][:, :3, 3]
        name = f"{path.name.removesuffix('-aligned.npz')}: way of the camera"
        figures.append(trajectory_figure(name, ours, theirs, "-"))
    return figures


def trajectory_figure(name: str, estimated: np.ndarray, true: np.ndarray, style: str) -> ResultFigure:
    """Project to the plane of largest ground-truth variance, with lines from ground truth to prediction. (S, 3) each"""
    middle = true.mean(0)
    plane = np.linalg.svd(true - middle, full_matrices=True)[2][:2]  # (2, 3)
    ours, theirs = (estimated - middle) @ plane.T, (true - middle) @ plane.T
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*np.stack([ours, theirs]).transpose(2, 0, 1), color="tab:red", linewidth=0.5)
    axes.plot(*theirs.T, style, color="tab:gray", markersize=4, label="true")
    axes.plot(*ours.T, style, color="tab:blue", markersize=4, label="estimated")
    axes.set(aspect="equal")
    axes.legend(fontsize=8)
    return ResultFigure(f"{name}, after the best similarity, in its main plane", _png(figure))


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
    return file.getvalue()

"""Point tracks for bundle adjustment from the track head, LightGlue or OpenCV's SIFT.

Each provider converts images (S, 3, H, W) and predicted cameras to `Tracks`. S frames · K points.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.refinement.bundle_adjustment import Tracks, adjust
from streamvggt.refinement.sift import NUM_KEYPOINTS, merge_matches, no_tracks, sift_keypoints, sift_tracks

TrackProvider = Callable[[Tensor, Cameras], Tracks]

NUM_QUERY_FRAMES = 3
"""Number of query frames of the track head."""
MIN_CONFIDENCE = 0.05
"""Minimum visibility and confidence of a track-head point."""


class PoseRefinement:
    """Bundle adjustment of a sequence's poses. If it fails, the predicted poses are kept."""

    def __init__(self, model: VGGT, tracks: str):
        """Select the track provider.

        Raises:
            ValueError: If the tracks are not available.
        """
        self._provider = get_track_provider(tracks, model)

    def __call__(self, images: Tensor, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return the refined or predicted poses, (S, 3, 4), and why they are not refined ("" if they are)."""
        cameras = prediction.cameras()
        first = type(cameras)(cameras.cam_from_world[0], cameras.intrinsics[0])
        try:
            tracks = self._provider(images, first)
            refined = adjust(first, tracks, tuple(images.shape[-2:]), prediction.depth[0, ..., 0].float())
            return {"refined_cam_from_world": refined.cameras.cam_from_world.numpy(), "not_refined": np.array("")}
        except Exception as reason:  # no error of a solver or matcher may stop the evaluation
            kept = first.cam_from_world.double().numpy()
            return {"refined_cam_from_world": kept, "not_refined": np.array(str(reason) or type(reason).__name__)}


def get_track_provider(name: str, model: VGGT) -> TrackProvider:
    """Return the provider "head", "lightglue" or "sift". "auto" selects the first available one.

    Raises:
        ValueError: If the provider is not available. The message names the missing requirement.
    """
    has_head, has_lightglue = "track" in model.heads, importlib.util.find_spec("lightglue") is not None
    if name == "auto":
        name = "head" if has_head else "lightglue" if has_lightglue else "sift"
    if name == "head":
        if not has_head:
            raise ValueError("these weights have no track head: choose --tracks sift, lightglue or auto")
        return HeadTracks(model)
    if name == "lightglue":
        if not has_lightglue:
            raise ValueError("LightGlue is not installed (pip install git+https://github.com/cvg/LightGlue.git)")
        return LightGlueTracks(next(model.parameters()).device)
    if name == "sift":
        return sift_tracks
    raise ValueError(f"tracks {name!r} are unknown; choose auto, head, lightglue or sift")


class HeadTracks:
    """Tracks of the track head for keypoints of a few query frames. Each query frame is the first of its sequence."""

    def __init__(self, model: VGGT):
        self.model = model

    def __call__(self, images: Tensor, cameras: Cameras) -> Tracks:
        device = next(self.model.parameters()).device
        positions, seen = [], []
        for frame in farthest_cameras(cameras, NUM_QUERY_FRAMES):
            keypoints = torch.from_numpy(sift_keypoints(images[frame])[0])
            if not len(keypoints):
                continue
            order = [frame, *(other for other in range(len(images)) if other != frame)]
            with torch.no_grad():
                prediction = self.model(
                    images[order][None].to(device), heads=("track",), query_points=keypoints[None].to(device)
                ).to("cpu")
            back = np.argsort(order)
            positions.append(prediction.tracks[0][back].float())
            seen.append(torch.minimum(prediction.visibility, prediction.track_conf)[0][back] > MIN_CONFIDENCE)
        if not positions:
            return no_tracks(len(images))
        return Tracks(torch.cat(positions, 1), torch.cat(seen, 1))


class LightGlueTracks:
    """ALIKED keypoints matched by LightGlue in all pairs of frames.

    Reference: LightGlue, arXiv 2306.13643.
    """

    def __init__(self, device: torch.device):
        from lightglue import ALIKED, LightGlue

        self.extractor = ALIKED(max_num_keypoints=NUM_KEYPOINTS).eval().to(device)
        self.matcher = LightGlue(features="aliked").eval().to(device)
        self.device = device

    def __call__(self, images: Tensor, cameras: Cameras) -> Tracks:
        with torch.no_grad():
            features = [self.extractor.extract(image.to(self.device)) for image in images]
            matches = {
                (first, second): self.matcher({"image0": features[first], "image1": features[second]})["matches"][0]
                .cpu()
                .numpy()
                for first, second in combinations(range(len(images)), 2)
            }
        return merge_matches([feature["keypoints"][0].cpu().numpy() for feature in features], matches)


def farthest_cameras(cameras: Cameras, count: int) -> list[int]:
    """Select frames with the most different positions and directions, including the first frame.

    Each next frame is the farthest from all selected frames. The reference implementation uses DINOv2 features and the
    distance to the last selected frame only.
    """
    pose = cameras.world_from_cam.double()
    center, direction = pose[..., 3], pose[..., :3, 2]
    spread = (center - center.mean(0)).norm(dim=-1).mean().clamp(min=1e-9)
    place = torch.cat([center / spread, direction], -1).nan_to_num(0)
    taken = [0]
    distance = (place - place[0]).norm(dim=-1)
    while len(taken) < min(count, len(place)):
        taken.append(distance.argmax().item())
        distance = torch.minimum(distance, (place - place[taken[-1]]).norm(dim=-1))
    return taken

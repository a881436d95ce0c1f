"""Point tracks for bundle adjustment from the track head, LightGlue or OpenCV's SIFT.

Each provider converts images (S, 3, H, W) and predicted cameras to `Tracks`. S frames · K points.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from itertools import combinations

import cv2
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from streamvggt.evaluation.bundle_adjustment import Tracks, adjust
from streamvggt.geometry.camera import Cameras
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction

TrackProvider = Callable[[Tensor, Cameras], Tracks]

NUM_KEYPOINTS = 2048
"""Maximum number of keypoints per frame."""
NUM_QUERY_FRAMES = 3
"""Number of query frames of the track head."""
MIN_CONFIDENCE = 0.05
"""Minimum visibility and confidence of a track-head point."""
MATCH_RATIO = 0.8
"""Maximum distance ratio of the best to the second-best descriptor."""
EPIPOLAR_PIXELS = 2.0
"""Maximum distance of a match from the epipolar line."""


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
            poses = adjust(first, tracks, tuple(images.shape[-2:]), prediction.depth[0, ..., 0].float())
            return {"refined_cam_from_world": poses.numpy(), "not_refined": np.array("")}
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
                said = self.model(
                    images[order][None].to(device), heads=("track",), query_points=keypoints[None].to(device)
                ).to("cpu")
            back = np.argsort(order)
            positions.append(said.tracks[0][back].float())
            seen.append(torch.minimum(said.visibility, said.track_conf)[0][back] > MIN_CONFIDENCE)
        if not positions:
            return _no_tracks(len(images))
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


def sift_tracks(images: Tensor, cameras: Cameras) -> Tracks:
    """Match SIFT keypoints (Lowe 2004) in all pairs of frames and verify the epipolar geometry."""
    found = [sift_keypoints(image) for image in images]
    matches = {
        (first, second): match_descriptors(found[first], found[second])
        for first, second in combinations(range(len(images)), 2)
    }
    return merge_matches([keypoints for keypoints, _ in found], matches)


def sift_keypoints(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Detect the strongest SIFT keypoints of an image.

    Args:
        image: RGB in [0, 1]. (3, H, W)

    Returns:
        Unique positions (x, y) in pixels, float32 (K, 2), and RootSIFT descriptors, float32 (K, 128).
    """
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    detector = cv2.SIFT_create(nfeatures=NUM_KEYPOINTS, contrastThreshold=0.01)
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
    if not keypoints:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    places, first = np.unique(np.array([keypoint.pt for keypoint in keypoints], np.float32), axis=0, return_index=True)
    descriptors = descriptors[first]
    return places, np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-12))


def match_descriptors(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return mutual nearest neighbors that pass the ratio test and one epipolar geometry. int (M, 2)"""
    none = np.zeros((0, 2), int)
    (places, descriptors), (other_places, other_descriptors) = one, other
    if len(places) < 8 or len(other_places) < 8:
        return none
    similarity = torch.from_numpy(descriptors) @ torch.from_numpy(other_descriptors).T
    best, index = similarity.topk(2, dim=1)
    distance = (2 - 2 * best).clamp(min=0).sqrt()
    mutual = similarity.argmax(0)[index[:, 0]] == torch.arange(len(index))
    kept = (mutual & (distance[:, 0] < MATCH_RATIO * distance[:, 1])).nonzero()[:, 0]
    pairs = torch.stack([kept, index[kept, 0]], 1).numpy()
    if len(pairs) < 8:
        return none
    cv2.setRNGSeed(0)  # deterministic matches
    _, mask = cv2.findFundamentalMat(
        places[pairs[:, 0]], other_places[pairs[:, 1]], cv2.FM_RANSAC, EPIPOLAR_PIXELS, 0.999, 2000
    )
    return none if mask is None else pairs[mask[:, 0].astype(bool)]


def merge_matches(keypoints: list[np.ndarray], matches: Mapping[tuple[int, int], np.ndarray]) -> Tracks:
    """Merge pairwise matches to tracks. Tracks with two positions in one frame are removed.

    Args:
        keypoints: Keypoints of each frame. (K, 2) each
        matches: Index pairs of keypoints per frame pair. int (M, 2) each
    """
    counts = [len(places) for places in keypoints]
    start = np.concatenate([[0], np.cumsum(counts)])
    edges = [pairs + [start[first], start[second]] for (first, second), pairs in matches.items()]  # noqa: RUF005
    edges = np.concatenate([np.zeros((0, 2), int), *edges])
    if not len(edges):
        return _no_tracks(len(keypoints))
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(start[-1], start[-1]))
    _, track = connected_components(graph, directed=False)
    frame = np.repeat(np.arange(len(keypoints)), counts)
    num_tracks = track.max() + 1
    times = np.zeros((len(keypoints), num_tracks), int)
    np.add.at(times, (frame, track), 1)
    useful = (times.max(0) == 1) & (times.sum(0) >= 2)
    positions = np.full((len(keypoints), num_tracks, 2), np.nan, np.float32)
    positions[frame, track] = np.concatenate(keypoints)
    seen = torch.from_numpy(times[:, useful] == 1)
    return Tracks(torch.from_numpy(positions[:, useful]), seen)


def farthest_cameras(cameras: Cameras, count: int) -> list[int]:
    """Select frames with the most different positions and directions, including the first frame.

    Each next frame is the farthest from all selected frames. The reference implementation uses DINOv2 features and the
    distance to the last selected frame only.
    """
    pose = cameras.world_from_cam.double()
    centre, direction = pose[..., 3], pose[..., :3, 2]
    spread = (centre - centre.mean(0)).norm(dim=-1).mean().clamp(min=1e-9)
    place = torch.cat([centre / spread, direction], -1).nan_to_num(0)
    taken = [0]
    distance = (place - place[0]).norm(dim=-1)
    while len(taken) < min(count, len(place)):
        taken.append(distance.argmax().item())
        distance = torch.minimum(distance, (place - place[taken[-1]]).norm(dim=-1))
    return taken


def _no_tracks(num_frames: int) -> Tracks:
    return Tracks(torch.zeros(num_frames, 0, 2), torch.zeros(num_frames, 0, dtype=torch.bool))

"""Point tracks from OpenCV's SIFT. S frames · K points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import cv2
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from streamvggt.geometry.camera import Cameras
from streamvggt.refinement.bundle_adjustment import Tracks

NUM_KEYPOINTS = 2048
"""Maximum number of keypoints per frame."""
ALL_PAIRS = 40
"""Maximum number of frames of which all pairs are matched."""
MATCH_RATIO = 0.8
"""Maximum distance ratio of the best to the second-best descriptor."""
EPIPOLAR_PIXELS = 2.0
"""Maximum distance of a match from the epipolar line."""


def sift_tracks(images: Iterable[Tensor], cameras: Cameras) -> Tracks:
    """Match SIFT keypoints (Lowe 2004) in pairs of frames and verify the epipolar geometry.

    Args:
        images: RGB in [0, 1] of S frames. (3, H, W) each
        cameras: Not used; all track providers have this argument.
    """
    found = [sift_keypoints(image) for image in images]
    matches = {
        (first, second): match_descriptors(found[first], found[second]) for first, second in frame_pairs(len(found))
    }
    return merge_matches([keypoints for keypoints, _ in found], matches)


def frame_pairs(num_frames: int) -> list[tuple[int, int]]:
    """Return all pairs of up to `ALL_PAIRS` frames, else the pairs whose distance is a power of two."""
    pairs = combinations(range(num_frames), 2)
    if num_frames <= ALL_PAIRS:
        return list(pairs)
    return [(first, second) for first, second in pairs if (second - first).bit_count() == 1]


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
        return no_tracks(len(keypoints))
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


def no_tracks(num_frames: int) -> Tracks:
    """Return zero tracks."""
    return Tracks(torch.zeros(num_frames, 0, 2), torch.zeros(num_frames, 0, dtype=torch.bool))

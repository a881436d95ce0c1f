"""Clips of procedural scenes rendered to disk once, and training batches sampled from them.

    python -m procedural_scenes render ../data/train/world/rooms --scene-type rooms --clips 6144 --frames 8

Rendering an image takes longer than a training step of a small model. Each rendered image is therefore used several
times in different windows, orders and colors. A folder contains shards of 64 clips: `00000/images.npy`, ….

N clips · S frames · H×W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from procedural_scenes.world import SyntheticScenes
from streamvggt.bounds import MANY, check_real, check_whole
from streamvggt.data.transforms import MAX_SIDE, check_aspects, whole_patches
from streamvggt.data.view import Batch
from streamvggt.files import atomic_directory, atomic_write
from streamvggt.folder_lock import FolderLock

CLIPS_PER_SHARD = 64
CLIPS_AT_ONCE = 8
"""Number of clips per render batch."""
RECORD = "clips.json"
ARRAYS = ("cam_from_world", "depth", "images", "intrinsics")
"""Names of the arrays of a shard."""


def render_clips(folder: Path, world: SyntheticScenes, num_clips: int, num_frames: int, size: int) -> None:
    """Render square clips to `folder`, shard by shard. Existing shards are kept, so interrupted runs resume.

    Args:
        folder: Output folder.
        world: The scenes.
        num_clips: Number of clips, rounded up to whole shards.
        num_frames: Number of frames per clip.
        size: Side of the images in pixels.

    Raises:
        ValueError: If the folder contains clips with other settings.
        BlockingIOError: If another run writes to the folder.
    """
    shards = [folder / f"{number:05d}" for number in range(-(-num_clips // CLIPS_PER_SHARD))]
    num_images = len(shards) * CLIPS_PER_SHARD * num_frames
    with FolderLock(folder), tqdm(total=num_images, unit="image", disable=None) as bar:
        _record_settings(folder, world, num_frames, size)
        for number, shard in enumerate(shards):
            if not shard.exists():
                _render_shard(shard, world, number, num_frames, size)
            bar.update(CLIPS_PER_SHARD * num_frames)


def _record_settings(folder: Path, world: SyntheticScenes, num_frames: int, size: int) -> None:
    """Write the settings of the clips, or compare them with those of existing clips."""
    settings = {"split": world.split, "seed": world.seed, "style": asdict(world.style)}
    settings = json.loads(json.dumps({**settings, "num_frames": num_frames, "size": size}))
    if (folder / RECORD).exists():
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if found != settings:
            raise ValueError(f"{folder}: expected clips with {settings}, got {found}. Choose another folder.")
    with atomic_write(folder / RECORD) as path:
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _render_shard(shard: Path, world: SyntheticScenes, number: int, num_frames: int, size: int) -> None:
    per_shard = CLIPS_PER_SHARD // CLIPS_AT_ONCE
    parts = [
        _arrays(world.batch(index, CLIPS_AT_ONCE, num_frames, size, size))
        for index in range(number * per_shard, (number + 1) * per_shard)
    ]
    with atomic_directory(shard, "images.npy") as unfinished:
        for name in parts[0]:
            np.save(unfinished / f"{name}.npy", np.concatenate([part[name] for part in parts]))


def _arrays(batch: Batch) -> dict[str, np.ndarray]:
    """Return the stored arrays: images as uint8, depth in half precision (0 if unknown), cameras in full precision."""
    return {
        "images": (batch.images * 255).round().byte().numpy(),
        "depth": torch.where(batch.valid, batch.depth, 0).half().numpy(),
        "intrinsics": batch.intrinsics.numpy(),
        "cam_from_world": batch.cam_from_world.numpy(),
    }


@dataclass(frozen=True)
class ClipBatches:
    """Training batches sampled from rendered clips. Batch k is deterministic.

    Every sequence is a window of a clip. Stride, order (forward, backward or shuffled), mirroring, color channels,
    brightness and contrast are random.

    Attributes:
        root: Folder that contains output folders of `render_clips`.
        shares: Ratio of the batches by folder name.
        num_frames: Lengths of sequences. Each batch draws one.
        length_warmup: Number of batches over which the maximum length and stride grow to their full size; 0: no
            warm-up. The model learns poses of two near frames first, and longer sequences afterwards.
        max_images_per_process: Maximum number of images per batch, filled with complete sequences.
        aspect_ratios: Height / width. Each batch draws one and is cropped to it.
        patch_size: Sides of cropped images are multiples of it. The training sets it to that of the model.
        shuffled: Ratio of shuffled sequences.
        backward: Ratio of backward sequences.
        max_stride: Maximum step between frames of a sequence, in frames of the clip.
    """

    root: str
    shares: Mapping[str, float]
    num_frames: Sequence[int] = (2, 3, 4, 8)
    length_warmup: int = 0
    max_images_per_process: int = 8
    aspect_ratios: Sequence[float] = (1.0,)
    patch_size: int = 14
    seed: int = 0
    shuffled: float = 0.3
    backward: float = 0.3
    max_stride: int = 4

    def __post_init__(self):
        if not 1 <= min(self.num_frames) <= max(self.num_frames) <= self.max_images_per_process:
            raise ValueError(
                f"num_frames: expected lengths in 1 … max_images_per_process={self.max_images_per_process}, got "
                f"{self.num_frames}"
            )
        check_whole(0, seed=self.seed, length_warmup=self.length_warmup)
        check_whole(1, max_stride=self.max_stride)
        check_whole(1, MAX_SIDE, patch_size=self.patch_size)
        check_real(0, 1, shuffled=self.shuffled, backward=self.backward)
        check_aspects(self.aspect_ratios)
        for name, share in self.shares.items():
            check_real(0, MANY, **{f"shares.{name}": share})
        if not sum(self.shares.values()) > 0:
            raise ValueError(f"shares: expected at least one positive share, got {dict(self.shares)}")
        longest = max(_clip_length(folder) for folder in self._folders)
        if longest < max(self.num_frames):
            raise ValueError(f"num_frames: expected at most {longest} (the longest clips), got {max(self.num_frames)}")

    def for_patches(self, patch_size: int) -> ClipBatches:
        """Return the same batches for a model with this patch size."""
        return replace(self, patch_size=patch_size)

    def __getitem__(self, index: int) -> Batch:
        draw = np.random.default_rng([self.seed, index])
        length = int(draw.choice(self._lengths(index)))
        shards = _shards(self._folder(draw, length))
        stride = round(1 + (self.max_stride - 1) * self._grown(index))
        windows = [
            self._window(shards, draw, length, stride) for _ in range(max(1, self.max_images_per_process // length))
        ]
        arrays = {name: torch.from_numpy(np.stack([w[name] for w in windows])) for name in windows[0]}
        images, depth, intrinsics, poses = (arrays[n] for n in ("images", "depth", "intrinsics", "cam_from_world"))
        images, depth = images.float() / 255, depth.float()
        for number in range(len(windows)):
            if draw.random() < 0.5:
                images[number], depth[number], poses[number] = mirrored(images[number], depth[number], poses[number])
            images[number] = recolored(images[number], draw)
        images, depth, intrinsics = self._cropped(images, depth, intrinsics, float(draw.choice(self.aspect_ratios)))
        valid = depth > 0
        return Batch(images, depth, valid, ~valid, intrinsics, poses, torch.ones(len(windows), dtype=torch.bool))

    def describe(self) -> str:
        counts = [sum(len(shard["images"]) for shard in _shards(f)) * _clip_length(f) for f in self._folders]
        parts = [f"{Path(folder).name} ({count:,} images)" for folder, count in zip(self._folders, counts, strict=True)]
        return "rendered clips: " + ", ".join(parts)

    @property
    def _folders(self) -> list[str]:
        return [f"{self.root}/{name}" for name, share in self.shares.items() if share]

    def _grown(self, index: int) -> float:
        return min(index / self.length_warmup, 1.0) if self.length_warmup else 1.0

    def _lengths(self, index: int) -> list[int]:
        least, largest = min(self.num_frames), max(self.num_frames)
        longest = least + (largest - least) * self._grown(index)
        return [length for length in self.num_frames if length <= longest]

    def _folder(self, draw: np.random.Generator, length: int) -> str:
        """Draw a folder whose clips are long enough."""
        shares = [
            share if _clip_length(folder) >= length else 0.0
            for folder, share in zip(self._folders, filter(None, self.shares.values()), strict=True)
        ]
        return self._folders[int(draw.choice(len(shares), p=np.array(shares) / sum(shares)))]

    def _window(
        self, shards: list[dict[str, np.ndarray]], draw: np.random.Generator, length: int, max_stride: int
    ) -> dict[str, np.ndarray]:
        shard = shards[int(draw.integers(len(shards)))]
        clip, clip_length = int(draw.integers(len(shard["images"]))), shard["images"].shape[1]
        stride = int(draw.integers(1, min(max_stride, (clip_length - 1) // max(length - 1, 1)) + 1))
        span = (length - 1) * stride + 1
        first = int(draw.integers(clip_length - span + 1))
        frames = np.arange(first, first + span, stride)
        order = draw.random()
        if order < self.backward:
            frames = frames[::-1]
        elif order < self.backward + self.shuffled:
            frames = draw.permutation(frames)
        return {name: array[clip][frames] for name, array in shard.items()}

    def _cropped(self, images: Tensor, depth: Tensor, intrinsics: Tensor, aspect: float) -> tuple[Tensor, ...]:
        """Return the center crop of square images with the given aspect ratio."""
        size = images.shape[-1]
        longer = size // self.patch_size * self.patch_size
        shorter = min(whole_patches(size * min(aspect, 1 / aspect), self.patch_size), longer)
        height, width = (shorter, longer) if aspect < 1 else (longer, shorter)
        top, left = (size - height) // 2, (size - width) // 2
        intrinsics = intrinsics.clone()
        intrinsics[..., :2, 2] -= torch.tensor([left, top])
        area = (..., slice(top, top + height), slice(left, left + width))
        return images[area], depth[area], intrinsics


@cache
def _shards(folder: str) -> list[dict[str, np.ndarray]]:
    """Return memory maps of a folder's shards."""
    names = sorted(path for path in Path(folder).glob("[0-9]*") if path.is_dir())
    if not names:
        raise FileNotFoundError(
            f"{folder}: expected rendered clips, got none. Run: python -m procedural_scenes render {folder}"
        )
    return [_arrays_of(name) for name in names]


def _arrays_of(shard: Path) -> dict[str, np.ndarray]:
    """Return memory maps of the arrays of a shard."""
    try:
        return {name: np.load(shard / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{shard}: expected the arrays of a rendered shard ({', '.join(ARRAYS)}), got an incomplete or damaged "
            f"one: {error}. Delete {shard} and run again: python -m procedural_scenes render {shard.parent}"
        ) from error


def _clip_length(folder: str) -> int:
    return _shards(folder)[0]["images"].shape[1]


def mirrored(images: Tensor, depth: Tensor, cam_from_world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror a sequence left to right: the world is mirrored in x, and cameras and pixels with it.

    With the principal point at W/2, column c becomes column W - c; column 0 has no partner and repeats its neighbor.

    Args:
        images: (S, 3, H, W)
        depth: (S, H, W)
        cam_from_world: (S, 3, 4)
    """
    width = images.shape[-1]
    columns = (width - torch.arange(width)).clamp(max=width - 1)
    sign = torch.tensor([-1.0, 1.0, 1.0])
    rotation, translation = cam_from_world.split([3, 1], -1)
    poses = torch.cat([sign[:, None] * rotation * sign, sign[:, None] * translation], -1)
    return images[..., columns], depth[..., columns], poses


def recolored(images: Tensor, draw: np.random.Generator) -> Tensor:
    """Vary color channels, contrast and brightness of a sequence, and slightly those of each frame. (S, 3, H, W)"""
    if draw.random() < 0.5:
        images = images[:, torch.from_numpy(draw.permutation(3))]
    mean = images.mean()
    images = (images - mean) * draw.uniform(0.75, 1.3) + mean * draw.uniform(0.75, 1.3)
    tint = torch.from_numpy(draw.uniform(0.93, 1.07, (len(images), 3, 1, 1))).float()
    return (images * tint).clamp(0, 1)

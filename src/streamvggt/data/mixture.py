"""Batches of several data sets in fixed proportions, addressed by number.

Number n is batch n mod b of epoch n div b. All random choices depend on (seed, epoch, position in the epoch). A batch
is therefore independent of process and worker, and a resumed training continues with the next batch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info
from tqdm import tqdm

from streamvggt.bounds import check_frames, check_whole
from streamvggt.data.dataset import MultiViewDataset, Sample, view_size
from streamvggt.data.decode import DataError
from streamvggt.data.transforms import MAX_SIDE, Size, whole_patches
from streamvggt.data.view import Batch, stack

MAX_ATTEMPTS = 10
"""Maximum number of replacements of a bad sample. If all are bad, the data set is invalid."""
MAX_WARNINGS = 20
"""Number of bad samples per data set that each worker reports. Further ones are only counted."""
ORDER, SHAPE, ITEMS, CONTENT = range(4)  # purposes of random numbers


@dataclass(frozen=True)
class EpochPlan:
    """Data set and item of each sample of an epoch. (samples,), (samples,) int64"""

    datasets: np.ndarray
    items: np.ndarray


def normalized_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """Return weights whose sum is 1. None: equal weights. (count,)

    Raises:
        ValueError: If the number of weights is wrong, a weight is negative, or all are 0.
    """
    weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"weights: expected numbers of at least 0 and one above, got {weights.tolist()}")
    if len(weights) != count:
        raise ValueError(f"there are {count} resolutions and {len(weights)} weights")
    return weights / weights.sum()


class Mixture:
    """Data sets with a fixed number of samples per epoch each."""

    def __init__(
        self,
        *,
        datasets: Mapping[str, MultiViewDataset],
        samples_per_epoch: Mapping[str, int],
        resolutions: Sequence[Size],
        resolution_weights: Sequence[float] | None = None,
        size: int | None = None,
        num_frames: tuple[int, int] = (10, 10),
        max_images_per_process: int = 10,
        seed: int = 0,
        on_missing: str = "error",
        patch_size: int = 14,
    ):
        """Open the data sets.

        Args:
            datasets: Data sets by name.
            samples_per_epoch: Samples of each data set per epoch. Data sets with 0 are ignored.
            resolutions: (width, height) in pixels. Each batch draws one.
            resolution_weights: Weight of each resolution. None: equal weights.
            size: Longest side of all resolutions in pixels; they are scaled to it in whole patches. None: no scaling.
            num_frames: Minimum and maximum views per sample. Each batch draws one number.
            max_images_per_process: Maximum number of images per batch, filled with complete sequences of maximum
                length.
            seed: Random seed.
            on_missing: "error", or "skip" to train without missing data sets.
            patch_size: Image sides are multiples of it. The training sets it to that of the model.

        Raises:
            FileNotFoundError: If a data set is missing, or all are.
        """
        check_frames(num_frames, max_images_per_process)
        fewest, most = num_frames
        check_whole(0, seed=seed, **{f"samples_per_epoch.{name}": count for name, count in samples_per_epoch.items()})
        check_whole(1, MAX_SIDE, patch_size=patch_size, **({} if size is None else {"size": size}))
        for resolution in resolutions:
            check_whole(1, MAX_SIDE, **dict(zip(("width", "height"), resolution, strict=True)))
        if on_missing not in ("error", "skip"):
            raise ValueError(f"missing={on_missing!r} must be error or skip")
        if unknown := sorted(set(samples_per_epoch) ^ set(datasets)):
            raise ValueError(f"datasets and samples must name the same data sets, but not {', '.join(unknown)}")
        wanted = {name: dataset for name, dataset in datasets.items() if samples_per_epoch[name]}
        for dataset in wanted.values():
            dataset.max_views = most
        self.datasets = open_available(wanted, on_missing)
        self.samples_per_epoch = {name: samples_per_epoch[name] for name in self.datasets}
        self._sizes, self._longest_side = [tuple(resolution) for resolution in resolutions], size
        self.resolutions = self._scaled_to(patch_size)
        self.resolution_weights = normalized_weights(resolution_weights, len(resolutions))
        self.num_frames, self.seed = (fewest, most), seed
        self.batch_size = max_images_per_process // most
        self.num_samples = sum(self.samples_per_epoch.values())
        self.num_batches = self.num_samples // self.batch_size  # per epoch, without an incomplete last batch
        if not self.num_batches:
            raise ValueError(f"an epoch of {self.num_samples} samples is less than one batch of {self.batch_size}")
        # Shared with the loading workers: loaded and replaced samples of each data set.
        self._counts = torch.zeros(len(self.datasets), 2, dtype=torch.int64).share_memory_()
        self._said = dict.fromkeys(self.datasets, 0)
        self._planned: tuple[int, EpochPlan] | None = None

    def for_patches(self, patch_size: int) -> Mixture:
        """Return the same samples for a model with this patch size. Both share the count of bad samples."""
        other = copy(self)
        other.resolutions = self._scaled_to(patch_size)
        return other

    def _scaled_to(self, patch_size: int) -> list[Size]:
        longest = max(max(size) for size in self._sizes)
        scale = (self._longest_side or longest) / longest
        return [tuple(whole_patches(side * scale, patch_size) for side in size) for size in self._sizes]

    def __getitem__(self, number: int) -> Batch:
        return stack([sample.views for _, sample in self.batch(number)])

    def batch(self, number: int) -> list[tuple[str, Sample]]:
        """Return the samples of a batch with the names of their data sets."""
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # OpenCV threads do not survive the fork of the worker
        epoch, place = divmod(number, self.num_batches)
        plan = self.plan(epoch)
        size, num_views = self.shape(number)
        samples = []
        for index in range(place * self.batch_size, (place + 1) * self.batch_size):
            name = list(self.datasets)[plan.datasets[index]]
            dataset = self.datasets[name]
            samples.append((name, self._valid_sample(name, int(plan.items[index]), num_views, size, (epoch, index))))
            if dataset.match_orientation and len(samples) == 1:
                size = view_size(samples[0][1].views)  # the others are cropped to the orientation of the first
        return samples

    def shape(self, number: int) -> tuple[Size, int]:
        """Return size (width, height) and number of views of a batch."""
        random = self._random(SHAPE, *divmod(number, self.num_batches))
        resolution = self.resolutions[random.choice(len(self.resolutions), p=self.resolution_weights)]
        return resolution, int(random.integers(self.num_frames[0], self.num_frames[1] + 1))

    def num_replaced(self) -> dict[str, int]:
        """Return the number of replaced bad samples of each data set in this process and its workers."""
        return dict(zip(self.datasets, self._counts[:, 1].tolist(), strict=True))

    def describe(self) -> str:
        """Return one line per data set."""
        rows = [
            f"  {name}: {num} samples per epoch ({num / self.num_samples:.1%}) "
            f"of {len(dataset)} in {dataset.num_scenes} scenes"
            for name, dataset in self.datasets.items()
            for num in [self.samples_per_epoch[name]]
        ]
        return "\n".join([f"{self.num_samples} samples per epoch, {self.batch_size} per batch:", *rows])

    def plan(self, epoch: int) -> EpochPlan:
        """Return the samples of an epoch in order. The last result is cached."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._make_plan(epoch)
        return self._planned[1]

    def _make_plan(self, epoch: int) -> EpochPlan:
        """Draw the items of each data set without repetition until all are used, in another order every epoch."""
        items = []
        for position, (name, dataset) in enumerate(self.datasets.items()):
            random = self._random(ITEMS, epoch, position)
            items.append(sample_items(len(dataset), self.samples_per_epoch[name], random))
        order = self._random(ORDER, epoch).permutation(self.num_samples)
        datasets = np.repeat(np.arange(len(items)), [len(some) for some in items])
        return EpochPlan(datasets[order], np.concatenate(items)[order])

    def _valid_sample(self, name: str, item: int, num_views: int, size: Size, place: tuple[int, int]) -> Sample:
        """Return the sample of an item, or a replacement if it is bad. Replacements are reported and counted."""
        dataset, row = self.datasets[name], list(self.datasets).index(name)
        self._counts[row, 0] += 1
        for attempt in range(MAX_ATTEMPTS):
            random = self._random(CONTENT, *place, attempt)
            if attempt:
                item = int(random.integers(len(dataset)))
            try:
                return dataset.sample(item, num_views, size, random)
            except Exception as error:  # no reader error may stop a training
                last = error
                self._counts[row, 1] += 1
                self._warn(name, error)
        raise DataError(
            f"{name}: {MAX_ATTEMPTS} samples in a row could not be read from {dataset.root}. "
            f"Run `streamvggt data check` for the reasons. The last one: {last}"
        ) from last

    def _warn(self, name: str, error: Exception) -> None:
        self._said[name] += 1
        if self._said[name] <= MAX_WARNINGS:
            more = "; more of this data set are counted and not told" if self._said[name] == MAX_WARNINGS else ""
            what = error if isinstance(error, DataError | OSError) else repr(error)
            tqdm.write(f"warning: a bad sample of {name} is replaced: {what}{more}", file=sys.stderr)

    def _random(self, purpose: int, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, *place])


def open_available(datasets: Mapping[str, MultiViewDataset], on_missing: str) -> dict[str, MultiViewDataset]:
    """Open the data sets that are on the disk. Missing ones raise an error, or are skipped with a warning."""
    with ThreadPoolExecutor() as pool:  # opening is limited by the disk
        reasons = dict(zip(datasets, pool.map(_why_missing, datasets.values()), strict=True))
    absent = {name: reason for name, reason in reasons.items() if reason}
    lines = "".join(f"\n  {name}: {reason}" for name, reason in absent.items())
    if len(absent) == len(datasets):
        raise FileNotFoundError(f"no data set was found:{lines}\nSet data_root=… to the folder that contains them")
    if absent and on_missing == "error":
        raise FileNotFoundError(
            f"{len(absent)} of {len(datasets)} data sets are missing:{lines}\n"
            "Set data_root=… if they are in another folder, data.on_missing=skip to train without them, or "
            "data=synthetic to train on the procedural world"
        )
    if absent:
        tqdm.write(f"warning: training without {len(absent)} of {len(datasets)} data sets:{lines}", file=sys.stderr)
    return {name: dataset for name, dataset in datasets.items() if name not in absent}


def _why_missing(dataset: MultiViewDataset) -> str | None:
    try:
        len(dataset)
    except FileNotFoundError as error:
        return str(error)
    return None


def validation_mixture(**settings) -> Mixture | None:
    """Return a mixture for validation, or None with a warning if no data set is on the disk."""
    try:
        return Mixture(on_missing="skip", **settings)
    except FileNotFoundError as error:
        tqdm.write(f"warning: no validation: {error}", file=sys.stderr)
        return None


def sample_items(num_items: int, num_samples: int, random: np.random.Generator) -> np.ndarray:
    """Draw items without repetition. If there are too few, all items repeat. (num_samples,) int64"""
    rounds, rest = divmod(num_samples, num_items)
    some = random.choice(num_items, rest, replace=False, shuffle=True)
    return np.concatenate([*(random.permutation(num_items) for _ in range(rounds)), some])

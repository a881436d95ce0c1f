"""Batches of several data sets in fixed shares: what a training asks for by number.

Number n is batch n mod b of epoch n div b. All that is random comes from (seed, epoch, place in the epoch), so a batch
is the same whichever process and worker makes it, and a training that is resumed goes on with the next one.
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
"""How many samples of a data set are tried in place of a bad one; when all are bad, so is the data set."""
MAX_WARNINGS = 20
"""Bad samples of a data set that each worker tells of; more are only counted."""
ORDER, SHAPE, ITEMS, CONTENT = range(4)  # purposes of random numbers


@dataclass(frozen=True)
class EpochPlan:
    """An epoch: of which data set each of its samples is, and which of its items. (samples,), (samples,) int64"""

    datasets: np.ndarray
    items: np.ndarray


class Mixture:
    """Data sets, each with so many samples per epoch."""

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
        """
        Args:
            samples_per_epoch: of each data set per epoch; those with 0 are left out.
            resolutions: (width, height); each batch has one of them.
            resolution_weights: how often each resolution is drawn; None: all alike.
            size: the longest side of all resolutions; they are scaled to it in whole patches. None: as they are.
            num_frames: fewest and most views of a sample; each batch has one number of them.
            max_images_per_process: images of a batch, as many sequences of the most views as fit.
            on_missing: what to do when a data set is not on the disk: "error", or "skip" to train without it.
            patch_size: sides of images are multiples of it; a training sets it to the network's.

        Raises:
            FileNotFoundError: a data set is missing, or all are.
        """
        fewest, most = num_frames
        check_frames(fewest, most, max_images_per_process)
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
        resolution_weights = (
            np.ones(len(resolutions)) if resolution_weights is None else np.asarray(resolution_weights, np.float64)
        )
        if not (resolution_weights >= 0).all() or not 0 < resolution_weights.sum() < np.inf:
            raise ValueError(
                f"weights: expected numbers of at least 0 and one above, got {resolution_weights.tolist()}"
            )
        if len(resolution_weights) != len(resolutions):
            raise ValueError(f"there are {len(resolutions)} resolutions and {len(resolution_weights)} weights")
        self.resolution_weights = resolution_weights / resolution_weights.sum()
        self.num_frames, self.seed = (fewest, most), seed
        self.batch_size = max_images_per_process // most
        self.num_samples = sum(self.samples_per_epoch.values())
        self.num_batches = self.num_samples // self.batch_size  # of an epoch; an incomplete last one is left out
        if not self.num_batches:
            raise ValueError(f"an epoch of {self.num_samples} samples is less than one batch of {self.batch_size}")
        # Shared with the workers that load: samples made, samples replaced, of each data set.
        self._counts = torch.zeros(len(self.datasets), 2, dtype=torch.int64).share_memory_()
        self._said = dict.fromkeys(self.datasets, 0)
        self._planned: tuple[int, EpochPlan] | None = None

    def for_patches(self, patch_size: int) -> Mixture:
        """Return the same samples for a network with this patch size; both count their bad samples together."""
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
        """The samples of a batch, with the names of their data sets."""
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # its threads do not survive the fork that made this worker
        epoch, place = divmod(number, self.num_batches)
        plan = self.plan(epoch)
        size, num_views = self.shape(number)
        samples = []
        for index in range(place * self.batch_size, (place + 1) * self.batch_size):
            name = list(self.datasets)[plan.datasets[index]]
            dataset = self.datasets[name]
            samples.append((name, self._valid_sample(name, int(plan.items[index]), num_views, size, (epoch, index))))
            if dataset.match_orientation and len(samples) == 1:
                size = view_size(samples[0][1].views)  # the others are cut to the way that the first one stands
        return samples

    def shape(self, number: int) -> tuple[Size, int]:
        """Size (width, height) and number of views of a batch."""
        random = self._random(SHAPE, *divmod(number, self.num_batches))
        resolution = self.resolutions[random.choice(len(self.resolutions), p=self.resolution_weights)]
        return resolution, int(random.integers(self.num_frames[0], self.num_frames[1] + 1))

    def num_replaced(self) -> dict[str, int]:
        """How many bad samples of each data set this process and its workers have replaced so far."""
        return dict(zip(self.datasets, self._counts[:, 1].tolist(), strict=True))

    def describe(self) -> str:
        """A line for each data set."""
        rows = [
            f"  {name}: {num} samples per epoch ({num / self.num_samples:.1%}) "
            f"of {len(dataset)} in {dataset.num_scenes} scenes"
            for name, dataset in self.datasets.items()
            for num in [self.samples_per_epoch[name]]
        ]
        return "\n".join([f"{self.num_samples} samples per epoch, {self.batch_size} per batch:", *rows])

    def plan(self, epoch: int) -> EpochPlan:
        """What an epoch holds, in order; the last one asked for is kept."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._make_plan(epoch)
        return self._planned[1]

    def _make_plan(self, epoch: int) -> EpochPlan:
        """Every data set gives different items until all were had, then all again, in another order every epoch."""
        items = []
        for position, (name, dataset) in enumerate(self.datasets.items()):
            random = self._random(ITEMS, epoch, position)
            items.append(sample_items(len(dataset), self.samples_per_epoch[name], random))
        order = self._random(ORDER, epoch).permutation(self.num_samples)
        datasets = np.repeat(np.arange(len(items)), [len(some) for some in items])
        return EpochPlan(datasets[order], np.concatenate(items)[order])

    def _valid_sample(self, name: str, item: int, num_views: int, size: Size, place: tuple[int, int]) -> Sample:
        """The sample of an item, or of others where it is bad; told and counted."""
        dataset, row = self.datasets[name], list(self.datasets).index(name)
        self._counts[row, 0] += 1
        for attempt in range(MAX_ATTEMPTS):
            random = self._random(CONTENT, *place, attempt)
            if attempt:
                item = int(random.integers(len(dataset)))
            try:
                return dataset.sample(item, num_views, size, random)
            except Exception as error:  # whatever a reader stumbles over must not end a day's training
                last = error
                self._counts[row, 1] += 1
                self._warn(name, error)
        raise DataError(
            f"{name}: {MAX_ATTEMPTS} samples in a row could not be read from {dataset.root}; is it still there? "
            f"`streamvggt data check` says what is wrong with it. The last one: {last}"
        ) from last

    def _warn(self, name: str, error: Exception) -> None:
        self._said[name] += 1
        if self._said[name] <= MAX_WARNINGS:
            more = "; more of this data set are counted and not told" if self._said[name] == MAX_WARNINGS else ""
            what = error if isinstance(error, DataError | OSError) else repr(error)
            tqdm.write(f"!!! a bad sample of {name} is replaced: {what}{more}", file=sys.stderr)

    def _random(self, purpose: int, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, *place])


def open_available(datasets: Mapping[str, MultiViewDataset], on_missing: str) -> dict[str, MultiViewDataset]:
    """Those that are on the disk, opened; the others are an error, or left out loudly."""
    with ThreadPoolExecutor() as pool:  # of many data sets it is the disk that is waited for
        reasons = dict(zip(datasets, pool.map(_why_missing, datasets.values()), strict=True))
    absent = {name: reason for name, reason in reasons.items() if reason}
    lines = "".join(f"\n  {name}: {reason}" for name, reason in absent.items())
    if len(absent) == len(datasets):
        raise FileNotFoundError(f"no data set is there:{lines}\nSet data_root=… to the folder that they lie in")
    if absent and on_missing == "error":
        raise FileNotFoundError(
            f"{len(absent)} of {len(datasets)} data sets are missing:{lines}\n"
            "Set data_root=… if they lie elsewhere, data.on_missing=skip to train without them, or data=synthetic to "
            "train on "
            "the procedural world"
        )
    if absent:
        tqdm.write(f"!!! TRAINING WITHOUT {len(absent)} of {len(datasets)} data sets:{lines}", file=sys.stderr)
    return {name: dataset for name, dataset in datasets.items() if name not in absent}


def _why_missing(dataset: MultiViewDataset) -> str | None:
    try:
        len(dataset)
    except FileNotFoundError as error:
        return str(error)
    return None


def validation_mixture(**settings) -> Mixture | None:
    """A mixture to validate on, or None, said loudly, when nothing of it is on the disk."""
    try:
        return Mixture(on_missing="skip", **settings)
    except FileNotFoundError as error:
        tqdm.write(f"!!! NO VALIDATION: {error}", file=sys.stderr)
        return None


def sample_items(num_items: int, num_samples: int, random: np.random.Generator) -> np.ndarray:
    """So many items, all different; with more than there are, all of them again and again. (num_samples,) int64"""
    rounds, rest = divmod(num_samples, num_items)
    some = random.choice(num_items, rest, replace=False, shuffle=True)
    return np.concatenate([*(random.permutation(num_items) for _ in range(rounds)), some])

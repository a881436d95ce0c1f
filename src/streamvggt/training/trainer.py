"""Training loop for distillation, training and fine-tuning.

The randomness of a step depends only on (seed, step, micro-batch). A killed and resumed run therefore gives the same
weights as an uninterrupted run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from streamvggt.data.view import Batch
from streamvggt.losses.criterion import Criterion
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.heads import HEADS
from streamvggt.model.saving import save_model
from streamvggt.model.vggt import VGGT
from streamvggt.training.acceleration import new_accelerator
from streamvggt.training.adapters import LowRank
from streamvggt.training.arguments import check_network, check_settings
from streamvggt.training.auxiliary_loss import AuxiliaryLoss
from streamvggt.training.batches import TrainingData, dense_frames, in_patches, load_batches
from streamvggt.training.checkpoint import CheckpointManager
from streamvggt.training.gradients import scale_gradient
from streamvggt.training.log import LossAverager, TrainingLogger
from streamvggt.training.objective import Objective
from streamvggt.training.optim import OptimConfig, freeze_parameters
from streamvggt.training.report import describe_training, replaced_samples, used_memory
from streamvggt.training.state_check import check_extra
from streamvggt.training.supervision import Supervision
from streamvggt.training.update import Update
from streamvggt.training.validation import validate


class Diverged(RuntimeError):
    """Raised after too many consecutive steps with a non-finite loss or gradient."""


class Trainer:
    """Train a network.

    Each process runs `gradient_accumulation_steps` micro-batches per step. Micro-batch a of step s in process r of R
    has the index (s·gradient_accumulation_steps + a)·R + r. The distribution among processes therefore changes results
    only by floating-point rounding.

    Loads the newest state in `output_dir` if there is one.

    Args:
        model: Network to train.
        supervision: Source of targets.
        loss: Criterion from `streamvggt.losses`. Heads without a loss are not run and not changed.
        data: Training data.
        optim: Optimizer settings.
        output_dir: Folder for checkpoints and logs.
        validation: Validation data. None: no validation.
        num_validation_batches: Number of validation batches.
        validate_every: Number of steps between validations.
        gradient_accumulation_steps: Micro-batches per step and process.
        precision: "no" (float32), "bf16" or "fp16" (with loss scaling).
        seed: Random seed.
        num_workers: Number of data-loading processes.
        save_every: Number of steps between checkpoints.
        max_checkpoints: Number of checkpoints to keep.
        log_every: Number of steps between log entries.
        ema_decay: Decay of the moving average of the weights, which is then validated and saved. None: no average.
        max_nonfinite_steps: Number of consecutive steps with a non-finite loss or gradient after which to stop.
        auxiliary_loss: Additional losses in training, not in validation, such as `GeometryLosses`.
        gradient_scales: Factor per module on the gradient to its first input. {"camera_head": 0.05} reduces the
            gradient from the camera head into the trunk.
        dense_share: Fraction of the frames per sequence, drawn at random, whose depth and points are trained, in
            (0, 1]. The dense heads dominate the time of small networks. Validation uses all frames.
        policy: Index-based eviction policy that restricts attention to the frames the policy keeps
            (`EvictionPolicy.attended_frames`), to train for streaming with this policy. None: the attention
            pattern of the network.
        adapters: Low-rank adapters to train instead of the layers they name. `best` and `final` contain plain
            weights. None: train all weights that `optim` does not freeze.
        max_minutes: Minutes after which `run` saves the state and returns. None: run to the last step.
        resume: Resume from last.pt, otherwise from the newest step-*.pt in `output_dir`. False: raise an error if
            `output_dir` contains a state.

    Raises:
        ValueError: If arguments are out of bounds or contradict each other, or the state does not match.
        FileExistsError: If `output_dir` contains a state and `resume` is False.
    """

    def __init__(
        self,
        *,
        model: VGGT,
        supervision: Supervision,
        loss: Criterion,
        data: TrainingData,
        optim: OptimConfig,
        output_dir: str | Path,
        validation: TrainingData | None = None,
        num_validation_batches: int = 8,
        validate_every: int = 1000,
        gradient_accumulation_steps: int = 1,
        precision: str = "no",
        seed: int = 0,
        num_workers: int = 0,
        save_every: int = 1000,
        max_checkpoints: int = 2,
        log_every: int = 10,
        ema_decay: float | None = None,
        max_nonfinite_steps: int = 10,
        auxiliary_loss: AuxiliaryLoss | None = None,
        gradient_scales: Mapping[str, float] | None = None,
        dense_share: float = 1.0,
        policy: EvictionPolicy | None = None,
        adapters: LowRank | None = None,
        max_minutes: float | None = None,
        resume: bool = True,
    ):
        self.supervision, self.optim, self.heads = supervision, optim, tuple(loss.heads)
        self.num_validation_batches, self.validate_every = num_validation_batches, validate_every
        self.gradient_accumulation_steps, self.seed, self.num_workers = gradient_accumulation_steps, seed, num_workers
        self.save_every, self.max_checkpoints, self.max_minutes = save_every, max_checkpoints, max_minutes
        self.log_every, self.ema_decay, self.max_nonfinite_steps = log_every, ema_decay, max_nonfinite_steps
        self.auxiliary_loss, self.adapters, self.dense_share = auxiliary_loss, adapters, dense_share
        self.output_dir = Path(output_dir)
        check_settings(vars(self))
        check_network(model, self.heads, policy)
        # Batches without ground-truth tracks do not run the track head.
        can_skip = "track" in loss.heads and not supervision.requires_queries
        self.accelerator = new_accelerator(precision, gradient_accumulation_steps, can_skip_parameters=can_skip)
        self.device = self.accelerator.device
        # A teacher with another patch size may require images that both patch sizes divide.
        self.patch_size = math.lcm(model.patch_size, getattr(supervision, "image_multiple", 1))
        self.data, self.validation = (in_patches(given, self.patch_size) for given in (data, validation))
        self.network = self._prepare(model, gradient_scales or {})  # not wrapped for distribution
        # The objective compares the encoders, so it comes before the update, which shards the weights.
        self.objective = Objective(self.network, supervision, loss, self.accelerator, policy)
        if auxiliary_loss is not None and self.objective.encoder is not None:
            raise ValueError("auxiliary losses need a trainable encoder; here a frozen one serves teacher and student")
        self.update = Update(self.network, optim, self.accelerator, ema_decay)
        self.step, self.best, is_main = 0, float("inf"), self.accelerator.is_main_process
        self.checkpoints = CheckpointManager(self.output_dir, keep=max_checkpoints, is_main=is_main)
        newest = self._resume(resume)
        self.log = TrainingLogger(self.output_dir, first_step=self.step, total_steps=optim.steps, is_main=is_main)
        for line in describe_training(self.objective, data, self.patch_size):
            self.log.info(line)
        if newest is not None:
            self.log.info(f"Resumed after step {self.step}, from {newest.name}.")

    def _prepare(self, model: VGGT, gradient_scales: Mapping[str, float]) -> VGGT:
        """Move the networks to the device, and set which parameters learn and how gradients flow."""
        if self.auxiliary_loss is not None:
            self.auxiliary_loss.attach(model)
            model.add_module("auxiliary", self.auxiliary_loss)
        model.to(self.device)
        if isinstance(getattr(self.supervision, "model", None), nn.Module):
            self.supervision.model.to(self.device)
        unused = [f"{HEADS[head].prefix}*" for head in model.heads if head not in self.heads]
        freeze_parameters(model, [*unused, *self.optim.freeze])
        if self.adapters is not None:
            self.adapters.add(model)
        for name, scale in gradient_scales.items():
            scale_gradient(model, name, scale)
        return model

    def run(self) -> None:
        """Train from the current step to the last step, or until `max_minutes` is over."""
        try:
            began = started = time.perf_counter()
            for values in self.steps(self.optim.steps - self.step):
                is_last = self.step == self.optim.steps
                is_over = not is_last and self._is_over(time.perf_counter() - began)
                is_logged = self.step % self.log_every == 0 or is_last
                self._log_step(values, time.perf_counter() - started, is_logged=is_logged)
                if self.validation is not None and (self.step % self.validate_every == 0 or is_last):
                    self._validate()
                if self.step % self.save_every == 0 or is_last or is_over:
                    self.save()
                if is_over:
                    self.log.info(
                        f"Stopped after {self.max_minutes:g} minutes, at step {self.step}. Run again to resume."
                    )
                    return
                started = time.perf_counter()
            self.save_weights("final")
        finally:
            self.log.close()

    def _is_over(self, seconds: float) -> bool:
        """Return whether the time limit is over, with the same result in all processes."""
        if self.max_minutes is None:
            return False
        if seconds > 60 * self.max_minutes:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def steps(self, count: int) -> Iterator[dict[str, Tensor | float]]:
        """Run the next `count` steps.

        Yields:
            Per step: loss, terms, gradient norm, learning rate and number of frames.
        """
        batches = load_batches(
            self.data,
            self._batch_index(),
            self.accelerator.num_processes,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        for _ in range(count):
            values = self._one_step(batches)
            self.step += 1
            yield values

    def _one_step(self, batches: Iterator[Batch]) -> dict[str, Tensor | float]:
        # Seed the global random state for code that does not take a generator.
        set_seed((self.seed * 1_000_003 + self._batch_index()) % 2**32)
        lr = self.optim.set_lr(self.update.optimizer, self.step)
        averager = LossAverager((*self.heads, *(self.auxiliary_loss.names if self.auxiliary_loss else ())), self.device)
        num_frames = 0
        for position in range(self.gradient_accumulation_steps):
            batch = next(batches)
            num_frames += batch.num_sequences * batch.num_frames
            with self.accelerator.accumulate(self.update.model):
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._batch_index(position))
                frames = dense_frames(batch.num_frames, self.dense_share, generator)
                loss, _, _ = self.objective(
                    self.update.model, batch, generator, auxiliary_loss=self.auxiliary_loss, dense_frames=frames
                )
                self.accelerator.backward(loss.total)
                averager.add(loss)
        norm = self.update.clip()
        losses = averager.means(self.accelerator)
        self.update.step(norm, losses["loss"])
        if (count := self.update.nonfinite_steps) >= self.max_nonfinite_steps:
            raise Diverged(
                f"stopped at step {self.step}: {count} steps in a row had no finite loss and gradient. The last good "
                f"state is {self.checkpoints.last}; try a lower learning rate or a longer warm-up"
            )
        return {**losses, "grad_norm": norm, "lr": lr, "frames": num_frames * self.accelerator.num_processes}

    def _batch_index(self, position: int = 0) -> int:
        """Return the index of this process's micro-batch at a position of the current step."""
        accelerator = self.accelerator
        index = self.step * self.gradient_accumulation_steps + position
        return index * accelerator.num_processes + accelerator.process_index

    def _validate(self) -> None:
        model = self.update.model if self.update.ema is None else self.update.ema.module
        losses, figure = validate(self.objective, model, self.validation, self.num_validation_batches)
        self.log.scalars(self.step, losses, "validation")
        if figure is not None:
            self.log.image(self.step, "depth", figure)
        self.log.info(f"step {self.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        if losses["loss"] < self.best:
            self.best = losses["loss"]
            self.save_weights("best")

    def _log_step(self, values: dict[str, Tensor | float], seconds: float, *, is_logged: bool) -> None:
        """Show a step on the progress bar, and log its numbers. All processes must call this method."""
        speed, memory, num_bad = values["frames"] / seconds, used_memory(self.device) / 1e9, self.update.num_nonfinite
        if is_logged:
            numbers = {name: float(value) for name, value in values.items() if name != "frames"}
            numbers |= {"images_per_second": speed, "memory_gb": memory, "nonfinite_steps": num_bad}
            self.log.scalars(self.step, numbers | replaced_samples(self.data, self.accelerator))
        bad = f", {num_bad} bad" if num_bad else ""
        self.log.advance(f"loss {float(values['loss']):.4g}, {speed:.1f} images/s, {memory:.1f} GB{bad}")

    def save(self) -> None:
        """Write the training state of the current step. All processes must call this method."""
        extra = {"best": self.best, **self.update.state_dict()}
        config, optimizer = self.network.config.as_dict(), self.update.optimizer.optimizer
        self.checkpoints.save(self.step, self.update.model, optimizer, config, extra)
        self.accelerator.wait_for_everyone()

    def _resume(self, is_allowed: bool) -> Path | None:
        """Load the newest state in `output_dir`. Return its path, or None if there is no state."""
        path = self.checkpoints.newest
        if path is None:
            return None
        if not is_allowed:
            raise FileExistsError(f"{path} already contains a training: set resume=true or choose another output_dir")
        self.step, extra = self.checkpoints.load(path, self.update.model, self.update.optimizer.optimizer)
        try:
            check_extra(extra)
            self.update.load_state_dict(extra)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} does not match this training: {error}") from error
        self.best = extra["best"]
        return path

    def save_weights(self, name: str) -> None:
        """Write the weights to a folder in `output_dir`, for `load_model`. All processes must call this method."""
        weights = self.update.weights()
        if self.accelerator.is_main_process:
            weights = weights if self.adapters is None else self.adapters.merged(weights)
            save_model(self.network, self.output_dir / name, weights)
        self.accelerator.wait_for_everyone()

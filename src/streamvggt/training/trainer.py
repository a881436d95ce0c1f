"""Training loop for distillation, training and fine-tuning.

The randomness of a step depends only on (seed, step, micro-batch). A killed and resumed run therefore gives the same
weights as an uninterrupted run.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from streamvggt.bounds import check_real, check_whole
from streamvggt.data.view import Batch
from streamvggt.losses.criterion import Criterion
from streamvggt.losses.target import Target
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.heads import HEADS
from streamvggt.model.names import original_name
from streamvggt.model.tensor_check import AUXILIARY_PREFIX
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import save_model
from streamvggt.training.acceleration import is_sharded, new_accelerator
from streamvggt.training.adapters import LowRank
from streamvggt.training.auxiliary_loss import AuxiliaryLoss
from streamvggt.training.batches import TrainingData, dense_frames, in_patches, load_batches
from streamvggt.training.checkpoint import CheckpointManager
from streamvggt.training.gradients import scale_gradient
from streamvggt.training.log import LossAverager, TrainingLogger, depth_figure
from streamvggt.training.optim import OptimConfig, freeze_parameters, summarize_parameters
from streamvggt.training.state_check import check_extra
from streamvggt.training.supervision import Supervision, shared_encoder
from streamvggt.transfer import uploaded


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
        self.supervision, self.loss, self.optim = supervision, loss, optim
        self.num_validation_batches, self.validate_every = num_validation_batches, validate_every
        self.gradient_accumulation_steps, self.seed, self.num_workers = gradient_accumulation_steps, seed, num_workers
        self.save_every, self.log_every, self.max_nonfinite_steps = save_every, log_every, max_nonfinite_steps
        self.max_minutes, self.dense_share = max_minutes, dense_share
        self.auxiliary_loss, self.policy, self.adapters = auxiliary_loss, policy, adapters
        self.output_dir, self.heads = Path(output_dir), tuple(loss.heads)
        self._check_arguments(model, ema_decay, max_checkpoints)
        # Batches without ground-truth tracks do not run the track head.
        can_skip = "track" in loss.heads and not supervision.requires_queries
        self.accelerator = new_accelerator(precision, gradient_accumulation_steps, can_skip_parameters=can_skip)
        if ema_decay is not None and is_sharded(self.accelerator):
            raise ValueError("a moving average of the weights (ema_decay) cannot be kept of a sharded network")
        self.device = self.accelerator.device
        # A teacher with another patch size may require images that both patch sizes divide.
        self.patch_size = math.lcm(model.patch_size, getattr(supervision, "image_multiple", 1))
        self.data, self.validation = (in_patches(given, self.patch_size) for given in (data, validation))
        self._prepare(model, ema_decay, gradient_scales or {})
        self.step, self.best, self.nonfinite_steps, self.num_nonfinite = 0, float("inf"), 0, 0
        self.checkpoints = CheckpointManager(
            self.output_dir, keep=max_checkpoints, is_main=self.accelerator.is_main_process
        )
        newest = self.checkpoints.newest
        if newest is not None:
            if not resume:
                raise FileExistsError(
                    f"{self.output_dir} already contains a training: continue with it (resume=true) "
                    "or choose another output_dir"
                )
            self._resume(newest)
        self._start_log(data, newest)

    def _check_arguments(self, model: VGGT, ema_decay: float | None, max_checkpoints: int) -> None:
        """Check the arguments of the constructor."""
        at_least_one = {
            "num_validation_batches": self.num_validation_batches,
            "validate_every": self.validate_every,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "save_every": self.save_every,
            "max_checkpoints": max_checkpoints,
            "log_every": self.log_every,
            "max_nonfinite_steps": self.max_nonfinite_steps,
        }
        check_whole(1, **{f"trainer.{name}": count for name, count in at_least_one.items()})
        check_whole(0, **{"trainer.seed": self.seed, "trainer.num_workers": self.num_workers})
        if ema_decay is not None:
            check_real(0, 1, **{"trainer.ema_decay": ema_decay})
        if self.max_minutes is not None and not 0 <= self.max_minutes < float("inf"):
            raise ValueError(f"trainer.max_minutes: expected minutes, 0 or more, or null, got {self.max_minutes!r}")
        if not 0 < self.dense_share <= 1:
            raise ValueError(f"dense_share: expected a fraction in (0, 1], got {self.dense_share}")
        missing = [head for head in self.heads if head not in model.heads]
        if missing:
            raise ValueError(f"the loss needs the heads {', '.join(missing)}, which the network was built without")
        if self.policy is not None and (not model.causal or not self.policy.is_index_based):
            raise ValueError(
                f"{self.policy} cannot be trained with: it takes a network with causal=True (this one: "
                f"causal={model.causal}) "
                "and a policy that is index-based, such as Window or Keyframes"
            )

    def _prepare(self, model: VGGT, ema_decay: float | None, gradient_scales: Mapping[str, float]) -> None:
        """Move the network to the device, freeze parameters, and create the optimizer."""
        if self.auxiliary_loss is not None:
            self.auxiliary_loss.attach(model)
            model.add_module("auxiliary", self.auxiliary_loss)
        self.network = model.to(self.device)  # not wrapped
        unused = [f"{HEADS[head].prefix}*" for head in model.heads if head not in self.heads]
        freeze_parameters(model, [*unused, *self.optim.freeze])
        if self.adapters is not None:
            self.adapters.add(model)
        optimizer = self.optim.build(model, fused=self.device.type in ("cpu", "cuda"))
        if isinstance(getattr(self.supervision, "model", None), nn.Module):
            self.supervision.model.to(self.device)
        self.encoder = shared_encoder(model, self.supervision)
        if self.auxiliary_loss is not None and self.encoder is not None:
            raise ValueError("auxiliary losses need a trainable encoder; here a frozen one serves teacher and student")
        self.ema = None
        if ema_decay is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        for name, scale in gradient_scales.items():
            scale_gradient(model, name, scale)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.clip_groups = self.optim.clip_groups(self.model)

    def _start_log(self, data: TrainingData, resumed_from: Path | None) -> None:
        """Open the log and describe the training."""
        self.log = TrainingLogger(
            self.output_dir,
            first_step=self.step,
            total_steps=self.optim.steps,
            is_main=self.accelerator.is_main_process,
        )
        self.log.info(summarize_parameters(self.network))
        if self.encoder is not None:
            self.log.info("teacher and student share the patch encoder: it runs once per batch")
        if self.patch_size != self.network.patch_size:
            self.log.info(
                f"Using image sides that are multiples of {self.patch_size} pixels, for the patches of teacher and "
                "student."
            )
        for described in (self.supervision, data):
            if hasattr(described, "describe"):
                self.log.info(described.describe())
        if self.step:
            self.log.info(f"resumed after step {self.step}, from {resumed_from.name}")

    def save_config(self, text: str) -> None:
        """Write the resolved configuration to config.yaml. Log the changes since an earlier run.

        Args:
            text: Configuration in YAML.
        """
        if not self.accelerator.is_main_process:
            return
        path = self.output_dir / "config.yaml"
        before = path.read_text(encoding="utf-8") if self.step and path.exists() else text
        for line in difflib.unified_diff(before.splitlines(), text.splitlines(), "before", "now", n=0, lineterm=""):
            self.log.info(f"warning: resumed with another configuration: {line}")
        path.write_text(text, encoding="utf-8")

    def run(self) -> None:
        """Train from the current step to the last step, or until `max_minutes` is over."""
        try:
            began = started = time.perf_counter()
            for said in self.steps(self.optim.steps - self.step):
                is_last = self.step == self.optim.steps
                is_over = not is_last and self._is_over(time.perf_counter() - began)
                if self.step % self.log_every == 0 or is_last:
                    self.log.scalars(self.step, self._metrics(said, time.perf_counter() - started))
                self.log.advance(self._postfix(said, time.perf_counter() - started))
                if self.validation is not None and (self.step % self.validate_every == 0 or is_last):
                    self._validate()
                if self.step % self.save_every == 0 or is_last or is_over:
                    self._save()
                if is_over:
                    self.log.info(
                        f"stopped after {self.max_minutes:g} minutes and {self.step} steps: start again to continue"
                    )
                    return
                started = time.perf_counter()
            self._save_weights("final")
        finally:
            self.log.close()

    def _is_over(self, seconds: float) -> bool:
        """Return whether the time limit is over, with the same result in all processes."""
        if self.max_minutes is None:
            return False
        if seconds > 60 * self.max_minutes:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def steps(self, count: int) -> Iterator[dict]:
        """Run the next steps.

        Args:
            count: Number of steps.

        Yields:
            Per step: loss, terms, gradient norm, learning rate and number of frames.
        """
        batches = self._batches()
        for _ in range(count):
            said = self._one_step(batches)
            self.step += 1
            yield said

    def _one_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        # Seed the global random state for code that does not take a generator.
        set_seed((self.seed * 1_000_003 + self._batch_index()) % 2**32)
        lr = self.optim.set_lr(self.optimizer, self.step)
        tally = LossAverager((*self.heads, *(self.auxiliary_loss.names if self.auxiliary_loss else ())), self.device)
        num_frames = 0
        for position in range(self.gradient_accumulation_steps):
            batch = next(batches)
            num_frames += batch.num_sequences * batch.num_frames
            with self.accelerator.accumulate(self.model):
                generator = self._generator(position)
                frames = dense_frames(batch.num_frames, self.dense_share, generator)
                result, _, _ = self._forward(self.model, batch, generator, self.auxiliary_loss, frames)
                self.accelerator.backward(result.total)
                tally.add(result)
        norm = self._clip()
        said = tally.means(self.accelerator)
        self._update(norm, said["loss"])
        return {**said, "grad_norm": norm, "lr": lr, "frames": num_frames * self.accelerator.num_processes}

    def _clip(self) -> Tensor:
        """Clip the gradients. Return the norm of all gradients before clipping."""
        first, *apart = self.clip_groups
        norms = [self.accelerator.clip_grad_norm_(first, self.optim.clip_norm)]  # also removes the loss scale
        norms += [nn.utils.clip_grad_norm_(parameters, self.optim.clip_norm) for parameters in apart]
        norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        return torch.stack([norm.to(self.device) for norm in norms]).norm()

    def _update(self, norm: Tensor, loss: Tensor) -> None:
        """Run the optimizer step if loss and gradients are finite. All processes decide from the same numbers."""
        loss_is_finite, is_finite = torch.stack([loss, loss + norm]).isfinite().tolist()
        scaler = self.accelerator.scaler
        if is_finite or scaler is not None:  # the loss scaler skips the step itself and adapts its scale
            self.optimizer.step()
        self.optimizer.zero_grad()
        if is_finite:
            self.nonfinite_steps = 0
            if self.ema is not None:
                self.ema.update_parameters(self.network)
            return
        if loss_is_finite and scaler is not None and scaler.get_scale() >= 1:
            return  # float16 overflow: the loss scaler is adapting its scale
        self.nonfinite_steps += 1
        self.num_nonfinite += 1
        if self.nonfinite_steps >= self.max_nonfinite_steps:
            raise Diverged(
                f"stopped at step {self.step}: {self.nonfinite_steps} steps in a row had no finite loss and gradient. "
                f"The "
                f"last good state is {self.checkpoints.last}; try a lower learning rate or a longer warm-up"
            )

    def _forward(
        self,
        model: nn.Module,
        batch: Batch,
        generator: torch.Generator,
        auxiliary_loss: AuxiliaryLoss | None = None,
        dense_frames: Sequence[int] | None = None,
    ):
        queries = self.supervision.query_points(batch, generator) if "track" in self.heads else None  # on the host
        queries = None if queries is None else uploaded(queries, self.device)
        batch = replace(batch, instance_ids=None).to(self.device, non_blocking=True)
        heads = [head for head in self.heads if head != "track" or queries is not None]
        patches = None
        watching = nullcontext() if auxiliary_loss is None else auxiliary_loss.watch(self.network)
        with self.accelerator.autocast(), watching as seen:
            if self.encoder is not None:
                with torch.no_grad():
                    patches = self.encoder(batch.images)
            target = self.supervision(batch, heads, queries, patches)
            attended_frames = None if self.policy is None else self.policy.attended_frames(batch.num_frames)
            prediction = model(
                batch.images,
                heads=heads,
                query_points=queries,
                attended_frames=attended_frames,
                patch_tokens=patches,
                dense_frames=dense_frames,
            )
        result = self.loss(prediction, target)
        if auxiliary_loss is not None:
            result = result.with_terms(auxiliary_loss(batch, seen, self.network))
        return result, prediction, target

    @torch.no_grad()
    def _validate(self) -> None:
        model = self.model if self.ema is None else self.ema.module
        accelerator = self.accelerator
        tally = LossAverager(self.heads, self.device)
        # Forward passes of a sharded network are collective, so all processes run the same number of passes.
        for first in range(0, self.num_validation_batches, accelerator.num_processes):
            position = first + accelerator.process_index
            is_counted = position < self.num_validation_batches
            position %= self.num_validation_batches
            generator = torch.Generator().manual_seed(position)
            batch = self.validation[position]
            result, prediction, target = self._forward(model, batch, generator)
            if is_counted:
                tally.add(result)
            if position == 0 and prediction.depth is not None:
                self.log.image(self.step, "depth", self._log_figure(batch, prediction, target))
        said = {name: value.item() for name, value in tally.means(accelerator).items()}
        self.log.scalars(self.step, said, "validation")
        self.log.info(f"step {self.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in said.items()))
        if said["loss"] < self.best:
            self.best = said["loss"]
            self._save_weights("best")

    def _log_figure(self, batch: Batch, prediction, target: Target):
        known = target.prediction.depth
        shown = known if known is not None else prediction.depth
        valid = None if target.valid is None else target.valid[0]
        return depth_figure(batch.images[0], shown[0, ..., 0], prediction.depth[0, ..., 0], valid)

    def _batches(self) -> Iterator[Batch]:
        return load_batches(
            self.data,
            self._batch_index(),
            self.accelerator.num_processes,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )

    def _batch_index(self, position: int = 0) -> int:
        """Return the index of this process's micro-batch at a position of the current step."""
        accelerator = self.accelerator
        return (
            self.step * self.gradient_accumulation_steps + position
        ) * accelerator.num_processes + accelerator.process_index

    def _generator(self, position: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self._batch_index(position))

    def _metrics(self, said: dict, seconds: float) -> dict[str, float]:
        numbers = {name: float(value) for name, value in said.items() if name != "frames"}
        numbers["images_per_second"] = said["frames"] / seconds
        numbers["memory_gb"] = self._memory() / 1e9
        numbers["nonfinite_steps"] = self.num_nonfinite
        return {**numbers, **self._replaced()}

    def _replaced(self) -> dict[str, float]:
        """Return the number of replaced samples in all processes by data set. All processes must call this method."""
        if not hasattr(self.data, "num_replaced"):
            return {}
        counts = self.data.num_replaced()
        total = self.accelerator.reduce(torch.tensor(list(counts.values()), device=self.device), "sum")
        return {f"replaced/{name}": count for name, count in zip(counts, total.tolist(), strict=True) if count}

    def _postfix(self, said: dict, seconds: float) -> str:
        bad = f", {self.num_nonfinite} bad" if self.num_nonfinite else ""
        speed = f"{said['frames'] / seconds:.1f} images/s"
        return f"loss {float(said['loss']):.4g}, {speed}, {self._memory() / 1e9:.1f} GB{bad}"

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return psutil.Process().memory_info().rss

    def _save(self) -> None:
        extra = {
            "best": self.best,
            "nonfinite_steps": self.nonfinite_steps,
            "num_nonfinite": self.num_nonfinite,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }
        self.checkpoints.save(self.step, self.model, self.optimizer.optimizer, self.network.config.as_dict(), extra)
        self.accelerator.wait_for_everyone()

    def _resume(self, path: Path) -> None:
        self.step, extra = self.checkpoints.load(path, self.model, self.optimizer.optimizer)
        try:
            check_extra(extra)
            if self.accelerator.scaler is not None and extra["scaler"]:
                self.accelerator.scaler.load_state_dict(extra["scaler"])
            if self.ema is not None and extra["ema"] is not None:
                self.ema.load_state_dict(extra["ema"])
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be gone on with: {error}") from error
        self.best, self.nonfinite_steps, self.num_nonfinite = (
            extra["best"],
            extra["nonfinite_steps"],
            extra["num_nonfinite"],
        )

    def _save_weights(self, name: str) -> None:
        """Save the weights for `load_model`, of the moving average if there is one."""
        # Gather the weights of sharded networks.
        state = self.accelerator.get_state_dict(self.model) if self.ema is None else self.ema.module.state_dict()
        if self.accelerator.is_main_process:
            named = {original_name(name): tensor for name, tensor in state.items()}
            kept = {name: tensor for name, tensor in named.items() if not name.startswith(AUXILIARY_PREFIX)}
            if self.adapters is not None:
                kept = self.adapters.merged(kept)
            save_model(self.network, self.output_dir / name, kept)
        self.accelerator.wait_for_everyone()

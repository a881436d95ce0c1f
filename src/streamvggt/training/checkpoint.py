"""Training checkpoints: written atomically, limited in number, loaded without code execution."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from streamvggt.files import atomic_write, check_seal, link_or_copy
from streamvggt.training.state_check import check_state

FORMAT_VERSION = 3


class CheckpointManager:
    """Checkpoint files of one training run.

        step-00001000.pt   full training state after 1,000 steps; the newest `keep` files are kept
        last.pt            hard link to the newest state
        best/  final/      config.json and model.safetensors, for `load_model`

    The main process gathers the state from all processes, sharded or not, and writes the files.
    """

    def __init__(self, folder: Path, *, keep: int = 2, is_main: bool = True):
        self.folder = folder
        self.keep = keep
        self.is_main = is_main
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def last(self) -> Path:
        """Path of last.pt."""
        return self.folder / "last.pt"

    @property
    def newest(self) -> Path | None:
        """State to resume from: last.pt, otherwise the newest step-*.pt. None: no state."""
        return self.last if self.last.exists() else max(self._steps(), default=None)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, config: dict, extra: dict) -> None:
        """Write the training state. All processes must call this method.

        Args:
            step: Number of completed optimizer steps.
            model: The network, wrapped or not.
            optimizer: The optimizer.
            config: Network configuration, so that `load_model` can read the file.
            extra: Further state: numbers, strings, lists, dicts and tensors.
        """
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = {
            "format": FORMAT_VERSION,
            "step": step,
            "model": get_model_state_dict(model, options=options),
            "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
            "config": {"model_type": "streamvggt", **config},
            "extra": extra,
        }
        if not self.is_main:
            return
        path = self.folder / f"step-{step:08d}.pt"
        with atomic_write(path, sealed=True, make_folder=False) as unfinished:
            torch.save(state, unfinished)
        with atomic_write(self.last, make_folder=False) as unfinished:
            unfinished.unlink()  # os.link requires that the target does not exist
            link_or_copy(path, unfinished)
        self._clear()

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict]:
        """Load a training state into model and optimizer. All processes must call this method.

        Returns:
            Number of completed steps, and `extra`.

        Raises:
            ValueError: If the file is damaged, not a training state of this version, or from another network.
        """
        self._check(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not a training state, or is cut off: {error}") from error
        version = state.get("format") if isinstance(state, dict) else None
        if not isinstance(version, int) or version != FORMAT_VERSION:
            raise ValueError(f"{path} is not a training state of this version; to start from weights use load_model")
        options = StateDictOptions(full_state_dict=True)
        try:
            check_state(state, model, optimizer)
            set_model_state_dict(model, state["model"], options=options)
            set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{path} does not match this training: {error}") from error
        if self.is_main:
            self._clear()
        return state["step"], state["extra"]

    def _check(self, path: Path) -> None:
        """Verify the checksum of a state.

        Raises:
            ValueError: If the file is damaged. The message names an older state, if one exists.
        """
        try:
            check_seal(path)
        except ValueError as error:
            same = [other for other in self._steps() if other.samefile(path)]
            others = [other.name for other in self._steps() if other not in same]
            if not others:
                raise
            remove = ", ".join(sorted({path.name, *(other.name for other in same)}))
            raise ValueError(f"{error} Without {remove}, the training continues from {others[-1]}.") from error

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _clear(self) -> None:
        """Delete older states and the temporary files of killed processes."""
        for old in [*self._steps()[: -self.keep], *self.folder.glob(".*.part.pt")]:
            old.unlink()

"""The state of a training on disk: whole or not at all, the last few kept, nothing executed on loading."""

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
    """Files of one training.

        step-00001000.pt   the whole state after 1,000 steps; the newest `keep` stay
        last.pt            the newest of them
        best/  final/      config.json and model.safetensors, for `load_model`

    The state is gathered from all processes, whatever way they share the network, and written by the first.
    """

    def __init__(self, folder: Path, *, keep: int = 2, is_main: bool = True):
        self.folder = folder
        self.keep = keep
        self.is_main = is_main
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def newest(self) -> Path | None:
        """The state to go on from: `last`, else the newest of the others; None: there is none."""
        return self.last if self.last.exists() else max(self._steps(), default=None)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, config: dict, extra: dict) -> None:
        """Write the state after `step` steps. All processes must call it.

        Args:
            config: the network's, so that `load_model` can read the file.
            extra: numbers, strings, lists, dicts and tensors.
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
            unfinished.unlink()  # a link takes no place that is taken
            link_or_copy(path, unfinished)
        self._clear()

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict]:
        """Continue from a file: fills model and optimiser, answers step and `extra`. All processes must call it.

        Raises:
            ValueError: it is damaged, no training state of this version, or of another network.
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
            raise ValueError(f"{path} cannot be gone on with: {error}") from error
        if self.is_main:
            self._clear()
        return state["step"], state["extra"]

    def _check(self, path: Path) -> None:
        """Raises ValueError if a state is damaged; says which others there are."""
        try:
            check_seal(path)
        except ValueError as error:
            same = [other for other in self._steps() if other.samefile(path)]
            others = [other.name for other in self._steps() if other not in same]
            if not others:
                raise
            remove = ", ".join(sorted({path.name, *(other.name for other in same)}))
            raise ValueError(f"{error} Without {remove}, the training goes on from {others[-1]}.") from error

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _clear(self) -> None:
        """Remove older states, and what a killed process has left."""
        for old in [*self._steps()[: -self.keep], *self.folder.glob(".*.part.pt")]:
            old.unlink()

"""What a training says: TensorBoard, JSON lines and a progress bar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from streamvggt.losses.criterion import LossOutput


class TrainingLogger:
    """Scalars and pictures of one training, by step; only the first process writes.

    log.jsonl: {"step": int, name: number, …} per line. A training that is resumed goes on after its last state:
    lines of later steps are removed.
    """

    def __init__(self, folder: Path, *, first_step: int, total_steps: int, is_main: bool):
        self.is_main = is_main
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / "log.jsonl"
        if self._lines.exists():
            kept = [
                line for line in self._lines.read_text(encoding="utf-8").splitlines() if is_before(line, first_step)
            ]
            self._lines.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._bar = tqdm(total=total_steps, initial=first_step, desc="train", unit="step", dynamic_ncols=True)

    def scalars(self, step: int, values: dict[str, float], group: str = "train") -> None:
        if not self.is_main:
            return
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._board.add_scalar(name, value, step)
        with open(self._lines, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **named}) + "\n")

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """RGB, uint8. (H, W, 3)"""
        if self.is_main:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def advance(self, shown: str) -> None:
        if self.is_main:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()

    def info(self, text: str) -> None:
        if self.is_main:
            tqdm.write(text)

    def close(self) -> None:
        if self.is_main:
            self._board.close()
            self._bar.close()


class LossAverager:
    """Means of a loss and of its terms over batches and processes, whichever of the terms each of them had."""

    def __init__(self, names: Sequence[str], device: torch.device):
        self.names = ("loss", *names)
        self._sums = torch.zeros(len(self.names), 2, device=device)  # of values, and how many

    def add(self, result: LossOutput) -> None:
        values = {"loss": result.total.detach(), **result.terms}
        for row, name in enumerate(self.names):
            if name in values:
                self._sums[row] += torch.stack([values[name].float(), torch.ones_like(self._sums[row, 1])])

    def means(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """The means so far; all processes must ask. A term that nobody had is left out."""
        total, count = accelerator.reduce(self._sums, "sum").unbind(1)
        means = total / count.clamp(min=1)
        had = (count > 0).tolist()  # waits for the device, once
        return {name: means[row] for row, name in enumerate(self.names) if had[row]}


def is_before(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError):  # a line cut off by a kill
        return False


def depth_figure(images: Tensor, target: Tensor, predicted: Tensor, valid: Tensor | None) -> np.ndarray:
    """Image | target depth | predicted depth of some frames below each other; both depths share their colours.

    Args:
        images: (S, 3, H, W)
        target, predicted: scaled to the target's median by its own. (S, H, W)
        valid: (S, H, W)

    Returns:
        RGB, uint8. (S·H, 3W, 3)
    """
    valid = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    if valid.any():
        predicted = predicted * (target[valid].median() / predicted[valid].median().clamp(min=1e-6))
    near_target, near_predicted = 1 / target.clamp(min=1e-6), 1 / predicted.clamp(min=1e-6)
    some = near_target[valid] if valid.any() else near_target.flatten()
    low, high = np.percentile(some.float().cpu().numpy(), [2, 98])
    columns = [(images.movedim(1, -1).float().cpu().numpy() * 255).round().astype(np.uint8)]
    for nearness in (torch.where(valid, near_target, torch.nan), near_predicted):
        level = np.nan_to_num((nearness.float().cpu().numpy() - low) / max(high - low, 1e-12)).clip(0, 1) * 255
        columns.append(np.stack([cv2.applyColorMap(x.astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1] for x in level]))
    return np.concatenate(columns, 2).reshape(-1, 3 * images.shape[-1], 3)

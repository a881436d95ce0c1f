"""Training log: TensorBoard, JSON lines and a progress bar."""

from __future__ import annotations

import difflib
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
    """Log scalars and images of one training run by step. Only the main process writes.

    Each line of log.jsonl is {"step": int, name: number, …}. If a run is resumed, lines after its last state are
    removed.
    """

    def __init__(self, folder: Path, *, first_step: int, total_steps: int, is_main: bool):
        self.is_main, self._config, self._is_resumed = is_main, folder / "config.yaml", first_step > 0
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / "log.jsonl"
        if self._lines.exists():
            kept = [
                line for line in self._lines.read_text(encoding="utf-8").splitlines() if is_older_than(line, first_step)
            ]
            self._lines.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._bar = tqdm(total=total_steps, initial=first_step, desc="train", unit="step", dynamic_ncols=True)

    def scalars(self, step: int, values: dict[str, float], group: str = "train") -> None:
        """Write scalars to TensorBoard and log.jsonl as "group/name"."""
        if not self.is_main:
            return
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._board.add_scalar(name, value, step)
        with open(self._lines, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **named}) + "\n")

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Write an RGB image, uint8, to TensorBoard. (H, W, 3)"""
        if self.is_main:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def save_config(self, text: str) -> None:
        """Write the resolved configuration to config.yaml. Log the changes since an earlier run.

        Args:
            text: Configuration in YAML.
        """
        if not self.is_main:
            return
        before = self._config.read_text(encoding="utf-8") if self._is_resumed and self._config.exists() else text
        for line in difflib.unified_diff(before.splitlines(), text.splitlines(), "before", "now", n=0, lineterm=""):
            self.info(f"warning: resumed with another configuration: {line}")
        self._config.write_text(text, encoding="utf-8")

    def advance(self, shown: str) -> None:
        """Advance the progress bar by one step and show a text next to it."""
        if self.is_main:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()

    def info(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.is_main:
            tqdm.write(text)

    def close(self) -> None:
        """Close the TensorBoard writer and the progress bar."""
        if self.is_main:
            self._board.close()
            self._bar.close()


class LossAverager:
    """Average a loss and its terms over batches and processes. Batches can lack terms."""

    def __init__(self, names: Sequence[str], device: torch.device):
        self.names = ("loss", *names)
        self._sums = torch.zeros(len(self.names), 2, device=device)  # sums and counts

    def add(self, result: LossOutput) -> None:
        """Add the loss of a batch."""
        values = {"loss": result.total.detach(), **result.terms}
        for row, name in enumerate(self.names):
            if name in values:
                self._sums[row] += torch.stack([values[name].float(), torch.ones_like(self._sums[row, 1])])

    def means(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """Return the means so far, without terms that no batch had. All processes must call this method."""
        total, count = accelerator.reduce(self._sums, "sum").unbind(1)
        means = total / count.clamp(min=1)
        had = (count > 0).tolist()  # one host-device synchronization
        return {name: means[row] for row, name in enumerate(self.names) if had[row]}


def is_older_than(line: str, step: int) -> bool:
    """Return whether a log line belongs to `step` or earlier. False for truncated lines."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError):  # line truncated by a killed process
        return False


def depth_figure(images: Tensor, target: Tensor, predicted: Tensor, valid: Tensor | None) -> np.ndarray:
    """Draw image | target depth | predicted depth, one row per frame, with a common color scale.

    Args:
        images: RGB in [0, 1]. (S, 3, H, W)
        target, predicted: Depths. The prediction is scaled to the median of the target. (S, H, W)
        valid: Valid pixels of the target. None: all pixels. Bool (S, H, W)

    Returns:
        RGB figure, uint8. (S·H, 3W, 3)
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

"""Validation of training states before they are loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.optim import Optimizer

from streamvggt.bounds import check_whole

MAX_STEP = 10**12


def check_state(state: Mapping[str, object], model: nn.Module, optimizer: Optimizer) -> None:
    """Compare a loaded state with the model and optimizer of the resumed training.

    Raises:
        ValueError: If an entry is missing, extra, or has another type or shape.
    """
    check_whole(0, MAX_STEP, step=state.get("step"))
    for name in ("model", "optimizer", "extra"):
        _expect(isinstance(state.get(name), dict), name, "a dictionary", state.get(name))
    _check_tensors(state["model"], get_model_state_dict(model), "model")
    like = get_optimizer_state_dict(model, optimizer)
    found = state["optimizer"]
    for name, kind in (("state", dict), ("param_groups", list)):
        _expect(isinstance(found.get(name), kind), f"optimizer.{name}", f"a {kind.__name__}", found.get(name))
    for name, entries in found["state"].items():
        _expect(name in like["state"], "optimizer.state", "trainable parameters", name)
        _expect(isinstance(entries, dict), f"optimizer.state.{name}", "a dictionary", entries)
        _check_tensors(entries, like["state"][name], f"optimizer.state.{name}")
    groups = found["param_groups"]
    _expect(len(groups) == len(like["param_groups"]), "optimizer.param_groups", "one for each", len(groups))
    for number, (group, wanted) in enumerate(zip(groups, like["param_groups"], strict=True)):
        _check_group(group, wanted, f"optimizer.param_groups.{number}")


def check_extra(extra: Mapping[str, object]) -> None:
    """Check the `extra` entry of a training state.

    Raises:
        ValueError: If a value is missing, has the wrong type or is out of bounds.
    """
    for name in ("nonfinite_steps", "num_nonfinite"):
        check_whole(0, MAX_STEP, **{f"extra.{name}": extra.get(name)})
    best = extra.get("best")
    _expect(isinstance(best, int | float) and not math.isnan(best), "extra.best", "a number", best)
    for name in ("scaler", "ema"):
        _expect(extra.get(name) is None or isinstance(extra[name], dict), f"extra.{name}", "a dictionary", extra[name])


def _check_tensors(found: Mapping, like: Mapping, name: str) -> None:
    """Check the names, shapes and dtypes of tensors."""
    other = sorted(map(str, found.keys() ^ like.keys()))
    _expect(not other, name, "the same entries as this training's", f"{', '.join(other[:3])} on one side only")
    for key, tensor in found.items():
        mine = like[key]
        is_same = isinstance(tensor, Tensor) and tensor.shape == mine.shape
        is_same = is_same and tensor.is_floating_point() == mine.is_floating_point() and not tensor.is_complex()
        wanted = f"a tensor {tuple(mine.shape)}, {mine.dtype}"
        _expect(is_same, f"{name}.{key}", wanted, tuple(tensor.shape) if isinstance(tensor, Tensor) else tensor)


def _check_group(found: object, like: Mapping, name: str) -> None:
    """Check a parameter group of the optimizer."""
    _expect(isinstance(found, dict), name, "a dictionary", found)
    _expect(found.get("params") == like["params"], f"{name}.params", "the same parameters", "others")
    for key, mine in like.items():
        if key == "params" or key not in found:  # settings differ between PyTorch versions
            continue
        value = found[key]
        if isinstance(mine, bool) or mine is None:
            _expect(value is None or isinstance(value, bool), f"{name}.{key}", "true, false or none", value)
        elif isinstance(mine, int | float):
            _expect(_is_finite(value), f"{name}.{key}", "a finite number", value)
        elif isinstance(mine, list | tuple):
            is_alike = isinstance(value, list | tuple) and len(value) == len(mine) and all(map(_is_finite, value))
            _expect(is_alike, f"{name}.{key}", f"{len(mine)} finite numbers", value)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _expect(is_right: bool, name: str, wanted: str, found: object) -> None:
    if not is_right:
        raise ValueError(f"{name}: expected {wanted}, got {found!r:.80}")

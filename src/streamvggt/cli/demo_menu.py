"""Weights and examples on the demo page."""

import json
from collections.abc import Iterable
from pathlib import Path

from streamvggt.app.examples import Example
from streamvggt.app.model_registry import WeightsInfo
from streamvggt.model.checkpoints import BY_ID
from streamvggt.model.weights_path import BUNDLED_DIR, BUNDLED_MODELS, WEIGHTS_NAME
from streamvggt.stream.weights_note import weights_note

MENU = {
    "tiny": ("tiny", "try the software"),
    "StreamVGGT": ("lch01/StreamVGGT", "photos and videos"),
    "STream3R": ("yslan/STream3R", "photos and videos, non-commercial"),
    "LingBot-Map": ("robbyant/lingbot-map", "long videos"),
    "VGGT": ("facebook/VGGT-1B", "few photos; run frame by frame, not trained for it"),
}
"""Label: name for `load_model`, and purpose."""


def weights_menu(names: Iterable[str], has_random: bool) -> tuple[dict[str, str], dict[str, WeightsInfo]]:
    """Return label → name, and label → description.

    Args:
        names: Additional weights at the top.
        has_random: Add random weights, for measurements.
    """
    menu = {name: (name, "") for name in names} | MENU
    if has_random:
        menu["random:small"] = ("random:small", "random, for measurements")
    infos = {label: weights_info(name, purpose) for label, (name, purpose) in menu.items()}
    return {label: name for label, (name, _) in menu.items()}, infos


def weights_info(name: str, purpose: str = "") -> WeightsInfo:
    """Describe weights without loading them: size, purpose, limits, and whether they have a tracker."""
    known, folder = BY_ID.get(name), BUNDLED_DIR / BUNDLED_MODELS.get(name, "-")
    size, has_tracker = "", None
    if known is not None:
        size = f"{known.parameters / 1e9:.1f} B parameters, {known.num_bytes / 1e9:.1f} GB"
        has_tracker = "track" in known.heads
    elif folder.is_dir():
        size = f"{(folder / WEIGHTS_NAME).stat().st_size / 1e6:.0f} MB"
        has_tracker = "track" in json.loads((folder / "config.json").read_text(encoding="utf-8"))["heads"]
    return WeightsInfo(": ".join(filter(None, [size, purpose])), weights_note(name), has_tracker)


def page_examples(assets: Path) -> list[Example]:
    """Return the examples in the folder `assets` of the repository."""
    return [
        Example("Room", assets / "clip.mp4"),
        Example("Outdoors, moving", assets / "examples" / "outdoor.mp4"),
        Example("Loop", assets / "examples" / "loop.mp4", memory="the first and the last 24 frames"),
        Example("Photos", assets / "examples" / "photos", memory="all frames"),
    ]

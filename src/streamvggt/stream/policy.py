"""Parse eviction policies of the command line. docs/streaming.md describes each policy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamvggt.model.eviction import EvictionPolicy


@dataclass(frozen=True)
class PolicySpec:
    """Command-line syntax of a policy: its fields in order, as numbers separated by commas.

    The class is imported on first use, because help texts need the syntax only.

    Attributes:
        module: Module in `streamvggt.stream.policies`.
        class_name: Name of the policy in the module.
        parameters: Fields of the policy in order, and their types.
        num_required: Number of leading fields that are required if any field is given. The others have defaults.
    """

    module: str
    class_name: str
    parameters: dict[str, type]
    num_required: int = 0

    @property
    def policy(self) -> type[EvictionPolicy]:
        return getattr(import_module(f"streamvggt.stream.policies.{self.module}"), self.class_name)

    def usage(self, name: str) -> str:
        """Return the usage, as in "motion-keyframes:MIN_FLOW,MAX_FRAMES". Optional fields are in brackets."""
        parameters = [parameter.upper() for parameter in self.parameters]
        if not parameters:
            return name
        needed, optional = parameters[: self.num_required or 1], parameters[self.num_required or 1 :]
        return f"{name}:{','.join(needed)}{''.join(f'[,{parameter}' for parameter in optional)}{']' * len(optional)}"


POLICIES = {
    "all": PolicySpec("sliding_window", "KeepAll", {}),
    "window": PolicySpec(
        "sliding_window", "SlidingWindow", {"anchor": int, "recent": int, "retained": int}, num_required=2
    ),
    "trajectory": PolicySpec("trajectory", "Trajectory", {"anchor": int, "recent": int, "every": int}, num_required=2),
    "keyframes": PolicySpec("keyframes", "Keyframes", {"interval": int, "max_frames": int}),
    "motion-keyframes": PolicySpec(
        "keyframes", "MotionKeyframes", {"min_flow": float, "max_frames": int, "max_interval": int}
    ),
    "frame-diversity": PolicySpec("frame_diversity", "FrameDiversity", {"max_frames": int, "recent": int}),
    "token-diversity": PolicySpec(
        "token_diversity", "TokenDiversity", {"budget_frames": int, "slack_frames": int, "temperature": float}
    ),
    "selective": PolicySpec(
        "self_selective",
        "SelfSelective",
        {
            "budget_frames": int,
            "slack_frames": int,
            "importance_weight": float,
            "anchors": int,
            "anchor_max_coverage": float,
            "anchor_token_ratio": float,
        },
    ),
    "saliency": PolicySpec(
        "probe_saliency", "ProbeSaliency", {"budget_frames": int, "slack_frames": int, "num_patches": int}
    ),
}
POLICY_NAMES = ", ".join(POLICIES)
POLICY_USAGE = ", ".join(named.usage(name) for name, named in POLICIES.items())
"""All values that `parse_policy` accepts, for error messages."""

DEFAULT_POLICY = "frame-diversity:9"
"""Default of command lines, demo page and viewer. It bounds memory for videos of any length (docs/streaming.md).
Evaluations and `StreamSession` keep all frames by default, as the reference implementation does."""


def parse_policy(text: str) -> EvictionPolicy:
    """Parse a policy such as "all", "window", "window:1,8" or "motion-keyframes:20".

    Raises:
        ValueError: If the name is unknown, or its numbers are invalid.
    """
    name, _, numbers = text.partition(":")
    if name not in POLICIES:
        raise ValueError(f"policy {text!r} is unknown; choose one of {POLICY_USAGE} (a name alone takes its defaults)")
    named = POLICIES[name]
    parts = numbers.split(",") if numbers else []
    values = []
    for part, (parameter, kind) in zip(parts, named.parameters.items(), strict=False):
        try:
            values.append(kind(part))
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(
                f"policy {text!r}: {parameter.upper()} must be {what}, not {part!r}; write {named.usage(name)}"
            ) from error
    if len(parts) > len(named.parameters) or 0 < len(parts) < named.num_required:
        raise ValueError(f"policy {text!r} has {len(parts)} number(s) behind its name; write {named.usage(name)}")
    return named.policy(*values)

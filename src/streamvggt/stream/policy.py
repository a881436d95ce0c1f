"""Parse eviction policies of the command line. docs/streaming.md describes each policy."""

from __future__ import annotations

from dataclasses import dataclass, fields

from streamvggt.model.eviction import EvictionPolicy
from streamvggt.stream.policies.frame_diversity import FrameDiversity
from streamvggt.stream.policies.keyframes import Keyframes, MotionKeyframes
from streamvggt.stream.policies.probe_saliency import ProbeSaliency
from streamvggt.stream.policies.self_selective import SelfSelective
from streamvggt.stream.policies.sliding_window import KeepAll, SlidingWindow
from streamvggt.stream.policies.token_diversity import TokenDiversity
from streamvggt.stream.policies.trajectory import Trajectory


@dataclass(frozen=True)
class PolicySpec:
    """Command-line syntax of a policy: its fields in order, as numbers separated by commas.

    Attributes:
        num_required: Number of leading fields that are required if any field is given. The others have defaults.
    """

    policy: type[EvictionPolicy]
    num_required: int = 0

    @property
    def parameters(self) -> dict[str, type]:
        types = {"int": int, "float": float}
        return {field.name: types[field.type] for field in fields(self.policy)}

    def usage(self, name: str) -> str:
        """Return the usage, as in "motion-keyframes:MIN_FLOW,MAX_FRAMES". Optional fields are in brackets."""
        parameters = [parameter.upper() for parameter in self.parameters]
        if not parameters:
            return name
        needed, optional = parameters[: self.num_required or 1], parameters[self.num_required or 1 :]
        return f"{name}:{','.join(needed)}{''.join(f'[,{parameter}' for parameter in optional)}{']' * len(optional)}"


POLICIES = {
    "all": PolicySpec(KeepAll),
    "window": PolicySpec(SlidingWindow, num_required=2),
    "trajectory": PolicySpec(Trajectory, num_required=2),
    "keyframes": PolicySpec(Keyframes),
    "motion-keyframes": PolicySpec(MotionKeyframes),
    "frame-diversity": PolicySpec(FrameDiversity),
    "token-diversity": PolicySpec(TokenDiversity),
    "selective": PolicySpec(SelfSelective),
    "saliency": PolicySpec(ProbeSaliency),
}
POLICY_USAGE = ", ".join(named.usage(name) for name, named in POLICIES.items())
"""All values that `parse_policy` accepts, for help texts."""

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

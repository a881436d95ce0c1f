"""Memory policies by the names that command lines use. What each does: docs/streaming.md."""

from __future__ import annotations

from dataclasses import dataclass, fields

from streamvggt.model.memory import Policy
from streamvggt.stream.policies.frame_blocks import FrameBlocks
from streamvggt.stream.policies.key_diversity import KeyDiversity
from streamvggt.stream.policies.key_frames import KeyFrames, MotionKeyFrames
from streamvggt.stream.policies.probe_saliency import ProbeSaliency
from streamvggt.stream.policies.self_selective import SelfSelective
from streamvggt.stream.policies.trajectory import Trajectory
from streamvggt.stream.policies.window import KeepAll, Window


@dataclass(frozen=True)
class Named:
    """A policy on a command line: its fields in their order, as numbers separated by commas.

    num_needed: fields that must be given if any are; the others have defaults.
    """

    policy: type[Policy]
    num_needed: int = 0

    @property
    def knobs(self) -> dict[str, type]:
        types = {"int": int, "float": float}
        return {field.name: types[field.type] for field in fields(self.policy)}

    def usage(self, name: str) -> str:
        """As in "motion:PIXELS,HELD,LONGEST", what may be left out in brackets."""
        knobs = [knob.upper() for knob in self.knobs]
        if not knobs:
            return name
        needed, optional = knobs[: self.num_needed or 1], knobs[self.num_needed or 1 :]
        return f"{name}:{','.join(needed)}{''.join(f'[,{knob}' for knob in optional)}{']' * len(optional)}"


NAMES = {
    "all": Named(KeepAll),
    "window": Named(Window, num_needed=2),
    "trajectory": Named(Trajectory, num_needed=2),
    "keyframes": Named(KeyFrames),
    "motion": Named(MotionKeyFrames),
    "blocks": Named(FrameBlocks),
    "diversity": Named(KeyDiversity),
    "selective": Named(SelfSelective),
    "saliency": Named(ProbeSaliency),
}
MEMORIES = ", ".join(named.usage(name) for name, named in NAMES.items())
"""All that `parse_policy` understands, for the help of a command line."""

DEFAULT_MEMORY = "blocks:9"
"""Of command lines, the page and the viewer, if nothing else is asked for: bounded, so that a video of any length runs
through; why this one: docs/streaming.md. Evaluations and `StreamSession` keep all frames, as published."""


def parse_policy(text: str) -> Policy:
    """The policy that a command line names, as in "all", "window", "window:1,8" or "motion:20".

    Raises:
        ValueError: there is none of that name, or its numbers cannot be read.
    """
    name, _, numbers = text.partition(":")
    if name not in NAMES:
        raise ValueError(f"memory {text!r} is unknown; choose one of {MEMORIES} (a name alone takes its defaults)")
    named = NAMES[name]
    parts = numbers.split(",") if numbers else []
    values = []
    for part, (knob, kind) in zip(parts, named.knobs.items(), strict=False):
        try:
            values.append(kind(part))
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(
                f"memory {text!r}: {knob.upper()} must be {what}, not {part!r}; write {named.usage(name)}"
            ) from error
    if len(parts) > len(named.knobs) or 0 < len(parts) < named.num_needed:
        raise ValueError(f"memory {text!r} has {len(parts)} number(s) behind its name; write {named.usage(name)}")
    return named.policy(*values)

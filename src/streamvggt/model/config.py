"""The sizes of a network: what config.json holds, checked before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from streamvggt.prediction import PoseDirection

HEADS = ("camera", "depth", "points", "track")
GlobalRotation = Literal["space", "time"]


def _within(default: Any, low: float, high: float, step: int | None = None) -> Any:
    """A field whose value, or each of whose values, has the default's type and lies in [low, high].

    Args:
        step: Number that divides the value; None: any value.
    """
    return field(default=default, metadata={"within": (low, high, step)})


@dataclass(frozen=True, kw_only=True)
class VGGTConfig:
    """The sizes of a VGGT; the defaults are those of the released 1.26 B network.

    Args:
        causal: frames attend to themselves and earlier ones only (StreamVGGT); False: to all frames (VGGT).
        heads: Heads to build; weights of other heads in a file are not read.
        image_size: Side in pixels of the square image whose patch grid the encoder's positions were learned on. Any
            other size that is a multiple of `patch_size` can be computed.
        dpt_layers: The four layers that the depth, point and track heads read.
        scale_frames: Number of frames at the start of a stream that are computed together and have another scale token
            than later frames (LingBot-Map: 8). 0: no scale token, every frame by itself.
        global_rotation: Rotary positions of the global blocks: "space" (row and column) or "time" (stored frames
            before, row and column; LingBot-Map).
        pose: Direction of the pose that the camera head encodes; see `Prediction.pose`.
        xfeat: Add XFeat's descriptors to the patch tokens and its maps to the depth and point heads; for small
            networks.
        stem_width: With `xfeat`, channels of the first of the convolutions that make patch tokens; 0: one strided
            convolution.

    Raises:
        ValueError: If a value has the wrong type, is out of bounds or contradicts another.
    """

    causal: bool = False
    heads: Sequence[str] = HEADS
    image_size: int = _within(518, 1, 16384)
    patch_size: int = _within(14, 1, 256)
    embed_dim: int = _within(1024, 4, 16384)
    depth: int = _within(24, 1, 256)
    num_heads: int = _within(16, 1, 256)
    mlp_ratio: float = _within(4.0, 0.01, 64.0)
    encoder_depth: int = _within(24, 1, 256)
    encoder_num_heads: int = _within(16, 1, 256)
    camera_trunk_depth: int = _within(4, 1, 64)
    camera_num_heads: int = _within(16, 1, 256)
    camera_iterations: int = _within(4, 1, 64)
    dpt_layers: Sequence[int] = _within((4, 11, 17, 23), 0, 255)
    dpt_features: int = _within(256, 8, 4096, 8)
    dpt_channels: Sequence[int] = _within((256, 512, 1024, 1024), 4, 8192, 4)
    track_features: int = _within(128, 4, 4096, 4)
    track_levels: int = _within(7, 1, 16)
    track_radius: int = _within(4, 1, 32)
    track_dim: int = _within(384, 1, 4096)
    track_depth: int = _within(6, 1, 64)
    track_num_heads: int = _within(8, 1, 256)
    track_virtual: int = _within(64, 1, 4096)
    track_iterations: int = _within(4, 1, 64)
    xfeat: bool = False
    scale_frames: int = _within(0, 0, 1024)
    global_rotation: GlobalRotation = "space"
    pose: PoseDirection = "camera_from_world"
    stem_width: int = _within(0, 0, 1024)

    def __post_init__(self):
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal: expected False (VGGT) or True (StreamVGGT), got {self.causal!r}")
        if not isinstance(self.heads, (list, tuple)) or not all(isinstance(head, str) for head in self.heads):
            raise ValueError(f"heads: expected a list of {', '.join(HEADS)}, got {self.heads!r}.")
        validate_heads(self.heads, HEADS, "the network can have")
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads: expected different heads, got {', '.join(self.heads)}. Name each head once.")
        object.__setattr__(self, "heads", tuple(self.heads))
        for name, kinds in (("global_rotation", GlobalRotation), ("pose", PoseDirection)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name}: expected {' or '.join(get_args(kinds))}, got {getattr(self, name)!r}.")
        if not isinstance(self.xfeat, bool):
            raise ValueError(f"xfeat: expected true or false, got {self.xfeat!r}.")
        for entry in fields(self):
            if "within" in entry.metadata:
                object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        if max(self.dpt_layers) >= self.depth:
            raise ValueError(
                f"dpt_layers must be four of the {self.depth} layers, counted from 0, not {self.dpt_layers}"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> VGGTConfig:
        """Check arguments that come from a file or a caller.

        Raises:
            ValueError: If an argument is unknown, or see the class.
        """
        known = {entry.name for entry in fields(cls)}
        if unknown := [str(name) for name in arguments if name not in known]:
            raise ValueError(f"the network has no argument {', '.join(sorted(unknown))}")
        return cls(**arguments)

    def as_dict(self) -> dict[str, Any]:
        """The content of config.json, without its mark and without options of other networks at their defaults."""
        defaults = {"scale_frames": 0, "global_rotation": "space", "pose": "camera_from_world"}
        return {name: value for name, value in asdict(self).items() if value != defaults.get(name)}


def _checked(entry: Field, value: Any) -> Any:
    """Return a field's value in the field's own type, or raise ValueError."""
    if not isinstance(entry.default, tuple):
        return _number(entry.name, value, type(entry.default), *entry.metadata["within"])
    count = len(entry.default)
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise ValueError(f"{entry.name} must be four integers, not {value!r}")
    return tuple(_number(entry.name, each, int, *entry.metadata["within"]) for each in value)


def _number(name: str, value: Any, kind: type, low: float, high: float, step: int | None) -> Any:
    is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (step and value % step):
        what = "a number" if kind is float else f"a multiple of {step}" if step else "an integer"
        raise ValueError(f"{name}: expected {what} from {low:g} to {high:g}, got {repr(value)[:40]}.")
    return kind(value)


def validate_heads(asked: Collection[str], possible: Collection[str], whose: str) -> None:
    """Raises ValueError where a head is asked for that is not there."""
    unknown = [head for head in asked if head not in possible]
    if unknown or not asked:
        raise ValueError(f"heads {', '.join(unknown) or '(none)'}: {whose} {', '.join(possible)}")

"""Network configuration: content and validation of config.json."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, get_args

from streamvggt.choices import RELEASED_HEADS
from streamvggt.model.aggregator import GlobalRotation
from streamvggt.model.encoders import ENCODERS
from streamvggt.model.heads import HEADS
from streamvggt.prediction import PoseDirection


def _within(default: Any, low: float, high: float, step: int | None = None) -> Any:
    """Return a dataclass field with a range check.

    Args:
        default: Default value or values. They determine the accepted type.
        low: Smallest accepted value.
        high: Largest accepted value.
        step: Divisor of accepted values. None: any value.
    """
    return field(default=default, metadata={"within": (low, high, step)})


@dataclass(frozen=True, kw_only=True)
class VGGTConfig:
    """Configuration of VGGT and StreamVGGT. The defaults are the released 1.26 B network.

    Args:
        causal: True: frames attend to themselves and earlier frames (StreamVGGT). False: to all frames (VGGT).
        heads: Heads to build, names in `streamvggt.model.heads.HEADS`. Weights of other heads in a file are not read.
        encoder: Patch encoder, a name in `streamvggt.model.encoders.ENCODERS`.
        image_size: Side in pixels of the square training image of the encoder's position embedding. The network
            accepts all sizes that are multiples of `patch_size`.
        patch_size: Side of a patch in pixels. None: patch size of the encoder (14 for "dinov2").
        embed_dim: Channels C of the encoder and the aggregator.
        depth: Number of frame blocks, and of global blocks, in the aggregator.
        num_heads: Attention heads per aggregator block.
        mlp_ratio: Hidden width of MLPs, relative to their channels.
        encoder_depth: Number of blocks in the patch encoder.
        encoder_num_heads: Attention heads per encoder block.
        camera_trunk_depth: Number of blocks in the camera head.
        camera_num_heads: Attention heads per block of the camera head.
        camera_iterations: Iterations of the camera head.
        dpt_layers: Four aggregator layers, counted from 0, whose tokens the depth, point and track heads read.
        dpt_features: Channels of the fused maps in the depth and point heads.
        dpt_channels: Channels of the four reassembled maps, from fine to coarse.
        track_features: Channels of the tracker's feature map.
        track_levels: Levels of the tracker's correlation pyramid.
        track_radius: Radius of the correlation window in cells.
        track_dim: Channels of the tracker's transformer.
        track_depth: Number of temporal blocks in the tracker's transformer.
        track_num_heads: Attention heads per block of the tracker's transformer.
        track_virtual: Number of virtual tracks.
        track_iterations: Iterations of the tracker.
        xfeat: Add XFeat descriptors to the patch tokens and XFeat maps to the depth and point heads (small networks).
        scale_frames: Number of first frames of a stream that run in one joint step and have their own scale token
            (LingBot-Map: 8). 0: no scale token and no joint step.
        global_rotation: Rotary positions of the global blocks: "space" (row, column) or "time" (number of earlier
            stored frames, row, column; LingBot-Map).
        pose: Direction of the pose that the camera head encodes. See `Prediction.pose`.
        stem_width: Channels of the first convolution of the stem, which requires `xfeat`. 0: one strided convolution
            makes the patch tokens.

    Raises:
        ValueError: If a value has the wrong type, is out of bounds or contradicts another.
    """

    causal: bool = False
    heads: Sequence[str] = RELEASED_HEADS
    encoder: str = "dinov2"
    image_size: int = _within(518, 1, 16384)
    patch_size: int | None = None
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
        if not isinstance(self.encoder, str) or self.encoder not in ENCODERS:
            raise ValueError(f"encoder: expected {' or '.join(ENCODERS)}, got {self.encoder!r}.")
        patch_size = ENCODERS[self.encoder].patch_size if self.patch_size is None else self.patch_size
        object.__setattr__(self, "patch_size", _number("patch_size", patch_size, int, 1, 256, None))
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
        """Build the configuration from arguments of a file or a caller.

        Raises:
            ValueError: If an argument is unknown, has the wrong type, is out of bounds or contradicts another.
        """
        known = {entry.name for entry in fields(cls)}
        if unknown := [str(name) for name in arguments if name not in known]:
            raise ValueError(f"the network has no argument {', '.join(sorted(unknown))}")
        return cls(**arguments)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of config.json without `model_type`, and without options of other networks.

        Options that the released networks do not have are absent at their defaults.
        """
        defaults = {"encoder": "dinov2", "scale_frames": 0, "global_rotation": "space", "pose": "camera_from_world"}
        return {name: value for name, value in asdict(self).items() if value != defaults.get(name)}


def _checked(entry: Field, value: Any) -> Any:
    """Convert a value to the type of its field.

    Raises:
        ValueError: If the value has the wrong type or is out of bounds.
    """
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
    """Check the names of requested heads.

    Args:
        asked: Requested heads.
        possible: Available heads.
        whose: Start of the sentence in the message that lists the available heads.

    Raises:
        ValueError: If a head is not available, or no head is requested.
    """
    unknown = [head for head in asked if head not in possible]
    if unknown or not asked:
        raise ValueError(f"heads {', '.join(unknown) or '(none)'}: {whose} {', '.join(possible)}")

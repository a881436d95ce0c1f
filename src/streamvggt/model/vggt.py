"""VGGT (arXiv 2503.11651) and StreamVGGT (arXiv 2507.11539): one network, one difference.

B batch · S frames · P tokens of a frame · C channels · H×W pixels · h×w patches · K query points.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamvggt.layers.attention import CausalPattern, RetainedTokens, full_pattern, without_cudnn
from streamvggt.layers.kv_quantization import KVCacheDtype
from streamvggt.layers.xfeat import XFeat
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.model.camera_head import CameraHead
from streamvggt.model.config import VGGTConfig, validate_heads
from streamvggt.model.dpt_head import DPTHead
from streamvggt.model.memory import CameraCacheMode, EvictionPolicy, StreamMemory
from streamvggt.model.track_head import TrackHead
from streamvggt.prediction import Prediction, cat, of_frames


class VGGT(nn.Module):
    """Images of a scene to cameras, depth, points and tracks.

    `causal` is the only difference between teacher and student: in global attention and in the camera head's trunk a
    frame attends to all frames (VGGT, False), or to itself and earlier frames (StreamVGGT, True). Only a causal model
    can continue a `StreamMemory`.

    `config` holds the sizes, as a dict of `VGGTConfig`'s fields; `save_pretrained` writes it.
    """

    def __init__(
        self,
        *,
        layer_scale: float = 0.01,
        attention: str = "sdpa",
        activation_checkpointing: bool = False,
        **sizes,
    ):
        """
        Args:
            layer_scale: at which a fresh network's residual branches of frame, global and camera blocks start.
            attention: "sdpa" or "flash" (flash-attn; half precision on CUDA).
            activation_checkpointing: trade computing the blocks twice for the memory of their activations in training.
            sizes: fields of `VGGTConfig`; the released 1.26 B network by default.

        Raises:
            ValueError: If a size is unknown, has the wrong type, is out of bounds or contradicts another.
        """
        super().__init__()
        config = VGGTConfig.of(sizes)
        self.config: dict[str, Any] = config.as_dict()
        self.causal = config.causal
        self.patch_size = config.patch_size
        self.dpt_layers = config.dpt_layers
        self.scale_frames, self.pose = config.scale_frames, config.pose
        self.frames_per_chunk = 8
        """Frames that a dense head computes at a time; bounds its memory."""

        self.aggregator = Aggregator(
            image_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            encoder_depth=config.encoder_depth,
            encoder_num_heads=config.encoder_num_heads,
            xfeat=config.xfeat,
            stem_width=config.stem_width,
            layer_scale=layer_scale,
            attention=attention,
            activation_checkpointing=activation_checkpointing,
            scale_frames=config.scale_frames,
            global_rotation=config.global_rotation,
        )
        dim = 2 * config.embed_dim
        skips = XFeat.fine_channels if config.xfeat else ()
        dense = {
            "patch_size": config.patch_size,
            "features": config.dpt_features,
            "channels": config.dpt_channels,
            "skip_channels": skips,
        }
        if "camera" in config.heads:
            self.camera_head = CameraHead(
                dim,
                trunk_depth=config.camera_trunk_depth,
                num_heads=config.camera_num_heads,
                mlp_ratio=config.mlp_ratio,
                num_iterations=config.camera_iterations,
                layer_scale=layer_scale,
                attention=attention,
            )
        if "points" in config.heads:
            self.point_head = DPTHead(dim, out_channels=4, **dense)
        if "depth" in config.heads:
            self.depth_head = DPTHead(dim, out_channels=2, **dense)
        if "track" in config.heads:
            self.track_head = TrackHead(
                dim,
                patch_size=config.patch_size,
                dpt_channels=config.dpt_channels,
                features=config.track_features,
                num_levels=config.track_levels,
                radius=config.track_radius,
                hidden_dim=config.track_dim,
                depth=config.track_depth,
                num_heads=config.track_num_heads,
                num_virtual_tracks=config.track_virtual,
                num_iterations=config.track_iterations,
            )

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that were built."""
        return self.config["heads"]

    def new_memory(
        self,
        policy: EvictionPolicy | None = None,
        *,
        camera_cache: CameraCacheMode = "per_iteration",
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
    ) -> StreamMemory:
        """An empty past for one stream, or for a batch of streams that advance together.

        Args:
            policy: which frames stay; None: all.
            camera: "per_iteration" equals the full causal pass; "shared" equals the published streaming code.
            track_window: frames kept for tracking, besides the query frame.
            kv_cache_dtype: "auto": as computed; "int8": one byte per value and a factor per token and head,
                for half of bfloat16's memory.

        Raises:
            ValueError: this network sees all frames, so a later frame would change earlier answers.
        """
        if not self.causal:
            raise ValueError(
                "this network sees all frames at once (causal=False, VGGT) and cannot stream: "
                "use StreamVGGT, or load the weights with causal=True"
            )
        return StreamMemory(
            num_layers=self.aggregator.depth,
            camera_blocks=self.config["camera_trunk_depth"] if "camera" in self.heads else 0,
            camera_iterations=self.config["camera_iterations"],
            policy=policy,
            camera_cache=camera_cache,
            track_window=track_window,
            kv_cache_dtype=kv_cache_dtype,
            scale_frames=self.scale_frames,
            num_special_tokens=self.aggregator.num_special_tokens,
        )

    def forward(
        self,
        images: Tensor,
        *,
        heads: Collection[str] | None = None,
        query_points: Tensor | None = None,
        memory: StreamMemory | BatchedMemory | None = None,
        attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None,
        patch_tokens: Tensor | None = None,
        dense_frames: Sequence[int] | None = None,
    ) -> Prediction:
        """What the network says of a whole sequence, or of the next frames of a stream.

        Args:
            images: RGB in [0, 1]; H and W multiples of the patch size. (B, S, 3, H, W)
            heads: those to run; None: all that the network has, the track head only if there is something to track.
            query_points: (x, y) in pixels of the first of these frames, to be tracked. With a memory they are followed
                from this call on, in place of those given before. (B, K, 2)
            memory: the past of these streams, extended by these frames; `Memories` where each stream has its own. None:
                the frames are the whole sequence. No gradient flows through a memory.
            attended_frames: without memory and with causal=True: for each frame the frames it sees, its own among them,
                as from `EvictionPolicy.attended_frames`; None: all up to its own.
            patch_tokens: what `aggregator.encode_patches(images)` answers, if it is known already: a frozen encoder
                that teacher and student share runs once, and so does that of several streams of the same images. (B, S,
                h·w, C + M)
            dense_frames: without memory: frames whose depth and points are predicted, to save time in training; None:
                all. See `Prediction.dense_frames`.

        Returns:
            The prediction for these frames.

        Raises:
            ValueError: the images do not fit the network or the memory, or a head is asked for that it lacks.
        """
        heads = self.validate_inputs(images, heads, query_points, memory, attended_frames)
        if memory is None:
            # In training few lengths come again and again, so that cuDNN's plans pay.
            changes = self.causal and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
            with without_cudnn if changes else nullcontext():
                return self._predict(images, heads, query_points, None, attended_frames, patch_tokens, dense_frames)
        # Not inference mode, even if the caller is in it: what a memory holds outlives the call.
        with torch.inference_mode(False), torch.no_grad():
            memory.begin(len(images), tuple(images.shape[-2:]))
            try:
                predictions = []
                if memory.is_opening:
                    num_joint = min(images.shape[1], memory.scale_frames - memory.num_frames)
                    predictions.append(self._joint_step(images[:, :num_joint], heads, memory, patch_tokens))
                    images, patch_tokens = (
                        images[:, num_joint:],
                        None if patch_tokens is None else patch_tokens[:, num_joint:],
                    )
                num_together = images.shape[1] if memory.is_index_based else 1
                steps = images.split(num_together, 1) if images.shape[1] else ()
                known = (
                    [None] * len(steps) if patch_tokens is None or not steps else patch_tokens.split(num_together, 1)
                )
                for number, (step, encoded) in enumerate(zip(steps, known, strict=True)):
                    queries = query_points if number == 0 else None
                    predictions.append(self._predict(step, heads, queries, memory, None, encoded))
                    memory.update(step.shape[1], predictions[-1])
                memory.commit()
            except BaseException:
                memory.rollback()
                raise
        return cat(predictions) if len(predictions) > 1 else predictions[0]

    def _joint_step(
        self, images: Tensor, heads: Collection[str], memory: StreamMemory, patch_tokens: Tensor | None
    ) -> Prediction:
        """Compute the first frames of a stream together; the earlier ones again if they came in other calls."""
        num_new = images.shape[1]
        encoded = memory.reopen(
            self.aggregator.encode_patches(images) if patch_tokens is None else patch_tokens[:, :num_new]
        )
        prediction = self._predict(images, heads, None, memory, None, encoded)
        memory.update(encoded.shape[1], prediction)
        return prediction.select_frames(slice(encoded.shape[1] - num_new, None))

    def _predict(
        self,
        images: Tensor,
        heads: Collection[str],
        query_points: Tensor | None,
        memory: StreamMemory | BatchedMemory | None,
        attended_frames: Sequence[Sequence[int | RetainedTokens]] | None,
        patch_tokens: Tensor | None,
        dense_frames: Sequence[int] | None = None,
    ) -> Prediction:
        encoded = self.aggregator.encode_patches(images) if patch_tokens is None else patch_tokens
        num_frames = encoded.shape[1]
        height, width = images.shape[-2:]
        times = None
        if memory is not None:
            times = memory.times(num_frames)
            layer_patterns, camera_patterns = memory.layer_patterns(num_frames), memory.camera_patterns(num_frames)
        else:
            joint = self.scale_frames
            if attended_frames is not None:
                attended_frames = with_special_tokens(attended_frames, self.aggregator.num_special_tokens)
                times = stored_before(attended_frames, joint)
            pattern = CausalPattern(num_frames, attended_frames, joint) if self.causal else full_pattern
            layer_patterns = [pattern] * self.aggregator.depth
            camera_patterns = [[pattern] * self.config["camera_trunk_depth"]]

        last = self.aggregator.depth - 1
        needs_dense = {"depth", "points", "track"} & set(heads)
        tokens = self.aggregator(
            encoded,
            (height // self.patch_size, width // self.patch_size),
            patterns=layer_patterns,
            layers={*(self.dpt_layers if needs_dense else ()), *((last,) if "camera" in heads else ())},
            is_first_frame=memory is None or memory.is_empty,
            mlp_hook=None if memory is None else memory.mlp_hook(num_frames),
            times=times,
        )

        def dense(head: DPTHead) -> Tensor:
            return self._run_dense_head(head, tokens, encoded, (height, width), dense_frames)

        said: dict[str, Any] = {}
        if "camera" in heads:
            camera_tokens = tokens[last][:, :, 0]
            if memory is None or memory.camera_cache == "per_iteration":
                stages = self.camera_head(camera_tokens, camera_patterns)
            else:
                stages = self._shared_cache_cameras(camera_tokens, memory)
            said["pose_enc"], said["pose_enc_list"] = stages[-1], tuple(stages)
        if "depth" in heads:
            out = dense(self.depth_head)
            said["depth"], said["depth_conf"] = out[..., :1].exp(), 1 + out[..., 1].exp()
        if "points" in heads:
            out = dense(self.point_head)
            xyz = out[..., :3]
            said["points"], said["points_conf"] = xyz.sign() * xyz.abs().expm1(), 1 + out[..., 3].exp()
        if "track" in heads:
            # The features channels first, as maps: (B, S, C, H/2, W/2).
            maps = dense(self.track_head.feature_extractor).movedim(-1, 2)
            stages, visibility, confidence = self.track_head(maps, query_points, memory.tracks if memory else None)
            said["tracks"], said["tracks_list"] = stages[-1], tuple(stages)
            said["visibility"], said["track_conf"] = visibility, confidence
        of_frames = None if dense_frames is None else tuple(dense_frames)
        return Prediction((height, width), **said, dense_frames=of_frames, pose=self.pose)

    def _run_dense_head(
        self,
        head: DPTHead,
        tokens: dict[int, Tensor],
        encoded: Tensor,
        image_size: tuple[int, int],
        dense_frames: Sequence[int] | None,
    ) -> Tensor:
        """A dense head's map of all frames or of some, a few frames at a time. (B, S, H, W, channels)"""
        batch = len(encoded)
        levels = [of_frames(tokens[layer], dense_frames) for layer in self.dpt_layers]
        levels = [level[:, :, self.aggregator.num_special_tokens :].flatten(0, 1) for level in levels]
        num_tokens = len(levels)
        if len(head.skips):
            levels += self.aggregator.fine_maps(of_frames(encoded, dense_frames).flatten(0, 1), image_size)
        chunks = zip(*(level.split(self.frames_per_chunk) for level in levels), strict=True)
        maps = torch.cat([head(chunk[:num_tokens], image_size, chunk[num_tokens:]) for chunk in chunks])
        return maps.movedim(1, -1).unflatten(0, (batch, -1))

    def _shared_cache_cameras(self, camera_tokens: Tensor, memory: StreamMemory | BatchedMemory) -> list[Tensor]:
        """As the published streaming code does it: the refinements share one cache, so they go frame by frame."""
        per_frame = [
            self.camera_head(token, [patterns])
            for token, patterns in zip(
                camera_tokens.split(1, 1), memory.shared_camera_patterns(camera_tokens.shape[1]), strict=True
            )
        ]
        return [torch.cat(stage, 1) for stage in zip(*per_frame, strict=True)]

    def validate_inputs(
        self,
        images: Tensor,
        heads: Collection[str] | None = None,
        query_points: Tensor | None = None,
        memory: StreamMemory | BatchedMemory | None = None,
        attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None,
    ) -> tuple[str, ...]:
        """Refuse at the door what cannot be computed; answer the heads to run."""
        if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point of shape (B, S, 3, H, W), not {images.dtype} {tuple(images.shape)}"
            )
        batch, num_frames, _, height, width = images.shape
        if not num_frames or not batch:
            raise ValueError("there must be at least one stream and one frame")
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise ValueError(
                f"images are {height}×{width} (height × width), but both must be multiples of {self.patch_size}: "
                "resize them, e.g. with load_frames"
            )
        tracking = query_points is not None or (memory is not None and memory.is_tracking)
        if heads is None:
            heads = tuple(head for head in self.heads if head != "track" or tracking)
        validate_heads(heads, self.heads, "this network was built with")
        if "track" in heads and not tracking:
            raise ValueError("the track head needs query_points: (x, y) in pixels of the first frame, (B, K, 2)")
        if query_points is not None:
            if "track" not in heads:
                raise ValueError(f"query_points were given but the heads to run are {', '.join(heads)}: add 'track'")
            if query_points.ndim != 3 or query_points.shape[0] != batch or query_points.shape[2] != 2:
                raise ValueError(f"query_points must be ({batch}, K, 2), not {tuple(query_points.shape)}")
        if attended_frames is not None and (memory is not None or not self.causal):
            raise ValueError("`attended_frames` is for a whole sequence (no memory) of a network with causal=True")
        if memory is not None:
            if not self.causal:
                raise ValueError("a network that sees all frames (causal=False) cannot go on with a memory")
            if query_points is not None and self.scale_frames:
                raise ValueError(
                    "query_points: expected none in the stream of a network with scale_frames, whose first frames are "
                    "computed several times. Track points in a whole sequence, without memory."
                )
            memory.validate_inputs(batch, (height, width), heads)
        return tuple(heads)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options) -> VGGT:
        """A network with weights from a folder, a file or the Hugging Face Hub; see `load_model`."""
        from streamvggt.model.weights import load_model

        return load_model(name_or_path, causal=cls._default_causal, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, which `from_pretrained` and the Hub understand."""
        from streamvggt.model.weights import save_model

        save_model(self, folder)

    _default_causal: bool = False
    _no_split_modules = ("Block",)
    """What FSDP and device maps of Hugging Face take as units: the dense heads read weights of their parts directly."""


class StreamVGGT(VGGT):
    """The causal network: a frame sees itself and the past, so it can stream."""

    _default_causal: bool = True

    def __init__(self, **options):
        """Takes what `VGGT` takes, but for `causal`."""
        super().__init__(causal=True, **options)


def with_special_tokens(
    attended_frames: Sequence[Sequence[int | RetainedTokens]], num_special_tokens: int
) -> list[list[int | RetainedTokens]]:
    """Give the remnants of a list of visible frames the number of special tokens of a network."""
    return [
        [RetainedTokens(what.frame, num_special_tokens) if isinstance(what, RetainedTokens) else what for what in row]
        for row in attended_frames
    ]


def stored_before(attended_frames: Sequence[Sequence[int | RetainedTokens]], joint: int) -> Tensor:
    """Count earlier stored frames: those that the frame after them attends to, and all joint ones. (1, S)"""
    times = [0]
    for frame, row in enumerate(attended_frames[1:]):
        seen = {what.frame if isinstance(what, RetainedTokens) else what for what in row}
        times.append(times[-1] + (frame < joint or frame in seen))
    return torch.tensor([times])

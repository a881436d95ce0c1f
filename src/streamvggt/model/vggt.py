"""VGGT (arXiv 2503.11651) and StreamVGGT (arXiv 2507.11539).

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
    """Predict cameras, depth, points and tracks from images of a scene.

    `causal` selects the attention pattern of the global blocks and the camera trunk. False (VGGT): a frame attends to
    all frames. True (StreamVGGT): a frame attends to itself and earlier frames. A `StreamMemory` requires a causal
    network.

    Attributes:
        config: Fields of `VGGTConfig` as a dict. `save_pretrained` writes them to config.json.

    Reference: VGGT, arXiv 2503.11651. StreamVGGT, arXiv 2507.11539.
    """

    def __init__(
        self,
        *,
        layer_scale: float = 0.01,
        attention: str = "sdpa",
        activation_checkpointing: bool = False,
        **sizes,
    ):
        """Build the network with random weights.

        Args:
            layer_scale: Initial LayerScale factor of the frame, global and camera blocks.
            attention: Attention kernel: "sdpa", "math", or "flash" (flash-attn, half precision on CUDA).
            activation_checkpointing: Recompute block activations in the backward pass to save memory.
            sizes: Fields of `VGGTConfig` (default: the released 1.26 B network).

        Raises:
            ValueError: If a field is unknown, has the wrong type, is out of bounds or contradicts another.
            ImportError: If `attention` is "flash" and flash-attn is not installed.
        """
        super().__init__()
        config = VGGTConfig.of(sizes)
        self.config: dict[str, Any] = config.as_dict()
        self.causal = config.causal
        self.patch_size = config.patch_size
        self.dpt_layers = config.dpt_layers
        self.scale_frames, self.pose = config.scale_frames, config.pose
        self.frames_per_chunk = 8
        """Maximum number of frames per call of a dense head, to limit its memory."""

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
        """Names of the heads in this network."""
        return self.config["heads"]

    def new_memory(
        self,
        policy: EvictionPolicy | None = None,
        *,
        camera_cache: CameraCacheMode = "per_iteration",
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
    ) -> StreamMemory:
        """Create an empty memory for one stream, or for a batch of streams with synchronized frames.

        Args:
            policy: Eviction policy. None: keep all frames.
            camera_cache: KV caches of the camera head. "per_iteration": one per iteration, equal to the full causal
                pass. "shared": one for all iterations, equal to the reference implementation.
            track_window: Number of latest frames kept for tracking, in addition to the query frame.
            kv_cache_dtype: "auto": the dtype of the keys and values. "int8": one byte per value and one scale per
                token and head, about half the size of bfloat16.

        Raises:
            ValueError: If the network is not causal, or does not support the policy or the cache mode.
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
        """Run the network on a full sequence or on the next frames of a stream.

        If an exception is raised, `memory` is restored to its state before the call.

        Args:
            images: RGB in [0, 1]. H and W are multiples of the patch size. (B, S, 3, H, W)
            heads: Heads to run. None: all heads of the network; the track head only if there are points to track.
            query_points: Points to track, (x, y) in pixels of the first frame in `images`. With a memory, tracking
                continues in later calls, and new points replace the previous ones. (B, K, 2)
            memory: Memory of the streams, updated in place. `BatchedMemory`: one memory per stream. None: `images` is
                the full sequence. No gradient flows through a memory.
            attended_frames: Frames that each frame attends to, including itself, as from
                `EvictionPolicy.attended_frames`. Requires causal=True and no memory. None: all frames up to itself.
            patch_tokens: Output of `aggregator.encode_patches(images)`, to reuse the output of a shared frozen
                encoder. None: run the encoder. (B, S, h·w, C + M)
            dense_frames: Indices of the frames to predict depth and points for, to save time in training. Tracks use
                all frames. Requires no memory. None: all frames.

        Returns:
            The prediction for the S frames of `images`.

        Raises:
            ValueError: If the images do not match the network or the memory, or a requested head is missing.
        """
        heads = self.validate_inputs(images, heads, query_points, memory, attended_frames, dense_frames)
        if memory is None:
            # Training reuses few sequence lengths, so the plans of cuDNN attention are reused.
            changes = self.causal and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
            with without_cudnn if changes else nullcontext():
                return self._predict(images, heads, query_points, None, attended_frames, patch_tokens, dense_frames)
        # Disable inference mode even if the caller enabled it, because cached tensors outlive the call.
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
        """Run the first frames of a stream in one joint step. Frames from earlier calls are computed again."""
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

        def dense(head: DPTHead, frames: Sequence[int] | None = dense_frames) -> Tensor:
            return self._run_dense_head(head, tokens, encoded, (height, width), frames)

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
            # Feature maps of all frames, channels first: (B, S, C, H/2, W/2). Queries are points of the first frame.
            maps = dense(self.track_head.feature_extractor, None).movedim(-1, 2)
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
        """Run a dense head on all or selected frames, `frames_per_chunk` at a time. (B, S, H, W, channels)"""
        batch = len(encoded)
        levels = [of_frames(tokens[layer], dense_frames) for layer in self.dpt_layers]
        levels = [level[:, :, self.aggregator.num_special_tokens :].flatten(0, 1) for level in levels]
        num_tokens = len(levels)
        if len(head.skips):
            levels += self.aggregator.fine_maps(of_frames(encoded, dense_frames).flatten(0, 1), image_size)
        chunks = zip(*(level.split(self.frames_per_chunk) for level in levels), strict=True)
        maps = [head(chunk[:num_tokens], image_size, chunk[num_tokens:]) for chunk in chunks]
        maps = torch.cat(maps) if len(maps) > 1 else maps[0]
        return maps.movedim(1, -1).unflatten(0, (batch, -1))

    def _shared_cache_cameras(self, camera_tokens: Tensor, memory: StreamMemory | BatchedMemory) -> list[Tensor]:
        """Run the camera head frame by frame with one cache for all iterations, as the reference implementation."""
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
        dense_frames: Sequence[int] | None = None,
    ) -> tuple[str, ...]:
        """Check the arguments of `forward`.

        Returns:
            The heads to run.

        Raises:
            ValueError: If the arguments do not match the network, the memory or each other.
        """
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
        if dense_frames is not None:
            if memory is not None:
                raise ValueError("dense_frames: expected None with a memory. Select frames of the prediction instead.")
            if not dense_frames or not set(dense_frames) <= set(range(num_frames)):
                raise ValueError(f"dense_frames: expected indices from 0 to {num_frames - 1}, got {[*dense_frames]}.")
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
        """Load a network from a folder, a file or the Hugging Face Hub. See `load_model` for the arguments."""
        from streamvggt.model.weights import load_model

        return load_model(name_or_path, causal=cls._default_causal, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors for `from_pretrained` and the Hugging Face Hub."""
        from streamvggt.model.weights import save_model

        save_model(self, folder)

    _default_causal: bool = False
    _no_split_modules = ("Block",)
    """Units for FSDP and Hugging Face device maps. Not the dense heads, which read weights of their submodules."""


class StreamVGGT(VGGT):
    """Causal VGGT: a frame attends to itself and earlier frames. Supports streaming.

    Reference: StreamVGGT, arXiv 2507.11539.
    """

    _default_causal: bool = True

    def __init__(self, **options):
        """Build the network. Accepts the arguments of `VGGT` except `causal`."""
        super().__init__(causal=True, **options)


def with_special_tokens(
    attended_frames: Sequence[Sequence[int | RetainedTokens]], num_special_tokens: int
) -> list[list[int | RetainedTokens]]:
    """Set the token counts of the retained tokens in `attended_frames` to `num_special_tokens`."""
    return [
        [RetainedTokens(what.frame, num_special_tokens) if isinstance(what, RetainedTokens) else what for what in row]
        for row in attended_frames
    ]


def stored_before(attended_frames: Sequence[Sequence[int | RetainedTokens]], joint: int) -> Tensor:
    """Count the earlier stored frames of each frame.

    A frame is stored if the next frame attends to it, or if it is one of the first `joint` frames.

    Returns:
        Counts. (1, S)
    """
    times = [0]
    for frame, row in enumerate(attended_frames[1:]):
        seen = {what.frame if isinstance(what, RetainedTokens) else what for what in row}
        times.append(times[-1] + (frame < joint or frame in seen))
    return torch.tensor([times])

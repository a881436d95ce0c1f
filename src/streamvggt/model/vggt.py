"""VGGT (arXiv 2503.11651) and StreamVGGT (arXiv 2507.11539).

B batch · S frames · P tokens of a frame · C channels · H×W pixels · h×w patches · K query points.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.layers.attention import RetainedTokens, without_cudnn
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.config import VGGTConfig
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.full_sequence import FullSequence
from streamvggt.model.heads import HEADS
from streamvggt.model.heads.context import HeadContext
from streamvggt.model.inputs import validate_sequence, validate_step
from streamvggt.model.memory import KVCacheMemory
from streamvggt.model.pretrained import PretrainedNetwork
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.model.streaming import run_steps
from streamvggt.prediction import Prediction, of_frames


class VGGT(PretrainedNetwork):
    """Predict cameras, depth, points and tracks from images of a scene.

    `causal` selects the attention pattern of the global blocks and the camera trunk. False (VGGT): a frame attends to
    all frames. True (StreamVGGT): a frame attends to itself and earlier frames. A `StreamMemory` requires a causal
    network.

    Attributes:
        config: Sizes and options. `save_pretrained` writes them to config.json.

    Reference: VGGT, arXiv 2503.11651. StreamVGGT, arXiv 2507.11539.
    """

    frames_per_chunk = 8
    """Maximum number of frames per call of a dense head, to limit its memory."""

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
        self.config = config = VGGTConfig.of(sizes)
        self.aggregator = Aggregator.from_config(
            config, layer_scale=layer_scale, attention=attention, activation_checkpointing=activation_checkpointing
        )
        for name, entry in HEADS.items():
            if name in config.heads:
                head = entry.head.from_config(config, layer_scale=layer_scale, attention=attention)
                self.add_module(entry.module, head)

    def new_memory(
        self,
        policy: EvictionPolicy | None = None,
        *,
        camera_cache: CameraCacheMode = "per_iteration",
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
    ) -> KVCacheMemory:
        """Create an empty memory for one stream, or for a batch of streams with synchronized frames.

        Args:
            policy: Eviction policy. None: keep all frames.
            camera_cache: KV caches of the camera head. "per_iteration": one per iteration, equal to the full causal
                pass. "shared": one for all iterations, equal to the reference implementation.
            track_window: Number of latest frames kept for tracking, in addition to the query frame, at least 1.
            kv_cache_dtype: "auto": the dtype of the keys and values. "int8": one byte per value and one scale per
                token and head, about half the size of bfloat16.

        Raises:
            ValueError: If the network is not causal, does not support the policy or the cache mode, or `track_window`
                is below 1.
        """
        if not self.causal:
            raise ValueError(
                "Streaming requires a causal network, got causal=False. Use StreamVGGT, or load the weights with "
                "causal=True."
            )
        return KVCacheMemory(
            num_layers=self.config.depth,
            camera_blocks=self.config.camera_trunk_depth if "camera" in self.heads else 0,
            camera_iterations=self.config.camera_iterations,
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
        attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None,
        patch_tokens: Tensor | None = None,
        dense_frames: Sequence[int] | None = None,
    ) -> Prediction:
        """Run the network on a full sequence.

        Args:
            images: RGB in [0, 1]. H and W are multiples of the patch size. (B, S, 3, H, W)
            heads: Heads to run. None: all heads of the network; the track head only if there are points to track.
            query_points: Points to track, (x, y) in pixels of the first frame. (B, K, 2)
            attended_frames: Frames that each frame attends to, including itself, as from
                `EvictionPolicy.attended_frames`. Requires causal=True. None: all frames up to itself.
            patch_tokens: Output of `aggregator.encode_patches(images)`, to reuse the output of a shared frozen
                encoder. None: run the encoder. (B, S, h·w, C + M)
            dense_frames: Indices of the frames to predict maps (depth, points) for, to save time in training. Tracks
                use all frames. None: all frames.

        Returns:
            The prediction for the S frames.

        Raises:
            ValueError: If the images do not match the network, or a requested head is missing.
        """
        heads = validate_sequence(self, images, heads, query_points, attended_frames, dense_frames)
        num_special_tokens = self.aggregator.num_special_tokens
        sequence = FullSequence.of(self.config, images.shape[1], num_special_tokens, attended_frames)
        # Training reuses few sequence lengths, so the plans of cuDNN attention are reused.
        changes = self.causal and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        with without_cudnn if changes else nullcontext():
            return self.predict(images, heads, sequence, query_points, patch_tokens, dense_frames)

    def step(
        self,
        images: Tensor,
        memory: StreamMemory,
        *,
        heads: Collection[str] | None = None,
        query_points: Tensor | None = None,
        patch_tokens: Tensor | None = None,
    ) -> Prediction:
        """Run the network on the next frames of a stream. No gradient flows through the memory.

        If an exception is raised, `memory` is restored to its state before the call.

        Args:
            images: RGB in [0, 1]. H and W are multiples of the patch size. (B, S, 3, H, W)
            memory: Memory of the streams, updated in place. `BatchedMemory`: one memory per stream.
            heads: As in `forward`.
            query_points: Points to track, (x, y) in pixels of the first frame in `images`. Tracking continues in later
                steps, and new points replace the previous ones. (B, K, 2)
            patch_tokens: As in `forward`.

        Returns:
            The prediction for the S frames of `images`.

        Raises:
            ValueError: If the images do not match the network or the memory, or a requested head is missing.
        """
        heads = validate_step(self, images, memory, heads, query_points)
        encode = self.aggregator.encode_patches
        return run_steps(self.predict, encode, images, memory, heads, query_points, patch_tokens)

    def predict(
        self,
        images: Tensor,
        heads: Collection[str],
        past: StreamMemory | FullSequence,
        query_points: Tensor | None = None,
        patch_tokens: Tensor | None = None,
        dense_frames: Sequence[int] | None = None,
    ) -> Prediction:
        """Encode the patches, run the aggregator, and run the heads on the tokens of their layers.

        Takes checked arguments. Use `forward` or `step`.
        """
        encoded = self.aggregator.encode_patches(images) if patch_tokens is None else patch_tokens
        num_frames, image_size = encoded.shape[1], tuple(images.shape[-2:])
        layers = {name: HEADS[name].layers(self.config) for name in heads}
        tokens = self.aggregator(
            encoded,
            (image_size[0] // self.patch_size, image_size[1] // self.patch_size),
            patterns=past.layer_patterns(num_frames),
            layers={layer for read in layers.values() for layer in read},
            is_first_frame=past.is_empty,
            mlp_hook=past.mlp_hook(num_frames),
            times=past.times(num_frames),
        )

        def fine_maps(frames: Sequence[int] | None) -> list[Tensor]:
            return self.aggregator.fine_maps(of_frames(encoded, frames).flatten(0, 1), image_size)

        context = HeadContext(
            image_size=image_size,
            num_special_tokens=self.aggregator.num_special_tokens,
            past=past,
            query_points=query_points,
            dense_frames=dense_frames,
            fine_maps=fine_maps,
            frames_per_chunk=self.frames_per_chunk,
        )
        outputs = {}
        for name in HEADS:
            if name in heads:
                head = getattr(self, HEADS[name].module)
                outputs |= head.predict([tokens[layer] for layer in layers[name]], context)
        return Prediction.of(image_size, outputs, dense_frames=dense_frames, pose=self.config.pose)

    @staticmethod
    def build(arguments: dict[str, Any]) -> VGGT:
        """Build a `StreamVGGT` if `arguments["causal"]`, otherwise a `VGGT`."""
        sizes = {name: value for name, value in arguments.items() if name != "causal"}
        return StreamVGGT(**sizes) if arguments["causal"] else VGGT(causal=False, **sizes)

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

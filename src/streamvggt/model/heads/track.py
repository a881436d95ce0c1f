"""Track head: a feature map per frame and a point tracker on the maps (VGGT, arXiv 2503.11651, Sec. 3.3).

B batch · S frames · K query points · C channels · h×w cells of the feature map at half the image resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from streamvggt.model.heads.context import HeadContext, run_dense
from streamvggt.model.heads.dpt import DPTHead
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.model.tracking.tracker import Tracker

MAP_STRIDE = 2  # pixels per cell of the feature map


class TrackHead(nn.Module):
    """Track query points through the frames.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.3. VGGSfM, arXiv 2312.04563.
    """

    def __init__(
        self,
        dim: int = 2048,
        *,
        patch_size: int = 14,
        dpt_channels: Sequence[int] = (256, 512, 1024, 1024),
        features: int = 128,
        **tracker,
    ):
        super().__init__()
        self.feature_extractor = DPTHead(
            dim, patch_size=patch_size, features=features, channels=dpt_channels, downscale=MAP_STRIDE
        )
        self.tracker = Tracker(channels=features, **tracker)

    @classmethod
    def from_config(cls, config: Any, **_) -> TrackHead:
        """Build the head of a `VGGTConfig`."""
        return cls(
            2 * config.embed_dim,
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

    def predict(self, tokens: Sequence[Tensor], context: HeadContext) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Track the query points from the frame tokens of four layers, (B, S, P, C) each."""
        # Feature maps of all frames, because the queries are points of the first frame.
        maps = run_dense(self.feature_extractor, tokens, context, None)
        maps = maps.movedim(-1, 2)  # (B, S, channels, H/2, W/2)
        stages, visibility, confidence = self(maps, context.query_points, context.past.tracks)
        return {
            "tracks": stages[-1],
            "tracks_list": tuple(stages),
            "visibility": visibility,
            "track_conf": confidence,
        }

    def forward(
        self, maps: Tensor, queries: Tensor | None, memory: TrackMemory | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track points.

        Args:
            maps: Output of `feature_extractor`. (B, S, C, h, w)
            queries: Query points (x, y) in pixels of the first of these frames. None: the points in `memory`. (B, K, 2)
            memory: Tracking memory of a stream. None: the frames are the full sequence.

        Returns:
            tracks: (x, y) in pixels after each iteration. (B, S, K, 2) each
            visibility: Probability in [0, 1]. (B, S, K)
            confidence: Confidence in [0, 1]. (B, S, K)
        """
        # Run in the dtype of the weights, also under autocast, because the tracker embeds pixels as up to 1000 radians.
        with torch.autocast(maps.device.type, enabled=False):
            return self._run_tracker(self.tracker.normalize(maps), queries, memory)

    def _run_tracker(
        self, maps: Tensor, queries: Tensor | None, memory: TrackMemory | None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        if memory is None:
            stages, visibility, confidence = self.tracker(maps, queries / MAP_STRIDE)
        else:
            if queries is not None:
                memory.start(queries.to(maps.dtype) / MAP_STRIDE)
            steps = [memory.step(self.tracker, new_map) for new_map in maps.unbind(1)]
            stages = [torch.cat(stage, 1) for stage in zip(*(step[0] for step in steps), strict=True)]
            visibility = torch.cat([step[1] for step in steps], 1)
            confidence = torch.cat([step[2] for step in steps], 1)
        return [stage * MAP_STRIDE for stage in stages], visibility, confidence

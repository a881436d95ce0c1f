"""Video depth: each video is one stream, aligned with one scale (and shift) for all frames.

launch.py       <folder>/<scene>/frame_%04d.npy    float32, size of the processed image; numbered in order
eval_depth.py   <folder>/result_<alignment>.json   eight metrics, pixel-weighted means over videos
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from streamvggt.datasets._depth_set import DepthSet
from streamvggt.evaluation.arguments import VIDEO_ALIGNMENTS, VIDEO_DEPTH
from streamvggt.evaluation.depth_alignment import ALIGNMENTS
from streamvggt.evaluation.depth_metrics import score_depth
from streamvggt.evaluation.depth_protocol import DepthProtocol, EvalSequence, Scores, load_pair
from streamvggt.evaluation.depth_sets import published
from streamvggt.evaluation.parallel import thread_map


class VideoDepth(DepthProtocol):
    name = "video_depth"
    command_line = VIDEO_DEPTH
    alignments = VIDEO_ALIGNMENTS

    def clips(self, reader: DepthSet, scene: str, folder: Path, stride: int) -> list[EvalSequence]:
        frames = reader.frames(scene)[::stride]
        return [EvalSequence(scene, [folder / scene / f"frame_{i:04d}.npy" for i in range(len(frames))], scene, frames)]

    def score_clips(
        self, reader: DepthSet, clips: Sequence[EvalSequence], alignments: Sequence[str]
    ) -> dict[str, list[Scores]]:
        scored: dict[str, list[Scores]] = {alignment: [] for alignment in alignments}
        for clip in clips:
            predicted, true = self._read(reader, clip)
            for alignment in alignments:
                result = score_depth(predicted, true, ALIGNMENTS[alignment], published(reader).rules)
                scored[alignment].append((result.numbers, result.num_valid))
        return scored

    def result_name(self, alignment: str) -> str:
        return f"result_{alignment}.json"

    @staticmethod
    def _read(reader: DepthSet, clip: EvalSequence) -> tuple[torch.Tensor, torch.Tensor]:
        """Read all predictions and ground-truth depth maps of a video. (T, H, W) each"""

        def read(item: tuple[str, Path]) -> tuple[torch.Tensor, torch.Tensor]:
            return load_pair(reader, clip.scene, *item)

        frames = list(zip(clip.frames, clip.paths, strict=True))
        bar = tqdm(thread_map(read, frames), clip.scene, len(frames), leave=False, unit="frame", disable=None)
        pairs = list(bar)
        predicted, true = zip(*pairs, strict=True)
        if len({tuple(depth.shape) for depth in true}) > 1:
            raise ValueError(f"{reader.name}, {clip.scene}: the ground-truth depth changes its size within the video")
        return torch.stack(predicted), torch.stack(true)

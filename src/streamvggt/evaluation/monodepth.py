"""Monocular depth: each image is one sequence, aligned by the median.

launch.py         <folder>/<scene>/<image>depth.npy   float32, size of the processed image
eval_metrics.py   <folder>/metric.json                eight metrics, pixel-weighted means over images
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.datasets._depth_set import DepthSet
from streamvggt.evaluation.arguments import MONODEPTH
from streamvggt.evaluation.depth_alignment import ALIGNMENTS
from streamvggt.evaluation.depth_metrics import score_depth
from streamvggt.evaluation.depth_protocol import DepthProtocol, EvalSequence, Scores, load_pair
from streamvggt.evaluation.depth_sets import published
from streamvggt.evaluation.parallel import thread_map
from streamvggt.model.threads import single_threaded_torch


class MonoDepth(DepthProtocol):
    name = "monodepth"
    command_line = MONODEPTH
    unit = "image"
    alignments = ("median",)

    def clips(self, reader: DepthSet, scene: str, folder: Path, stride: int) -> list[EvalSequence]:
        place = folder if reader.is_flat else folder / scene
        return [
            EvalSequence(f"{scene}/{frame}", [place / f"{frame}depth.npy"], scene, [frame])
            for frame in reader.frames(scene)[::stride]
        ]

    def score_clips(
        self, reader: DepthSet, clips: Sequence[EvalSequence], alignments: Sequence[str]
    ) -> dict[str, list[Scores]]:
        (alignment,) = alignments

        def score_image(clip: EvalSequence) -> Scores:
            predicted, true = load_pair(reader, clip.scene, clip.frames[0], clip.paths[0])
            result = score_depth(predicted, true, ALIGNMENTS[alignment], published(reader).rules)
            return result.numbers, result.num_valid

        with single_threaded_torch():
            return {alignment: list(thread_map(score_image, clips))}

    def result_name(self, alignment: str) -> str:
        return "metric.json"

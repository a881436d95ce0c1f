"""Bundle adjustment of predicted poses, for the evaluation of relative poses; needs pycolmap."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from streamvggt.evaluation.bundle_adjustment import adjust
from streamvggt.evaluation.network import Evaluated
from streamvggt.evaluation.tracks import choose_provider
from streamvggt.prediction import Prediction


class PoseRefinement:
    """Bundle adjustment of a sequence's poses; where it fails, the network's are kept."""

    def __init__(self, network: Evaluated, tracks: str):
        """
        Raises:
            ValueError: there are no such tracks.
        """
        self._provider = choose_provider(tracks, network.model)

    def __call__(self, images: Tensor, prediction: Prediction) -> dict[str, np.ndarray]:
        """Poses that count, (S, 3, 4), and why they are not refined ("" if they are)."""
        cameras = prediction.cameras()
        first = type(cameras)(cameras.cam_from_world[0], cameras.intrinsics[0])
        try:
            tracks = self._provider(images, first)
            poses = adjust(first, tracks, tuple(images.shape[-2:]), prediction.depth[0, ..., 0].float())
            return {"refined_cam_from_world": poses.numpy(), "not_refined": np.array("")}
        except Exception as reason:  # whatever a solver or matcher raises: a sequence must not end the evaluation
            kept = first.cam_from_world.double().numpy()
            return {"refined_cam_from_world": kept, "not_refined": np.array(str(reason) or type(reason).__name__)}

"""Submaps of one stream in one world: start, align, restart and correct them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from streamvggt.geometry.similarity import Sim3
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.sliding_window import KeepAll
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, LoopVerification, detect_loop
from streamvggt.stream.submaps.loop_keyframes import LoopKeyframe, subsample
from streamvggt.stream.submaps.observation import FrameObservation, scene_scale
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.pose_graph import Edge
from streamvggt.stream.submaps.state import ActiveSubmap, SubmapState
from streamvggt.stream.submaps.statistics import SubmapEvent
from streamvggt.stream.submaps.submap_alignment import MAX_POINTS, SubmapAlignment, align_by_pose, align_submaps
from streamvggt.stream.submaps.submap_graph import SubmapGraph

POSE_ALIGNMENT_WEIGHT = 0.1
"""Weight of an alignment by a single camera in the pose graph. An alignment by points has weight 1."""
MAX_ALIGNMENT_RETRIES = 2
"""Restarts of a pending submap whose alignment is rejected, before it is aligned by pose."""


class SubmapChain:
    """Push frames to the submaps of a stream. The rules are described at `SubmapSession`.

    Args:
        model: Causal model.
        submaps: Length and overlap.
        policy: Eviction policy of each submap.
        detector: Failure checks.
        loop_closure: Loop detection. None disables it.
        session_options: Further arguments of the `StreamSession` of each submap.

    Attributes:
        state: State of the stream.
    """

    def __init__(
        self,
        model: VGGT,
        *,
        submaps: SubmapOptions,
        policy: EvictionPolicy,
        detector: FailureDetector,
        loop_closure: LoopClosureOptions | None,
        **session_options,
    ):
        self.model, self.submaps, self.policy = model, submaps, policy
        self.detector, self.loop_closure = detector, loop_closure
        self._session_options = session_options
        self._max_points = max(MAX_POINTS // submaps.overlap, 100)  # per frame
        self.device = next(model.parameters()).device
        self.state = self.new_state()

    def new_state(self) -> SubmapState:
        """Return the state of an empty stream."""
        graph = None if self.loop_closure is None else SubmapGraph()
        return SubmapState(self.new_submap(0), deque(maxlen=self.submaps.overlap), graph)

    def new_submap(self, start: int) -> ActiveSubmap:
        """Return an empty submap whose first frame has the index `start`."""
        return ActiveSubmap(self._new_session(self.policy), start, self.submaps.overlap, self._max_points)

    def _new_session(self, policy: EvictionPolicy) -> StreamSession:
        return StreamSession(self.model, policy=policy, **self._session_options)

    def load_verification(self, state: dict[str, Any]) -> LoopVerification:
        """Create a loop verification from its state."""
        return LoopVerification.from_state_dict(state, self._new_session(KeepAll()), self._max_points, self.device)

    def start_pending(self) -> None:
        """Start the next submap if the overlap with it begins at the next frame."""
        state = self.state
        if (
            state.pending is None
            and state.num_frames >= state.active.start + self.submaps.length - self.submaps.overlap
        ):
            state.pending = self.new_submap(state.num_frames)

    def push(
        self, image: Tensor, on_device: Tensor, predicted: tuple[Prediction, FrameObservation] | None = None
    ) -> Prediction:
        """Predict the next frame in the world of the stream.

        Args:
            image: RGB in [0, 1]. (3, H, W)
            on_device: `image` on the device of the model.
            predicted: Prediction and observation, if the active submap has already predicted the frame.

        Returns:
            Prediction with B = S = 1.
        """
        state = self.state
        is_keyframe = self.loop_closure is not None and state.num_frames % self.loop_closure.keyframe_interval == 0
        patch_tokens = self._encode(on_device) if state.pending or is_keyframe else None
        prediction, observation = predicted or state.active.push(on_device, patch_tokens)
        world = state.world
        failure = self.detector.check_frame(observation, state.active.observations)
        if failure and state.images and (state.num_frames >= state.next_check_frame or not observation.is_finite):
            prediction, observation, world = self._restart(on_device, prediction, observation, failure)
        if state.graph is not None:
            state.graph.assign_frame(state.num_frames, state.num_submaps - 1)
        if not observation.is_finite:
            state.pending = None
        else:
            state.active.observations.append(observation)
            state.images.append(image.detach().clone())
            if is_keyframe and self.loop_closure is not None:
                features = self.model.aggregator.patch_features(patch_tokens)
                keyframe = LoopKeyframe.create(state.num_frames, state.num_submaps - 1, features, image, observation)
                state.keyframes = subsample([*state.keyframes, keyframe], self.loop_closure.max_keyframes)
            if state.pending is not None:
                self._push_pending(on_device, patch_tokens)
        state.num_frames += 1
        return prediction if world is None else prediction.transform(world)

    def _push_pending(self, image: Tensor, patch_tokens: Tensor | None) -> None:
        """Push the frame to the pending submap, and activate that submap at the end of the overlap."""
        state, pending = self.state, self.state.pending
        assert pending is not None
        observations = pending.warm_up(image, patch_tokens)
        if not all(observation.is_finite for observation in observations):
            self._reject_alignment("not finite")
            return
        pending.observations.extend(observations)
        if len(pending.observations) < self.submaps.overlap:
            return
        alignment = align_submaps(pending.observations, state.active.observations)
        failure = self.detector.check_alignment(alignment)
        if failure and state.num_retries < MAX_ALIGNMENT_RETRIES and alignment.method == "points":
            self._reject_alignment(failure)
        else:
            self.activate(pending, alignment, failure)

    def _reject_alignment(self, reason: str) -> None:
        self.state.pending = None  # another pending submap starts with the next frame
        self.state.num_retries += 1
        self._record_restart(reason)

    def _restart(
        self, image: Tensor, prediction: Prediction, observation: FrameObservation, failure: str
    ) -> tuple[Prediction, FrameObservation, Sim3 | None]:
        """Predict a failed frame with a new submap that starts at the latest valid frames.

        If the frame is valid in the new submap, that one becomes active. Otherwise the old submap is kept.

        Returns:
            The prediction, the observation, and the world of both.
        """
        state = self.state
        restarted = self.new_submap(state.num_frames - len(state.images))
        restarted.replay(list(state.images))
        new_prediction, new_observation = restarted.push(image, None)
        state.next_check_frame = state.num_frames + self.submaps.overlap
        is_finite = all(replayed.is_finite for replayed in restarted.observations)
        if not is_finite or self.detector.check_frame(new_observation, restarted.observations):
            state.num_false_failures += 1
            return prediction, observation, state.world
        alignment = align_submaps(restarted.observations, state.active.observations)
        state.pending = None
        self._record_restart(failure)
        self.activate(restarted, alignment, self.detector.check_alignment(alignment))
        return new_prediction, new_observation, state.world

    def _record_restart(self, reason: str) -> None:
        self.state.num_restarts += 1
        self.state.restarts.append(SubmapEvent(self.state.num_frames, reason))

    def activate(self, submap: ActiveSubmap, alignment: SubmapAlignment, failure: str | None) -> None:
        """Continue with a submap whose latest observations are of the same frames as those of the active one."""
        state = self.state
        if failure:
            old_from_new = align_by_pose(submap.observations, state.active.observations)
            alignment = replace(alignment, old_from_new=old_from_new, method="pose", inlier_ratio=None, residual=None)
        if state.graph is not None:
            weight = POSE_ALIGNMENT_WEIGHT if alignment.method == "pose" else 1.0
            state.graph.add_submap(alignment.old_from_new, scene_scale(state.active.observations), weight)
            state.world = state.graph.worlds[-1]
        else:
            state.world = alignment.old_from_new if state.world is None else state.world @ alignment.old_from_new
        state.active, state.pending = submap, None
        state.last_alignment = alignment
        state.num_submaps += 1
        state.num_pose_alignments += alignment.method == "pose"
        state.num_retries = 0
        if state.verification is None:
            self.detect_loop(state.num_submaps - 2)

    def detect_loop(self, submap: int) -> None:
        """Start the verification of a loop if the submap resembles an earlier one."""
        if self.loop_closure is None:
            return
        ends = detect_loop(self.state.keyframes, submap, self.loop_closure, self.state.checked_pairs)
        if ends is not None:
            self.state.verification = LoopVerification(self._new_session(KeepAll()), *ends, self._max_points)

    def finish_loop(self) -> None:
        """Accept or reject the loop that has been verified."""
        state = self.state
        assert state.verification is not None and state.graph is not None and self.loop_closure is not None
        result = state.verification.verify(self.loop_closure, self.detector)
        state.checked_pairs.append(state.verification.submaps)
        state.verification = None
        if isinstance(result, Edge) and not state.graph.add_loop(result):
            result = "it contradicts the other loops"
        if isinstance(result, str):
            state.num_rejected_loops += 1
            state.rejected_loops.append(SubmapEvent(state.num_frames, result))
        elif state.num_submaps > 1:
            state.world = state.graph.worlds[-1]

    def _encode(self, image: Tensor) -> Tensor:
        """Return the encoder output, shared by both submaps. (1, 1, num_patches, C + M)"""
        with torch.inference_mode(False), torch.no_grad():
            return self.model.aggregator.encode_patches(image[None, None])

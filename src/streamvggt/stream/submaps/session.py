"""Split a long stream into overlapping submaps and align them to one world while the stream runs.

Reference: VGGT-Long (arXiv 2507.16443), which computes the submaps afterwards. Here each submap is a stream.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.frame import Frame
from streamvggt.geometry.similarity import Sim3
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction, cat
from streamvggt.stream.policies.sliding_window import KeepAll
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.session import StreamSession, one_at_a_time, to_image_tensor
from streamvggt.stream.state_file import loaded_state, save_state
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions, LoopVerification, detect_loop
from streamvggt.stream.submaps.loop_keyframes import LoopKeyframe, subsample
from streamvggt.stream.submaps.observation import FrameObservation, scene_scale
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.pose_graph import Edge
from streamvggt.stream.submaps.state import ActiveSubmap, SubmapState
from streamvggt.stream.submaps.statistics import SubmapEvent, SubmapStatistics
from streamvggt.stream.submaps.submap_alignment import MAX_POINTS, SubmapAlignment, align_by_pose, align_submaps
from streamvggt.stream.submaps.submap_graph import Correction, SubmapGraph
from streamvggt.stream.timing import MAX_TIMINGS, Timer, timing_percentiles
from streamvggt.transfer import current, uploaded

POSE_ALIGNMENT_WEIGHT = 0.1
"""Weight of an alignment by a single camera in the pose graph. An alignment by points has weight 1."""
MAX_ALIGNMENT_RETRIES = 2
"""Restarts of a pending submap whose alignment is rejected, before it is aligned by pose."""


class SubmapSession:
    """A `StreamSession` for streams that are longer than the sequence length the model was trained for.

        session = SubmapSession(model, submaps=SubmapOptions(60, 15))
        for frame in load_frames("drive.mp4"):
            prediction = session.push(frame)

    All predictions are in the world of the first submap. Every `length - overlap` frames a new submap starts. It
    receives the frames of the overlap together with the active submap. When the overlap is complete, a robust
    similarity of its points (`align_submaps`) places the new submap in the world, and the new submap becomes active.
    A frame costs at most two steps of the network. The encoder runs once per frame.

    If a frame fails the checks of `FailureDetector`, the submap is restarted from the latest valid frames, at the cost
    of `overlap + 1` steps. If the alignment of a pending submap is rejected, another one starts with the next frame.
    After `MAX_ALIGNMENT_RETRIES` restarts it is aligned by the camera of the last common frame.

    With `loop_closure`, keyframes are kept. If a submap resembles an earlier one, the network verifies keyframes of
    both together, one per frame of the stream. An accepted loop moves all submaps. Later predictions are in the
    corrected world; `corrections` returns the motion of the earlier ones.

    Memory is bounded: the memories of at most two submaps, the images and points of `overlap` frames, and the
    keyframes. A failed push changes nothing. Calls from two threads at once are refused, as in `StreamSession`.

    Args:
        model: Causal model.
        submaps: Length and overlap.
        policy: Eviction policy of each submap. None keeps all frames, or what the released model keeps.
        camera_cache: As for `StreamSession`.
        kv_cache_dtype: As for `StreamSession`.
        heads: Heads to run. None runs all except the track head.
        detector: Failure checks.
        loop_closure: Loop detection. None disables it.

    Raises:
        ValueError: If the model cannot stream, or `heads` does not contain the camera head.
    """

    def __init__(
        self,
        model: VGGT,
        *,
        submaps: SubmapOptions | None = None,
        policy: EvictionPolicy | None = None,
        camera_cache: CameraCacheMode = "per_iteration",
        kv_cache_dtype: KVCacheDtype = "auto",
        heads: Collection[str] | None = None,
        detector: FailureDetector | None = None,
        loop_closure: LoopClosureOptions | None = None,
    ):
        self.model = model
        self.submaps = submaps or SubmapOptions()
        self.policy = policy or published_policy(model)
        self.heads = tuple(head for head in model.heads if head != "track") if heads is None else heads
        if "camera" not in self.heads:
            raise ValueError(f"heads: submaps are aligned by cameras, got {', '.join(self.heads)}. Add camera.")
        self.detector = detector or FailureDetector()
        self.loop_closure = loop_closure
        self._camera_cache: CameraCacheMode = camera_cache
        self._kv_cache_dtype: KVCacheDtype = kv_cache_dtype
        self._max_points = max(MAX_POINTS // self.submaps.overlap, 100)  # per frame
        self._device = next(model.parameters()).device
        self._in_use = Lock()
        self._start()

    @one_at_a_time
    def reset(self) -> None:
        """Start a new stream with the next frame."""
        self._start()

    def _start(self) -> None:
        self._state = self._new_state()
        self.times: deque[Timer] = deque(maxlen=MAX_TIMINGS)

    @property
    def num_frames(self) -> int:
        """Frames pushed."""
        return self._state.num_frames

    @property
    def num_bytes(self) -> int:
        """Size of the memories, and of the data to restart and align submaps, in bytes."""
        return self._state.num_bytes

    @one_at_a_time
    def push(self, frame: Frame | Tensor) -> Prediction:
        """Predict the next frame in the world of the stream.

        Args:
            frame: A Frame, or RGB in [0, 1] of shape (3, H, W).

        Returns:
            Prediction with B = S = 1 on the model's device.

        Raises:
            ValueError: If the frame does not fit the stream, for example because its size changed.
            RuntimeError: If another call of this session is running.
        """
        image = to_image_tensor(frame)
        if image.ndim != 3:
            raise ValueError(f"frame: expected (3, H, W), got {tuple(image.shape)}. Submaps take one stream.")
        state, submaps = self._state, self.submaps
        with current(self._device), state.transaction():
            timer = Timer(self._device)
            if state.pending is None and state.num_frames >= state.active.start + submaps.length - submaps.overlap:
                state.pending = self._new_submap(state.num_frames)
            prediction = self._push(image)
            state.num_frames += 1
            if state.verification is not None and state.verification.step():
                self._finish_loop()
            timer.stop()
            self.times.append(timer)
        return prediction

    @one_at_a_time
    def start(self, frames: Sequence[Frame | Tensor]) -> Prediction:
        """Predict the first frames of a stream in one joint step, see `StreamSession.start`.

        Args:
            frames: As for `push`, at most `overlap` frames.

        Raises:
            ValueError: If the stream has already started, or the number or size of the frames is wrong.
        """
        state = self._state
        if state.num_frames or not 0 < len(frames) <= self.submaps.overlap:
            raise ValueError(
                f"start: expected the first 1 to {self.submaps.overlap} frames of a stream, got {len(frames)} after "
                f"{state.num_frames}."
            )
        images = [to_image_tensor(frame) for frame in frames]
        with state.transaction():
            timer = Timer(self._device)
            predictions = []
            for image, predicted in zip(images, state.active.push_first(images), strict=True):
                predictions.append(self._push(image, predicted))
                state.num_frames += 1
            timer.stop()
            self.times.append(timer)
        return cat(predictions)

    def _push(self, image: Tensor, predicted: tuple[Prediction, FrameObservation] | None = None) -> Prediction:
        """Process the next frame. `predicted` is given if the active submap has already predicted it."""
        state = self._state
        is_keyframe = self.loop_closure is not None and state.num_frames % self.loop_closure.keyframe_interval == 0
        on_device = uploaded(image, self._device)
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
                keyframe = LoopKeyframe.create(
                    state.num_frames, state.num_submaps - 1, patch_tokens, image, observation
                )
                state.keyframes = subsample([*state.keyframes, keyframe], self.loop_closure.max_keyframes)
            if state.pending is not None:
                self._push_pending(on_device, patch_tokens)
        return prediction if world is None else prediction.transform(world)

    def _push_pending(self, image: Tensor, patch_tokens: Tensor | None) -> None:
        """Push the frame to the pending submap, and activate that submap at the end of the overlap."""
        state, pending = self._state, self._state.pending
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
            self._activate(pending, alignment, failure)

    def _reject_alignment(self, reason: str) -> None:
        self._state.pending = None  # another pending submap starts with the next frame
        self._state.num_retries += 1
        self._record_restart(reason)

    def _restart(
        self, image: Tensor, prediction: Prediction, observation: FrameObservation, failure: str
    ) -> tuple[Prediction, FrameObservation, Sim3 | None]:
        """Predict a failed frame with a new submap that starts at the latest valid frames.

        If the frame is valid in the new submap, that one becomes active. Otherwise the old submap is kept.

        Returns:
            The prediction, the observation, and the world of both.
        """
        state = self._state
        restarted = self._new_submap(state.num_frames - len(state.images))
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
        self._activate(restarted, alignment, self.detector.check_alignment(alignment))
        return new_prediction, new_observation, state.world

    def _record_restart(self, reason: str) -> None:
        self._state.num_restarts += 1
        self._state.restarts.append(SubmapEvent(self._state.num_frames, reason))

    def _activate(self, submap: ActiveSubmap, alignment: SubmapAlignment, failure: str | None) -> None:
        """Continue with a submap whose latest observations are of the same frames as those of the active one."""
        state = self._state
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
            self._detect_loop(state.num_submaps - 2)

    def _detect_loop(self, submap: int) -> None:
        """Start the verification of a loop if the submap resembles an earlier one."""
        if self.loop_closure is None:
            return
        ends = detect_loop(self._state.keyframes, submap, self.loop_closure, self._state.checked_pairs)
        if ends is not None:
            self._state.verification = LoopVerification(self._new_session(KeepAll()), *ends, self._max_points)

    def _finish_loop(self) -> None:
        """Accept or reject the loop that has been verified."""
        state = self._state
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

    @one_at_a_time
    def finish(self) -> None:
        """Detect a loop to the last submap and finish pending verifications at the end of a stream."""
        state = self._state
        with state.transaction():
            if state.verification is None:
                self._detect_loop(state.num_submaps - 1)
            while state.verification is not None:
                if state.verification.step():
                    self._finish_loop()

    def corrections(self) -> list[Correction]:
        """Return the motion of earlier predictions due to loop closure, or an empty list if they do not move."""
        return [] if self._state.graph is None else self._state.graph.corrections()

    def statistics(self) -> SubmapStatistics:
        """Return frame counts, memory, speed and submap events. Synchronizes with the device."""
        state = self._state
        return SubmapStatistics(
            state.num_frames,
            len(state.active.session.memory.kept_frames),
            state.num_bytes,
            *timing_percentiles(self.times),
            num_submaps=state.num_submaps,
            num_pose_alignments=state.num_pose_alignments,
            num_restarts=state.num_restarts,
            restarts=tuple(state.restarts),
            num_false_failures=state.num_false_failures,
            last_alignment=state.last_alignment,
            num_loops=0 if state.graph is None else len(state.graph.loops),
            num_rejected_loops=state.num_rejected_loops,
            rejected_loops=tuple(state.rejected_loops),
        )

    @one_at_a_time
    def save(self, path: str | os.PathLike) -> None:
        """Write the state of the stream atomically. `restore` continues from it."""
        save_state(path, self._identity, self._state.state_dict())

    @one_at_a_time
    def restore(self, path: str | os.PathLike) -> None:
        """Continue a stream that `save` wrote, in this process or another. Timings start anew.

        If it fails, nothing changes.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or was saved with other weights, submaps, policy or camera cache.
        """
        restored = self._new_state()
        with loaded_state(path, self._identity, restored.state_dict()) as saved:
            restored.load_state_dict(saved, self._device, lambda: self._new_submap(0), self._load_verification)
        self._start()
        self._state = restored

    def _load_verification(self, state: dict[str, Any]) -> LoopVerification:
        return LoopVerification.from_state_dict(state, self._new_session(KeepAll()), self._max_points, self._device)

    def _new_state(self) -> SubmapState:
        graph = None if self.loop_closure is None else SubmapGraph()
        return SubmapState(self._new_submap(0), deque(maxlen=self.submaps.overlap), graph)

    def _new_submap(self, start: int) -> ActiveSubmap:
        return ActiveSubmap(self._new_session(self.policy), start, self.submaps.overlap, self._max_points)

    def _new_session(self, policy: EvictionPolicy) -> StreamSession:
        return StreamSession(
            self.model,
            policy=policy,
            camera_cache=self._camera_cache,
            heads=self.heads,
            kv_cache_dtype=self._kv_cache_dtype,
        )

    def _encode(self, image: Tensor) -> Tensor:
        """Return the patch tokens, shared by both submaps. (1, 1, num_patches, C)"""
        with torch.inference_mode(False), torch.no_grad():
            return self.model.aggregator.encode_patches(image[None, None])

    @property
    def _identity(self) -> dict[str, str]:
        return {
            "weights": fingerprint(self.model),
            "policy": repr(self.policy),
            "submaps": f"{self.submaps}, {self.detector}, {self.loop_closure}",
        }

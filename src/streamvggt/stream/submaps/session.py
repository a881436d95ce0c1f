"""Split a long stream into overlapping submaps and align them to one world while the stream runs.

Reference: VGGT-Long (arXiv 2507.16443), which computes the submaps afterwards. Here each submap is a stream.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Sequence
from threading import Lock

from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.frame import Frame
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction, cat
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.session import one_at_a_time, to_image_tensor, upload_image
from streamvggt.stream.state_file import loaded_state, save_state
from streamvggt.stream.submaps.chain import SubmapChain
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.state import SubmapState
from streamvggt.stream.submaps.statistics import SubmapStatistics
from streamvggt.stream.submaps.submap_graph import Correction
from streamvggt.stream.timing import MAX_TIMINGS, Timer, timing_percentiles
from streamvggt.transfer import current


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
    keyframes. With `loop_closure`, the pose graph also grows by a few numbers per submap, which `num_bytes` leaves out.
    A failed push changes nothing. Calls from two threads at once are refused, as in `StreamSession`.

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
        self._chain = SubmapChain(
            model,
            submaps=self.submaps,
            policy=self.policy,
            detector=self.detector,
            loop_closure=loop_closure,
            heads=self.heads,
            camera_cache=camera_cache,
            kv_cache_dtype=kv_cache_dtype,
        )
        self._device = self._chain.device
        self._in_use = Lock()
        self._restart_with(self._chain.state)

    @one_at_a_time
    def reset(self) -> None:
        """Start a new stream with the next frame."""
        self._restart_with(self._chain.new_state())

    def _restart_with(self, state: SubmapState) -> None:
        self._chain.state = state
        self.times: deque[Timer] = deque(maxlen=MAX_TIMINGS)

    @property
    def num_frames(self) -> int:
        """Frames pushed."""
        return self._chain.state.num_frames

    @property
    def num_bytes(self) -> int:
        """Size of the memories, and of the data to restart and align submaps, in bytes."""
        return self._chain.state.num_bytes

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
        state = self._chain.state
        with current(self._device), state.transaction():
            timer = Timer(self._device)
            self._chain.start_pending()
            prediction = self._chain.push(image, upload_image(frame, self._device))
            if state.verification is not None and state.verification.step():
                self._chain.finish_loop()
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
        state = self._chain.state
        if state.num_frames or not 0 < len(frames) <= self.submaps.overlap:
            raise ValueError(
                f"start: expected the first 1 to {self.submaps.overlap} frames of a stream, got {len(frames)} after "
                f"{state.num_frames}."
            )
        images = [to_image_tensor(frame) for frame in frames]
        with state.transaction():
            timer = Timer(self._device)
            predictions = []
            on_device = [upload_image(frame, self._device) for frame in frames]
            for image, there, predicted in zip(images, on_device, state.active.push_first(on_device), strict=True):
                predictions.append(self._chain.push(image, there, predicted))
            timer.stop()
            self.times.append(timer)
        return cat(predictions)

    @one_at_a_time
    def finish(self) -> None:
        """Detect a loop to the last submap and finish pending verifications at the end of a stream."""
        state = self._chain.state
        with state.transaction():
            if state.verification is None:
                self._chain.detect_loop(state.num_submaps - 1)
            while state.verification is not None:
                if state.verification.step():
                    self._chain.finish_loop()

    def corrections(self) -> list[Correction]:
        """Return the motion of earlier predictions due to loop closure, or an empty list if they do not move."""
        return [] if self._chain.state.graph is None else self._chain.state.graph.corrections()

    def statistics(self) -> SubmapStatistics:
        """Return frame counts, memory, speed and submap events. Synchronizes with the device."""
        state = self._chain.state
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
        save_state(path, self._identity, self._chain.state.state_dict())

    @one_at_a_time
    def restore(self, path: str | os.PathLike) -> None:
        """Continue a stream that `save` wrote, in this process or another. Timings start anew.

        If it fails, nothing changes.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or was saved with other weights, submaps, policy or camera cache.
        """
        restored = self._chain.new_state()
        with loaded_state(path, self._identity, restored.state_dict()) as saved:
            restored.load_state_dict(
                saved, self._device, lambda: self._chain.new_submap(0), self._chain.load_verification
            )
        self._restart_with(restored)

    @property
    def _identity(self) -> dict[str, str]:
        return {
            "weights": fingerprint(self.model),
            "policy": repr(self.policy),
            "submaps": f"{self.submaps}, {self.detector}, {self.loop_closure}",
        }

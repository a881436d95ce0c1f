"""The state of a stream of submaps: everything that changes from frame to frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from streamvggt.geometry.similarity import Sim3
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.trajectory import num_joint
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.loop_closure import LoopVerification
from streamvggt.stream.submaps.loop_keyframes import LoopKeyframe
from streamvggt.stream.submaps.observation import FrameObservation
from streamvggt.stream.submaps.statistics import SubmapEvent
from streamvggt.stream.submaps.submap_alignment import SubmapAlignment
from streamvggt.stream.submaps.submap_graph import SubmapGraph, edge_from_state_dict, edge_state_dict

MAX_EVENTS = 100
MAX_CHECKED_PAIRS = 8


class ActiveSubmap:
    """A submap that receives frames: a separate stream with a separate world.

    Args:
        session: New session of the stream.
        start: Index of its first frame.
        overlap: Number of latest valid frames to keep in `observations`.
        max_points: Maximum number of points per observation.
    """

    def __init__(self, session: StreamSession, start: int, overlap: int, max_points: int):
        self.session = session
        self.start = start
        self.observations: deque[FrameObservation] = deque(maxlen=overlap)
        self._max_points = max_points
        self._num_joint = min(num_joint(session.model), overlap)
        self._waiting: list[Tensor] = []  # images of an incomplete joint first step

    def push(self, image: Tensor, patch_tokens: Tensor | None) -> tuple[Prediction, FrameObservation]:
        """Predict the next frame in the world of the submap. Does not append to `observations`."""
        prediction = self.session.push(image, patch_tokens=patch_tokens)
        return prediction, FrameObservation.from_prediction(prediction, self._max_points)

    def push_first(self, images: Sequence[Tensor]) -> list[tuple[Prediction, FrameObservation]]:
        """Predict the first frames in one joint step, see `StreamSession.start`."""
        prediction = self.session.start(images)
        frames = [prediction.select_frame(index) for index in range(len(images))]
        return [(frame, FrameObservation.from_prediction(frame, self._max_points)) for frame in frames]

    def warm_up(self, image: Tensor, patch_tokens: Tensor | None) -> list[FrameObservation]:
        """Push a frame that another submap predicts. Return the new observations, of this or earlier frames."""
        if self.session.num_frames >= self._num_joint:
            return [self.push(image, patch_tokens)[1]]
        self._waiting = [*self._waiting, image.detach().clone()]
        return self._push_waiting() if len(self._waiting) == self._num_joint else []

    def replay(self, images: Sequence[Tensor]) -> None:
        """Push frames that were predicted before, and append their observations."""
        for image in images:
            self.observations.extend(self.warm_up(image, None))
        if self._waiting:
            self.observations.extend(self._push_waiting())

    def _push_waiting(self) -> list[FrameObservation]:
        images, self._waiting = self._waiting, []
        return [observation for _, observation in self.push_first(images)]

    @property
    def num_bytes(self) -> int:
        waiting = sum(image.nbytes for image in self._waiting)
        return self.session.num_bytes + sum(observation.num_bytes for observation in self.observations) + waiting

    def state_dict(self) -> dict[str, Any]:
        return {
            "memory": self.session.memory.state_dict(),
            "start": self.start,
            "observations": [observation.state_dict() for observation in self.observations],
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.session.memory.load_state_dict(state["memory"], device)
        self.start = state["start"]
        self.observations.extend(FrameObservation(*parts) for parts in state["observations"])
        self._waiting = list(state["waiting"])


@dataclass
class SubmapState:
    """State of a `SubmapSession`.

    Attributes:
        active: The submap whose predictions are returned.
        images: Images of the frames in `active.observations`, as many as an overlap has.
        graph: Pose graph. None without loop closure.
        pending: The next submap while it receives the frames of the overlap.
        world: world_from_submap of the active submap. None for the identity.
        last_alignment: The latest alignment.
        keyframes: Keyframes for loop detection.
        verification: The loop that is being verified.
        checked_pairs: Pairs of submaps that were verified recently.
        restarts: The latest restarts.
        rejected_loops: The latest rejected loops.
        num_frames: Frames pushed.
        num_submaps: Submaps that have been active.
        num_retries: Pending submaps in a row whose alignment was rejected.
        next_check_frame: First frame that is checked for failures after a restart.
    """

    active: ActiveSubmap
    images: deque[Tensor]
    graph: SubmapGraph | None
    pending: ActiveSubmap | None = None
    world: Sim3 | None = None
    last_alignment: SubmapAlignment | None = None
    keyframes: list[LoopKeyframe] = field(default_factory=list)
    verification: LoopVerification | None = None
    checked_pairs: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MAX_CHECKED_PAIRS))
    restarts: deque[SubmapEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    rejected_loops: deque[SubmapEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    num_frames: int = 0
    num_submaps: int = 1
    num_retries: int = 0
    next_check_frame: int = 0
    num_pose_alignments: int = 0
    num_restarts: int = 0
    num_false_failures: int = 0
    num_rejected_loops: int = 0

    @property
    def _parts(self) -> list[ActiveSubmap | LoopVerification]:
        return [part for part in (self.active, self.pending, self.verification) if part is not None]

    @property
    def num_bytes(self) -> int:
        """Size of all memories, observations, images and keyframes in bytes."""
        images = sum(image.nbytes for image in self.images)
        return images + sum(part.num_bytes for part in [*self._parts, *self.keyframes])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo every change if the block raises, including those of the submaps' memories."""
        parts = self._parts
        owners = [owner for owner in (self, self.graph, *parts) if owner is not None]
        snapshots = [
            {name: copy(value) if isinstance(value, list | deque) else value for name, value in vars(owner).items()}
            for owner in owners
        ]
        with ExitStack() as memories:
            for part in parts:
                memories.enter_context(part.session.memory.all_or_nothing())
            try:
                yield
            except BaseException:
                for owner, snapshot in zip(owners, snapshots, strict=True):
                    vars(owner).update(snapshot)
                raise

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, numbers and strings."""
        return {
            "active": self.active.state_dict(),
            "images": list(self.images),
            "graph": None if self.graph is None else self.graph.state_dict(),
            "pending": None if self.pending is None else self.pending.state_dict(),
            "world": None if self.world is None else self.world.to_vector(),
            "last_alignment": None if self.last_alignment is None else edge_state_dict(self.last_alignment),
            "keyframes": [keyframe.state_dict() for keyframe in self.keyframes],
            "verification": None if self.verification is None else self.verification.state_dict(),
            "checked_pairs": [list(pair) for pair in self.checked_pairs],
            "restarts": [[event.frame, event.reason] for event in self.restarts],
            "rejected_loops": [[event.frame, event.reason] for event in self.rejected_loops],
            "counts": {name: value for name, value in vars(self).items() if type(value) is int},
        }

    def load_state_dict(
        self,
        state: dict[str, Any],
        device: torch.device,
        new_submap: Callable[[], ActiveSubmap],
        load_verification: Callable[[dict[str, Any]], LoopVerification],
    ) -> None:
        """Load a state that `state_dict` returned into a new stream.

        Args:
            state: The state.
            device: Device of the model.
            new_submap: Creates an empty submap.
            load_verification: Creates a loop verification from its state.
        """
        self.active.load_state_dict(state["active"], device)
        self.images.extend(state["images"])
        if state["graph"] is not None:
            self.graph = SubmapGraph.from_state_dict(state["graph"])
        if state["pending"] is not None:
            self.pending = new_submap()
            self.pending.load_state_dict(state["pending"], device)
        self.world = None if state["world"] is None else Sim3.from_vector(state["world"])
        if state["last_alignment"] is not None:
            self.last_alignment = edge_from_state_dict(SubmapAlignment, state["last_alignment"])
        self.keyframes = [LoopKeyframe.from_state_dict(keyframe) for keyframe in state["keyframes"]]
        if state["verification"] is not None:
            self.verification = load_verification(state["verification"])
        self.checked_pairs.extend(tuple(pair) for pair in state["checked_pairs"])
        self.restarts.extend(SubmapEvent(*event) for event in state["restarts"])
        self.rejected_loops.extend(SubmapEvent(*event) for event in state["rejected_loops"])
        for name, value in state["counts"].items():
            setattr(self, name, value)

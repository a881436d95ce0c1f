"""A long stream as overlapping windows, stitched into one world while it runs.

VGGT-Long (arXiv 2507.16443) does so with windows computed whole, afterwards; here they are streams themselves.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from streamvggt.frame import Frame
from streamvggt.geometry.similarity import Similarity
from streamvggt.layers.storage import StorageName
from streamvggt.model.memory import CameraMemory, Policy
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.window import KeepAll
from streamvggt.stream.session import (
    TIMES_KEPT,
    StreamSession,
    StreamStatistics,
    Timer,
    image_of,
    median_and_p95,
    one_at_a_time,
)
from streamvggt.stream.state_file import loaded_state, save_state
from streamvggt.stream.windows.graph import Correction, WindowGraph, link_from_state, link_state
from streamvggt.stream.windows.health import Health
from streamvggt.stream.windows.joint import MAX_POINTS, Joint, join, join_by_pose
from streamvggt.stream.windows.loops import Closing, Loops, find_loop
from streamvggt.stream.windows.places import Place, thinned
from streamvggt.stream.windows.pose_graph import Edge
from streamvggt.stream.windows.sight import Sight, typical_size
from streamvggt.stream.windows.size import WindowSize
from streamvggt.transfer import current, uploaded

RESTARTS_KEPT = 100
TRIED_KEPT = 8
DOUBT = 0.1
"""Weight of a joint by a single camera in the pose graph, where one by points has 1."""
PATIENCE = 2
"""How often a new window that does not fit is begun again before it is taken as it is."""


@dataclass(frozen=True)
class Incident:
    """A window that was begun again, or a loop that was refused, and why.

    frame: at which it was noticed.
    """

    frame: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class WindowStatistics(StreamStatistics):
    """How a stream of windows is doing; memory and times are of all its windows together.

    num_windows: windows that have answered so far.
    num_by_pose: those joined by a single camera, because the points did not fit: doubtful.
    num_restarts: windows begun again.
    restarts: the latest of them, at most `RESTARTS_KEPT`.
    num_false_alarms: frames that looked sick but looked so to a fresh window, too, which was then not kept.
    joint: the latest.
    num_loops: loops that are closed.
    num_refused, refused: places that looked alike but were not found to be the same, and the latest of them.
    """

    num_windows: int
    num_by_pose: int
    num_restarts: int
    restarts: tuple[Incident, ...]
    num_false_alarms: int
    joint: Joint | None
    num_loops: int
    num_refused: int
    refused: tuple[Incident, ...]


class OpenWindow:
    """One window: a stream of its own, in a world of its own.

    start: number of the frame that it began with.
    sights: of its latest frames, as many as an overlap has.
    """

    def __init__(self, session: StreamSession, start: int, overlap: int, num_points: int):
        self.session = session
        self.start = start
        self.sights: deque[Sight] = deque(maxlen=overlap)
        self._num_points = num_points

    def push(self, image: Tensor, patches: Tensor | None) -> tuple[Prediction, Sight]:
        """What this window says of the next frame, in its own world; the sight is not among `sights` yet."""
        prediction = self.session.push(image, patches=patches)
        return prediction, Sight.of(prediction, self._num_points)

    @property
    def num_bytes(self) -> int:
        return self.session.num_bytes + sum(sight.num_bytes for sight in self.sights)

    def state(self) -> dict[str, Any]:
        return {
            "memory": self.session.memory.state(),
            "start": self.start,
            "sights": [sight.state() for sight in self.sights],
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        self.session.memory.restore(state["memory"], device)
        self.start = state["start"]
        self.sights.extend(Sight(*parts) for parts in state["sights"])


class WindowedSession:
    """As `StreamSession`, for streams longer than a network's memory is good for.

        session = WindowedSession(model, size=WindowSize(60, 15))
        for frame in load_frames("drive.mp4"):
            prediction = session.push(frame)

    All answers are in the world of the first window. Every `length - overlap` frames a new window begins. The frames of
    the overlap go to both, so that the new one is warm when it takes over: a frame costs at most two steps (one and two
    thirds, for the encoder is asked once), and no frame waits for frames before it to be computed again. Once the
    overlap is complete, a robust similarity of its points says where the new window's world is (`join`).

    Where a window goes wrong (`Health`), it is begun again from the latest healthy frames, which costs `overlap + 1`
    steps at that frame. A new window that does not fit is begun again with the frames to come, the old one going on
    meanwhile; after `PATIENCE` such attempts it is taken by the camera of the last common frame.

    A push that fails changes nothing, and one call at a time is made, as with `StreamSession`.

    Nothing grows: kept are the memories of at most two windows, and the images and some points of `overlap` frames.

    With `loops`, key frames are kept, too. Where a window has looked like an earlier one, key frames of both go through
    the network together, one beside each of the next frames; if that joins the two windows, all windows are moved so
    that the loop closes. Answers are in the corrected world from then on; `corrections` says how earlier ones move.
    """

    def __init__(
        self,
        model: VGGT,
        *,
        size: WindowSize | None = None,
        policy: Policy | None = None,
        camera: CameraMemory = "exact",
        storage: StorageName = "plain",
        heads: Collection[str] | None = None,
        health: Health | None = None,
        loops: Loops | None = None,
    ):
        """
        Args:
            model: with sees="past".
            size: of the windows.
            policy, camera, storage, heads: of each window, as of a `StreamSession`.
            health: what counts as gone wrong.
            loops: how loops are found and closed; None: they are not.

        Raises:
            ValueError: the model cannot stream, or the camera is not among the heads.
        """
        self.model = model
        self.size = size or WindowSize()
        self.policy = policy or KeepAll()
        self.heads = tuple(head for head in model.heads if head != "track") if heads is None else heads
        if "camera" not in self.heads:
            raise ValueError(f"windows are joined by their cameras: add camera to the heads ({', '.join(self.heads)})")
        self.health = health or Health()
        self.loops = loops
        self._camera: CameraMemory = camera
        self._storage: StorageName = storage
        self._device = next(model.parameters()).device
        self._in_use = Lock()
        self._forget()

    @one_at_a_time
    def reset(self) -> None:
        """Forget everything; the next frame is the first of a new stream."""
        self._forget()

    def _forget(self) -> None:
        self.num_frames = 0
        self._window = self._new_window(0)
        self._newcomer: OpenWindow | None = None
        self._world: Similarity | None = None  # world_from_window; None while the window is the world
        self._images: deque[Tensor] = deque(maxlen=self.size.overlap)  # of the frames of the window's sights
        self._num_misfits = 0  # newcomers in a row that were begun again
        self._calm_until = 0  # no frame before this one is checked: the window has just been begun again
        self._num_windows, self._num_by_pose, self._num_restarts, self._num_false_alarms = 1, 0, 0, 0
        self._restarts: deque[Incident] = deque(maxlen=RESTARTS_KEPT)
        self._joint: Joint | None = None
        self._graph = WindowGraph() if self.loops else None
        self._places: list[Place] = []
        self._closing: Closing | None = None
        self._tried: deque[tuple[int, int]] = deque(maxlen=TRIED_KEPT)
        self._num_refused = 0
        self._refused: deque[Incident] = deque(maxlen=RESTARTS_KEPT)
        self.times: deque[Timer] = deque(maxlen=TIMES_KEPT)

    @one_at_a_time
    def push(self, frame: Frame | Tensor) -> Prediction:
        """What the network says of the next frame, in the world of the whole stream.

        Args:
            frame: a Frame; or RGB in [0, 1], (3, H, W).

        Returns:
            The prediction of this frame, B = S = 1, on the model's device.

        Raises:
            ValueError: the frame does not fit the stream, for instance its size has changed.
            RuntimeError: another call of this session is at work.
        """
        image = image_of(frame)
        if image.ndim != 3:
            raise ValueError(f"a frame is (3, H, W), not {tuple(image.shape)}: streams have windows each of its own")
        with current(self._device), self._all_or_nothing():
            timer = Timer(self._device)
            if self._newcomer is None and self.num_frames >= self._window.start + self.size.length - self.size.overlap:
                self._newcomer = self._new_window(self.num_frames)
            prediction = self._push(image)
            self.num_frames += 1
            if self._closing is not None and self._closing.step():
                self._close()
            timer.stop()
            self.times.append(timer)
        return prediction

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """If the block raises, all is as it was before: the windows' memories, and what is noted here and there."""
        parts = [part for part in (self._window, self._newcomer, self._closing) if part is not None]
        noted = [thing for thing in (self, self._graph, *parts) if thing is not None]
        before = [
            {name: copy(value) if isinstance(value, list | deque) else value for name, value in vars(thing).items()}
            for thing in noted
        ]
        with ExitStack() as memories:
            for part in parts:
                memories.enter_context(part.session.memory.all_or_nothing())
            try:
                yield
            except BaseException:
                for thing, values in zip(noted, before, strict=True):
                    vars(thing).update(values)
                raise

    def _push(self, image: Tensor) -> Prediction:
        is_key = self.loops is not None and self.num_frames % self.loops.every == 0
        on_device = uploaded(image, self._device)
        patches = self._encode(on_device) if self._newcomer or is_key else None
        prediction, sight = self._window.push(on_device, patches)
        world = self._world
        sickness = self.health.of_frame(sight, self._window.sights)
        if sickness and self._images and (self.num_frames >= self._calm_until or not sight.is_finite):
            prediction, sight, world = self._begin_again(on_device, prediction, sight, sickness)
        answer = prediction if world is None else prediction.moved(world)
        if self._graph is not None:
            self._graph.answer(self.num_frames, self._num_windows - 1)
        if not sight.is_finite:
            self._newcomer = None
            return answer
        self._window.sights.append(sight)
        self._images.append(image.detach().clone())
        if is_key and self.loops is not None:
            place = Place.of(self.num_frames, self._num_windows - 1, patches, image, sight)
            self._places = thinned([*self._places, place], self.loops.most)
        if self._newcomer is not None:
            self._warm_up(on_device, patches)
        return answer

    def _warm_up(self, image: Tensor, patches: Tensor | None) -> None:
        """Give the frame to the newcomer, too; where that completes the overlap, let it take over."""
        newcomer = self._newcomer
        assert newcomer is not None
        _, sight = newcomer.push(image, patches)
        if not sight.is_finite:
            self._misfit("not finite")
            return
        newcomer.sights.append(sight)
        if len(newcomer.sights) < self.size.overlap:
            return
        joint = join(newcomer.sights, self._window.sights)
        misfit = self.health.of_joint(joint)
        if misfit and self._num_misfits < PATIENCE and joint.by == "points":
            self._misfit(misfit)
        else:
            self._take_over(newcomer, joint, misfit)

    def _misfit(self, reason: str) -> None:
        self._newcomer = None  # another one begins with the next frame
        self._num_misfits += 1
        self._note_restart(reason)

    def _begin_again(
        self, image: Tensor, prediction: Prediction, sight: Sight, sickness: str
    ) -> tuple[Prediction, Sight, Similarity | None]:
        """Ask a fresh window, made of the latest healthy frames, about a frame that looks sick.

        Where the fresh window finds it healthy it stays; where it finds the same, the fault is not the old window's.

        Returns:
            What is to be answered, and in which world.
        """
        fresh = self._new_window(self.num_frames - len(self._images))
        for earlier in self._images:
            _, replayed = fresh.push(earlier, None)
            fresh.sights.append(replayed)
        second, second_sight = fresh.push(image, None)
        self._calm_until = self.num_frames + self.size.overlap
        replay_is_finite = all(replayed.is_finite for replayed in fresh.sights)
        if not replay_is_finite or self.health.of_frame(second_sight, fresh.sights):
            self._num_false_alarms += 1
            return prediction, sight, self._world
        joint = join(fresh.sights, self._window.sights)
        self._newcomer = None
        self._note_restart(sickness)
        self._take_over(fresh, joint, self.health.of_joint(joint))
        return second, second_sight, self._world

    def _take_over(self, window: OpenWindow, joint: Joint, misfit: str | None) -> None:
        """Go on with another window, whose latest sights are of the same frames as the present one's."""
        if misfit:
            old_from_new = join_by_pose(window.sights, self._window.sights)
            joint = replace(joint, old_from_new=old_from_new, by="pose", inlier_share=None, residual=None)
        if self._graph is not None:
            self._graph.add(joint.old_from_new, typical_size(self._window.sights), DOUBT if joint.by == "pose" else 1.0)
            self._world = self._graph.worlds[-1]
        else:
            self._world = joint.old_from_new if self._world is None else self._world @ joint.old_from_new
        self._window, self._newcomer = window, None
        self._joint = joint
        self._num_windows += 1
        self._num_by_pose += joint.by == "pose"
        self._num_misfits = 0
        if self._closing is None:
            self._seek(self._num_windows - 2)

    def _seek(self, window: int) -> None:
        """Begin to close a loop if a window's key frames look like earlier ones."""
        if self.loops is None:
            return
        ends = find_loop(self._places, window, self.loops, self._tried)
        if ends is not None:
            self._closing = Closing(self._new_session(KeepAll()), *ends, self._num_points)

    def _close(self) -> None:
        """Believe or refuse the loop that has been asked about."""
        assert self._closing is not None and self._graph is not None and self.loops is not None
        verdict = self._closing.judge(self.loops, self.health)
        self._tried.append(self._closing.windows)
        self._closing = None
        if isinstance(verdict, Edge) and not self._graph.close(verdict):
            verdict = "it contradicts the other loops"
        if isinstance(verdict, str):
            self._num_refused += 1
            self._refused.append(Incident(self.num_frames, verdict))
        elif self._num_windows > 1:
            self._world = self._graph.worlds[-1]

    @one_at_a_time
    def finish(self) -> None:
        """At the end of a stream: look for a loop to the last window, and finish what has been begun."""
        with self._all_or_nothing():
            if self._closing is None:
                self._seek(self._num_windows - 1)
            while self._closing is not None:
                if self._closing.step():
                    self._close()

    def corrections(self) -> list[Correction]:
        """How the frames answered so far have to be moved, since loops were closed; empty if they do not."""
        return [] if self._graph is None else self._graph.corrections()

    def _note_restart(self, reason: str) -> None:
        self._num_restarts += 1
        self._restarts.append(Incident(self.num_frames, reason))

    def _new_window(self, start: int) -> OpenWindow:
        return OpenWindow(self._new_session(self.policy), start, self.size.overlap, self._num_points)

    def _new_session(self, policy: Policy) -> StreamSession:
        return StreamSession(self.model, policy=policy, camera=self._camera, heads=self.heads, storage=self._storage)

    @property
    def _num_points(self) -> int:
        return max(MAX_POINTS // self.size.overlap, 100)

    def _encode(self, image: Tensor) -> Tensor:
        """What both windows ask the encoder of an image on the device. (1, 1, h·w, C)"""
        with torch.inference_mode(False), torch.no_grad():
            return self.model.aggregator.encode(image[None, None])

    @property
    def num_bytes(self) -> int:
        """Memory taken: both windows, and what is kept to begin one again."""
        parts = [part for part in (self._window, self._newcomer, self._closing) if part is not None]
        images = sum(image.nbytes for image in self._images)
        return sum(part.num_bytes for part in [*parts, *self._places]) + images

    def statistics(self) -> WindowStatistics:
        """Frames, memory, speed and health so far. Waits for the device."""
        return WindowStatistics(
            self.num_frames,
            len(self._window.session.memory.held),
            self.num_bytes,
            *median_and_p95(self.times),
            num_windows=self._num_windows,
            num_by_pose=self._num_by_pose,
            num_restarts=self._num_restarts,
            restarts=tuple(self._restarts),
            num_false_alarms=self._num_false_alarms,
            joint=self._joint,
            num_loops=0 if self._graph is None else len(self._graph.loops),
            num_refused=self._num_refused,
            refused=tuple(self._refused),
        )

    @one_at_a_time
    def save(self, path: str | os.PathLike) -> None:
        """Write the stream's state, whole or not at all, so that `restore` can go on after an interruption."""
        save_state(path, self._identity, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "num_frames": self.num_frames,
            "window": self._window.state(),
            "newcomer": None if self._newcomer is None else self._newcomer.state(),
            "world": None if self._world is None else self._world.flat(),
            "images": list(self._images),
            "counts": {name: getattr(self, name) for name in self._counts},
            "restarts": [[restart.frame, restart.reason] for restart in self._restarts],
            "joint": None if self._joint is None else link_state(self._joint),
            "graph": None if self._graph is None else self._graph.state(),
            "places": [place.state() for place in self._places],
            "closing": None if self._closing is None else self._closing.state(),
            "tried": [list(pair) for pair in self._tried],
            "refused": [[refused.frame, refused.reason] for refused in self._refused],
        }

    @one_at_a_time
    def restore(self, path: str | os.PathLike) -> None:
        """Go on where `save` was called, in this process or another; statistics of time begin anew.

        If that fails, nothing changes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, no saved stream of windows, or one of other weights, windows, policy or camera
                memory.
        """
        before = dict(vars(self))
        self._forget()
        try:
            with loaded_state(path, self._identity, self._state()) as state:
                self._take(state)
        except BaseException:
            vars(self).update(before)
            raise

    def _take(self, state: dict[str, Any]) -> None:
        """Become what a session was when its `_state` was taken; this one has just begun."""
        self.num_frames = state["num_frames"]
        self._window.restore(state["window"], self._device)
        if state["newcomer"] is not None:
            self._newcomer = self._new_window(0)
            self._newcomer.restore(state["newcomer"], self._device)
        self._world = None if state["world"] is None else Similarity.from_flat(state["world"])
        self._images.extend(state["images"])
        for name, value in state["counts"].items():
            setattr(self, name, value)
        self._restarts.extend(Incident(*restart) for restart in state["restarts"])
        self._joint = None if state["joint"] is None else link_from_state(Joint, state["joint"])
        if state["graph"] is not None:
            self._graph = WindowGraph.from_state(state["graph"])
        self._places = [Place.from_state(place) for place in state["places"]]
        if state["closing"] is not None:
            session = self._new_session(KeepAll())
            self._closing = Closing.from_state(state["closing"], session, self._num_points, self._device)
        self._tried.extend(tuple(pair) for pair in state["tried"])
        self._refused.extend(Incident(*refused) for refused in state["refused"])

    _counts = (
        "_num_misfits",
        "_calm_until",
        "_num_windows",
        "_num_by_pose",
        "_num_restarts",
        "_num_false_alarms",
        "_num_refused",
    )

    @property
    def _identity(self) -> dict[str, str]:
        return {
            "weights": fingerprint(self.model),
            "policy": repr(self.policy),
            "windows": f"{self.size}, {self.health}, {self.loops}",
        }

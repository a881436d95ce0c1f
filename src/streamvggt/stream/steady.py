"""The step of a stream whose memory is full, recorded once and played again for every frame.

session = StreamSession(model, policy=Window(1, 8), step="graph")
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import Tensor

from streamvggt.layers.kv_cache import UNBOUNDED, KVCache, SeeSlots
from streamvggt.layers.tables import tables_handed_out
from streamvggt.model.memory import CameraMemory, Memory, Policy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction

Step = Literal["eager", "graph", "compiled"]
MOST_SHAPES = 64
"""Kinds of streams, by image size, memory and heads, for which one process compiles a step."""
WARM_UPS = 3  # on CUDA, before recording: kernels are chosen and tables made


def captured(step: Callable[[], Prediction]) -> Callable[[], Prediction]:
    """Record the step as a CUDA graph of the current device, after a few runs, which do what one does.

    Other threads may allocate memory meanwhile: only what this thread does can break the recording.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with tables_handed_out() as tables, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        prediction = step()

    def replay(_kept=tables) -> Prediction:  # what lies at recorded addresses stays as long as the recording
        graph.replay()
        return prediction.map(torch.clone)  # the next replay writes over what the graph answers

    return replay


def compiled(step: Callable[[], Prediction]) -> Callable[[], Prediction]:
    """The step by torch.compile, which compiles once for all streams of a network that have the same shapes.

    After `recompile_limit` shapes PyTorch would go on without compiling, silently, so there must be room for many.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
    return torch.compile(step, dynamic=False)


PREPARE = {"graph": captured, "compiled": compiled}


def check_step(step: Step, policy: Policy, camera: CameraMemory, device: torch.device) -> None:
    """Raises ValueError where this step cannot serve such a stream."""
    if step == "eager":
        return
    if step not in PREPARE:
        raise ValueError(f"step={step!r} is unknown; choose one of eager, {', '.join(PREPARE)}")
    if step == "graph" and device.type != "cuda":
        raise ValueError(
            f"step='graph' records CUDA graphs, but the model is on {device.type}: choose eager or compiled"
        )
    if policy.remnants == UNBOUNDED:
        raise ValueError(
            f"step={step!r}: expected a memory that becomes full, got {policy}, which keeps the special tokens of all "
            "frames. Choose step='eager', or a window with a number of remnants."
        )
    if policy.capacity is None or policy.prunes_tokens or policy.watches:
        raise ValueError(
            f"step={step!r} needs a memory of whole frames that becomes full (Window, KeyFrames, MotionKeyFrames, "
            f"FrameBlocks), which {policy} is not: choose step='eager'"
        )
    if camera != "exact":
        raise ValueError(f"step={step!r} serves camera='exact' alone; choose step='eager' for camera={camera!r}")


class SteadyStep:
    """The next frame of one stream, once its memory is full.

    A full memory has one free slot. Which one it is, is all that differs between steps, and a number on the device
    (`SeeSlots`); the host keeps its books as ever. What the step computes equals the eager one to the bit, or to
    rounding where it is compiled.

    It serves single frames once the memory is full (`is_ready`); until then `StreamSession` runs the network itself.
    There are no tracked points.
    """

    def __init__(
        self,
        model: VGGT,
        memory: Memory,
        heads: Collection[str],
        prepare: Callable[[Callable[[], Prediction]], Callable[[], Prediction]],
    ):
        """
        Args:
            prepare: makes of the step what is run for every frame.
        """
        self._model = model
        self._memory = memory
        self._heads = tuple(heads)
        self._prepare = prepare
        of_camera = [cache for blocks in memory.camera for cache in blocks] if "camera" in heads else []
        self._caches = [*memory.layers, *of_camera]
        self._run: Callable[[], Prediction] | None = None

    @property
    def is_ready(self) -> bool:
        """The memory is full."""
        return not self._memory.is_opening and all(cache.is_steady for cache in self._caches)

    def __call__(self, images: Tensor) -> Prediction:
        """What the network says of the next frame, which becomes part of the memory. (B, 1, 3, H, W)"""
        memory = self._memory
        batch, image_size = images.shape[0], tuple(images.shape[-2:])
        memory.admit(batch, image_size, self._heads)
        with torch.inference_mode(False), torch.no_grad():
            memory.begin(batch, image_size)
            try:
                (slot,) = {cache.claim(memory.num_frames) for cache in self._caches}
                if self._run is None:
                    self._images = images.clone()
                    self._past = SteadyPast(memory)
                    self._past.write_to(slot)
                    self._run = self._prepare(self._step)
                self._images.copy_(images)
                self._past.write_to(slot)
                prediction = self._run()
                memory.advance(1, prediction)
                memory.end()
            except BaseException:
                memory.retract()
                raise
        return prediction

    def _step(self) -> Prediction:
        return self._model(self._images, heads=self._heads, memory=self._past)


class SteadyPast:
    """To the model a memory that is full and changes nothing but its contents; `SteadyStep` keeps the books."""

    is_start = False
    is_tracking = is_opening = False
    by_number = True
    camera_mode: CameraMemory = "exact"
    tracks = None

    def __init__(self, memory: Memory):
        self._memory = memory
        self._times = memory.times(1).to(memory.layers[0].planes()[0][0].device)
        of_layers = _Places(memory.layers)
        self._layers = of_layers.patterns(memory.layers)
        self._places = [of_layers]
        self._camera = []
        if memory.camera and all(len(cache) for cache in memory.camera[0]):  # else the camera head does not run
            of_camera = _Places(memory.camera[0])
            self._camera = [of_camera.patterns(blocks) for blocks in memory.camera]
            self._places.append(of_camera)

    def write_to(self, slot: int) -> None:
        """The next frame takes this slot."""
        self._times.fill_(self._memory.num_stored)
        for places in self._places:
            places.write_to(slot)

    def admit(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None: ...

    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None: ...

    def advance(self, num_new: int, result: Prediction) -> None: ...

    def end(self) -> None: ...

    def retract(self) -> None: ...

    def residual_watch(self, num_new: int = 1) -> None: ...

    def times(self, num_new: int) -> Tensor:
        return self._times

    def layer_patterns(self, num_new: int) -> list[SeeSlots]:
        return self._layers

    def camera_patterns(self, num_new: int) -> list[list[SeeSlots]]:
        return self._camera


class _Places:
    """Which tokens a new frame takes the place of, in caches that have the same slots: a tensor written anew."""

    def __init__(self, caches: list[KVCache]):
        self._cache = caches[0]
        device = caches[0].planes()[0][0].device
        self._within = torch.arange(caches[0].frame_tokens, device=device)
        self.index = self._within.clone()

    def write_to(self, slot: int) -> None:
        torch.add(self._within, self._cache.place(slot), out=self.index)

    def patterns(self, caches: list[KVCache]) -> list[SeeSlots]:
        return [SeeSlots(cache, self.index) for cache in caches]

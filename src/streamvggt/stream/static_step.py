"""The step of a stream with a full memory, captured or compiled once and reused for every frame.

session = StreamSession(model, policy=SlidingWindow(1, 8), step_mode="cuda_graph")
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, StepMode
from streamvggt.layers.cached_attention import StaticCachePattern
from streamvggt.layers.kv_cache import UNBOUNDED, KVCache
from streamvggt.layers.tables import record_tables
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.inputs import validate_step
from streamvggt.model.memory import KVCacheMemory
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction

MAX_SHAPES = 64
"""Maximum number of compiled steps per process, which differ by image size, memory and heads."""
NUM_WARMUP = 3  # before capture on CUDA: selects kernels and builds tables


def capture_cuda_graph(step: Callable[[], Prediction]) -> Callable[[], Prediction]:
    """Capture the step as a CUDA graph of the current device, after idempotent warm-up runs.

    Other threads may allocate memory during the capture. Only operations of this thread can invalidate it.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(NUM_WARMUP):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with record_tables() as tables, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        prediction = step()

    def replay(_kept=tables) -> Prediction:  # keeps the captured addresses alive
        graph.replay()
        return prediction.map(torch.clone)  # the next replay overwrites the output

    return replay


def compile_step(step: Callable[[], Prediction]) -> Callable[[], Prediction]:
    """Compile the step with torch.compile, once for all streams of a model with equal shapes.

    After `recompile_limit` shapes, PyTorch silently stops compiling. The limit is raised to support many shapes.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_SHAPES)
    return torch.compile(step, dynamic=False)


STEP_BUILDERS = {"cuda_graph": capture_cuda_graph, "compile": compile_step}


def validate_step_mode(
    step_mode: StepMode, policy: EvictionPolicy, camera: CameraCacheMode, device: torch.device
) -> None:
    """Check that a step mode supports a stream.

    Raises:
        ValueError: If the step mode does not support the policy, camera cache or device.
    """
    if step_mode == "eager":
        return
    if step_mode not in STEP_BUILDERS:
        raise ValueError(f"step_mode={step_mode!r} is unknown; choose one of eager, {', '.join(STEP_BUILDERS)}")
    if step_mode == "cuda_graph" and device.type != "cuda":
        raise ValueError(
            f"step_mode='cuda_graph' records CUDA graphs, but the model is on {device.type}: choose eager or compile"
        )
    if policy.retained == UNBOUNDED:
        raise ValueError(
            f"step_mode={step_mode!r}: expected a memory that becomes full, got {policy}, which keeps the special "
            "tokens of all frames. Choose step_mode='eager', or a sliding window with a number of retained frames."
        )
    if policy.capacity is None or policy.is_token_level or policy.hooks:
        raise ValueError(
            f"step_mode={step_mode!r} needs a memory of whole frames that becomes full (SlidingWindow, Keyframes, "
            f"MotionKeyframes, FrameDiversity), which {policy} is not: choose step_mode='eager'"
        )
    if camera != "per_iteration":
        raise ValueError(
            f"step_mode={step_mode!r} supports only camera_cache='per_iteration'; choose step_mode='eager' for "
            f"camera_cache={camera!r}"
        )


class StaticStep:
    """Predict the next frame of one stream with a full memory.

    A full memory has one free slot. Steps differ only in the slot index, which is a tensor on the device
    (`StaticCachePattern`). The host bookkeeping is unchanged. Results of a captured step are bit-exact to the eager
    step. Results of a compiled step are equal up to floating-point rounding.

    The step processes single frames once the memory is full (`is_ready`). Until then `StreamSession` runs the model.
    Point tracking is not supported.
    """

    def __init__(
        self,
        model: VGGT,
        memory: KVCacheMemory,
        heads: Collection[str],
        prepare: Callable[[Callable[[], Prediction]], Callable[[], Prediction]],
    ):
        """Build the step.

        Args:
            model: Causal model.
            memory: Memory of the stream.
            heads: Names of the heads to run.
            prepare: Converts the step to the function that runs for every frame, for example a CUDA graph replay.
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
        """Whether the memory is full."""
        return not self._memory.is_opening and all(cache.is_static for cache in self._caches)

    def __call__(self, images: Tensor) -> Prediction:
        """Predict the next frame and add it to the memory.

        Args:
            images: RGB in [0, 1]. (B, 1, 3, H, W)

        Raises:
            ValueError: If the images do not match the network or the memory.
        """
        memory = self._memory
        batch, image_size = images.shape[0], tuple(images.shape[-2:])
        validate_step(self._model, images, memory, self._heads)
        with torch.inference_mode(False), torch.no_grad():
            memory.begin(batch, image_size)
            try:
                (slot,) = {cache.reserve_slot(memory.num_frames) for cache in self._caches}
                if self._run is None:
                    self._images = images.clone()
                    self._past = StaticMemory(memory)
                    self._past.set_slot(slot)
                    self._run = self._prepare(self._step)
                self._images.copy_(images)
                self._past.set_slot(slot)
                prediction = self._run()
                memory.update(1, prediction)
                memory.commit()
            except BaseException:
                memory.rollback()
                raise
        return prediction

    def _step(self) -> Prediction:
        return self._model.step(self._images, self._past, heads=self._heads)


class StaticMemory(StreamMemory):
    """Full memory whose shapes and addresses do not change. `StaticStep` does the bookkeeping."""

    is_empty = False
    is_index_based = True
    camera_cache: CameraCacheMode = "per_iteration"

    def __init__(self, memory: KVCacheMemory):
        self._memory = memory
        self._times = memory.times(1).to(memory.layers[0].buffers()[0][0].device)
        of_layers = _SlotIndex(memory.layers)
        self._layers = of_layers.patterns(memory.layers)
        self._places = [of_layers]
        self._camera = []
        if memory.camera and all(len(cache) for cache in memory.camera[0]):  # otherwise the camera head does not run
            of_camera = _SlotIndex(memory.camera[0])
            self._camera = [of_camera.patterns(blocks) for blocks in memory.camera]
            self._places.append(of_camera)

    def set_slot(self, slot: int) -> None:
        """Set the slot of the next frame."""
        self._times.fill_(self._memory.num_stored)
        for places in self._places:
            places.set_slot(slot)

    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None: ...

    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None: ...

    def update(self, num_new: int, result: Prediction) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def mlp_hook(self, num_new: int = 1) -> None: ...

    def times(self, num_new: int) -> Tensor:
        return self._times

    def layer_patterns(self, num_new: int) -> list[StaticCachePattern]:
        return self._layers

    def camera_patterns(self, num_new: int) -> list[list[StaticCachePattern]]:
        return self._camera


class _SlotIndex:
    """Device tensor with the token indices that a new frame overwrites, for caches with equal slots."""

    def __init__(self, caches: list[KVCache]):
        self._cache = caches[0]
        device = caches[0].buffers()[0][0].device
        self._within = torch.arange(caches[0].tokens_per_frame, device=device)
        self.index = self._within.clone()

    def set_slot(self, slot: int) -> None:
        torch.add(self._within, self._cache.slot_offset(slot), out=self.index)

    def patterns(self, caches: list[KVCache]) -> list[StaticCachePattern]:
        return [StaticCachePattern(cache, self.index) for cache in caches]

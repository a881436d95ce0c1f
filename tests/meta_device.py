"""PyTorch's meta device in place of a GPU: finds host waits and mixed devices with the CPU build of PyTorch.

Tensors on the meta device stand for tensors on a GPU, tensors on the CPU for the host. Meta tensors have no data, so
every read of a value gets a fixed answer. Shapes, backward passes included, are those of a real run.
"""

import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

ANSWERS = {
    Tensor.item: lambda x: 1.0 if x.is_floating_point() else 1,
    Tensor.tolist: lambda x: torch.ones(x.shape, dtype=x.dtype).tolist(),
    Tensor.__bool__: lambda x: False,
    Tensor.__float__: lambda x: 1.0,
    Tensor.__int__: lambda x: 1,
    Tensor.__index__: lambda x: 1,
}
"""Functions that read a value into Python, and what they return for a meta tensor."""

MAKERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
"""Functions that make a tensor of Python numbers; on a GPU they copy from pageable memory and wait."""


class MixedDevices(AssertionError):
    """One operation gets tensors of host and device."""


class MetaDevice(TorchFunctionMode):
    """Records what a block of code asks of the device, by the line of the project that asks.

        with MetaDevice() as seen:
            session.push(image)
        assert not seen.waits

    waits: Lines at which the host waits for the device: reads of values, blocking copies, shapes that depend on values.
    uploads: Lines that copy to the device without waiting.

    Raises:
        MixedDevices: If an operation gets tensors of both devices. PyTorch accepts some of these on the meta device.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget what was recorded."""
        self.waits.clear()
        self.uploads.clear()

    @property
    def waiting_files(self) -> set[str]:
        """Files of the project with lines that wait, relative to the package."""
        return {line.split(":")[0] for line in self.waits}

    def __enter__(self):
        autocast = torch.autocast

        def without_meta(device_type, *args, **kwargs):  # autocast does not exist for the meta device
            return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

        self._patches = ExitStack()
        self._patches.enter_context(patch("torch.autocast", without_meta))
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._patches.close()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = args[0] if args else None
        if function in ANSWERS and _is_there(first):
            self.waits[_asker()] += 1
            return ANSWERS[function](first)
        if function in MAKERS:
            return self._make(function, *args, **kwargs)
        if function in (Tensor.to, Tensor.cpu):
            return self._copy(function, *args, **kwargs)
        if function is Tensor.__getitem__ and _is_there(first):
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(index, list) for index in indices):  # becomes a tensor on the host, then is copied
                self.waits[_asker()] += 1
            masks = [index for index in indices if _is_there(index) and index.dtype == torch.bool and index.ndim]
            if masks:  # the shape depends on values; as if all were true
                self.waits[_asker()] += 1
                return first.flatten(0, masks[0].ndim - 1)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        if len({x.device.type for x in tensors}) > 1:
            raise MixedDevices(f"{getattr(function, '__name__', function)}: tensors of two devices at {_asker()}")
        return function(*args, **kwargs)

    def _make(self, function, *args, **kwargs) -> Tensor:
        like = args[0] if function is Tensor.new_tensor else None
        device = torch.device(kwargs.get("device") or (like.device if like is not None else "cpu"))
        if device.type != "meta":
            return function(*args, **kwargs)
        self.waits[_asker()] += 1
        dtype = kwargs.get("dtype", like.dtype if like is not None else None)
        return torch.empty_like(torch.tensor(args[1 if like is not None else 0], dtype=dtype), device="meta")

    def _copy(self, function, x: Tensor, *args, **kwargs) -> Tensor:
        target = "cpu" if function is Tensor.cpu else kwargs.get("device")
        dtype = kwargs.get("dtype")
        for argument in args:
            if isinstance(argument, Tensor):
                target, dtype = argument.device, argument.dtype
            elif isinstance(argument, str | torch.device):
                target = argument
            elif isinstance(argument, torch.dtype):
                dtype = argument
        target = None if target is None else torch.device(target)
        if target is None or target.type == x.device.type:
            return function(x, *args, **kwargs)
        does_not_wait = kwargs.get("non_blocking") and target.type == "meta"
        (self.uploads if does_not_wait else self.waits)[_asker()] += 1
        return torch.ones_like(x, dtype=dtype, device=target)


def _asker() -> str:
    """The innermost line of the project among the callers, as file:line."""
    frame = sys._getframe(1)
    while frame and "/streamvggt/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.split('/streamvggt/')[-1]}:{frame.f_lineno}" if frame else "test"


def _is_there(x) -> bool:
    return isinstance(x, Tensor) and x.device.type == "meta"

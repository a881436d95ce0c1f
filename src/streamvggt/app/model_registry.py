"""Menu of weights. The selected weights are loaded on demand, one model at a time."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from torch import nn

from streamvggt.stream.pool import PooledStream, SessionPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsInfo:
    """What the page shows about a menu entry.

    Attributes:
        about: Size and purpose.
        limits: Warning for users who reconstruct their own photos, or "".
        has_tracker: Whether points can be tracked. None if unknown before the weights are loaded.
    """

    about: str = ""
    limits: str = ""
    has_tracker: bool | None = None


class ModelRegistry:
    """Menu of weights, and the loaded model, which several streams share.

    Args:
        choices: Menu labels and the names for `load`. The first is the default.
        load: Loads a causal model by name.
        allow_paths: Accept names that are not on the menu. Use this only with trusted users, because a name can be any
            path or download.
        stream_bytes: Maximum memory per stream in bytes. None disables the limit.
        infos: Descriptions of menu entries.
    """

    def __init__(
        self,
        choices: Mapping[str, str],
        load: Callable[[str], nn.Module],
        allow_paths: bool = False,
        stream_bytes: int | None = None,
        infos: Mapping[str, WeightsInfo] | None = None,
    ):
        self.choices = dict(choices)
        self.allow_paths = allow_paths
        self.stream_bytes = stream_bytes
        self._infos = dict(infos or {})
        self._load = load
        self._lock = threading.Lock()
        self._loaded: tuple[str, nn.Module] | None = None
        self._pool: SessionPool | None = None
        self._open = ExitStack()  # closes the pool on exit

    @property
    def default(self) -> str:
        return next(iter(self.choices))

    def name_of(self, label: str) -> str:
        """Return the name of a menu entry.

        Raises:
            ValueError: If the entry is not on the menu.
        """
        if label not in self.choices and not self.allow_paths:
            raise ValueError(f"Weights: expected {', '.join(self.choices)}, got {label[:60]!r}. Choose from the menu.")
        return self.choices.get(label, label)

    def info(self, label: str) -> WeightsInfo:
        """Return the description of a menu entry. A loaded model determines `has_tracker`."""
        info = self._infos.get(label, WeightsInfo())
        loaded = self._loaded
        if loaded is None or loaded[0] != self.choices.get(label, label):
            return info
        return replace(info, has_tracker="track" in loaded[1].heads)

    def get(self, label: str) -> nn.Module:
        """Return the model of a menu entry.

        Raises:
            ValueError: If the entry is not on the menu, or cannot be loaded. Only the log has the reason, because the
                reason can contain local file names.
        """
        name = self.name_of(label)
        with self._lock:
            if self._loaded is None or self._loaded[0] != name:
                self._open.close()
                self._loaded = self._pool = None  # free memory before loading the next model
                try:
                    self._loaded = (name, self._load(name))
                except (ValueError, OSError, RuntimeError) as error:
                    logger.warning("the weights %r cannot be loaded: %s", name, error)
                    raise ValueError(f"The weights {label[:60]!r} cannot be loaded. See the server log.") from error
            return self._loaded[1]

    def open(self, label: str, **options) -> PooledStream:
        """Open a stream on the model of a menu entry, with batched frames. Close the stream after use.

        Args:
            label: Menu entry.
            options: As for `SessionPool.open`.

        Raises:
            ValueError: As for `get`.
        """
        model = self.get(label)
        with self._lock:
            if self._pool is None:
                self._pool = self._open.enter_context(SessionPool(model, max_stream_bytes=self.stream_bytes))
            return self._pool.open(**options)

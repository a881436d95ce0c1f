"""The weights that visitors can choose, loaded when first asked for, one at a time in memory."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from torch import nn

from streamvggt.stream.pool import PooledStream, SessionPool

logger = logging.getLogger(__name__)


class ModelRegistry:
    """A menu of weights and the one network that is loaded, which several streams share.

    Args:
        menu: what the page calls them, and the names that `load` takes; the first is the default.
        load: makes the network of a name, ready to stream.
        allow_paths: names that are not on the menu may be given too; only where all visitors are trusted, for a name may
            be any path, and any download.
        stream_bytes: memory of one stream, at most; None: no bound.
    """

    def __init__(
        self,
        choices: Mapping[str, str],
        load: Callable[[str], nn.Module],
        allow_paths: bool = False,
        stream_bytes: int | None = None,
    ):
        self.choices = dict(choices)
        self.allow_paths = allow_paths
        self.stream_bytes = stream_bytes
        self._load = load
        self._lock = threading.Lock()
        self._loaded: tuple[str, nn.Module] | None = None
        self._pool: SessionPool | None = None
        self._open = ExitStack()  # closes the pool

    @property
    def default(self) -> str:
        return next(iter(self.choices))

    def name_of(self, label: str) -> str:
        """The name of a menu's entry.

        Raises:
            ValueError: it is not on the menu.
        """
        if label not in self.choices and not self.allow_paths:
            raise ValueError(f"There are no weights {label[:60]!r} to choose; there are {', '.join(self.choices)}.")
        return self.choices.get(label, label)

    def get(self, label: str) -> nn.Module:
        """The network of a menu's entry.

        Raises:
            ValueError: it is not on the menu, or cannot be loaded; why, only the log says, for a reason tells of files
                of this machine.
        """
        name = self.name_of(label)
        with self._lock:
            if self._loaded is None or self._loaded[0] != name:
                self._open.close()
                self._loaded = self._pool = None  # before the next one takes memory
                try:
                    self._loaded = (name, self._load(name))
                except (ValueError, OSError, RuntimeError) as error:
                    logger.warning("the weights %r cannot be loaded: %s", name, error)
                    raise ValueError(f"The weights {label[:60]!r} cannot be loaded; the log says why.") from error
            return self._loaded[1]

    def open(self, label: str, **options) -> PooledStream:
        """A stream on a menu's network, to be closed when it is over. Frames of several streams are computed together.

        Args:
            options: as of `SessionPool.open`.

        Raises:
            ValueError: as of `get`.
        """
        model = self.get(label)
        with self._lock:
            if self._pool is None:
                self._pool = self._open.enter_context(SessionPool(model, max_stream_bytes=self.stream_bytes))
            return self._pool.open(**options)

"""The weights that visitors can choose, loaded when first asked for, one at a time in memory."""

import threading
from collections.abc import Callable, Mapping

from torch import nn


class Networks:
    """A menu of weights and the one network that is loaded.

    Args:
        menu: what the page calls them, and the names that `load` takes; the first is the default.
        load: makes the network of a name, ready to stream.
        any_name: names that are not on the menu may be given too; only where all visitors are trusted, for a name may
            be any path, and any download.
    """

    def __init__(self, menu: Mapping[str, str], load: Callable[[str], nn.Module], any_name: bool = False):
        self.menu = dict(menu)
        self.any_name = any_name
        self._load = load
        self._lock = threading.Lock()
        self._loaded: tuple[str, nn.Module] | None = None

    @property
    def default(self) -> str:
        return next(iter(self.menu))

    def get(self, label: str) -> nn.Module:
        """The network of a menu's entry.

        Raises:
            ValueError: it is not on the menu, or the file is of another network.
            FileNotFoundError: its weights are not there.
        """
        if label not in self.menu and not self.any_name:
            raise ValueError(f"There are no weights {label!r} to choose; there are {', '.join(self.menu)}.")
        name = self.menu.get(label, label)
        with self._lock:
            if self._loaded is None or self._loaded[0] != name:
                self._loaded = None  # before the next one takes memory
                self._loaded = (name, self._load(name))
            return self._loaded[1]

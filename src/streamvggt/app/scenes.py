"""All scenes of a running page: whose they are, how many there may be, when they go."""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from streamvggt.app.folders import TemporaryRoot
from streamvggt.app.scene import Scene
from streamvggt.stream.frames import FrameSource

NO_OWNER = None
"""Owner of scenes that whoever knows the address may see: of the viewer on one's own machine."""

CLOSE_SECONDS = 30.0  # that the end of the program waits for frames in work


class Scenes:
    """Folders under one that only this user of the machine can read, one for each scene.

    Args:
        ttl_seconds: a scene that nobody has looked at for so long is removed, files and all.
        max_per_owner: scenes a visitor may have; the next one takes the place of the oldest.
        max_scenes: scenes of all visitors together.
        max_bytes: that all of it may take on the disk when something new is begun.
    """

    def __init__(
        self,
        ttl_seconds: float = 3600,
        max_per_owner: int = 2,
        max_scenes: int = 100,
        max_bytes: int = 20_000_000_000,
    ):
        self.ttl_seconds = ttl_seconds
        self.max_per_owner = max_per_owner
        self.max_scenes = max_scenes
        self.max_bytes = max_bytes
        self._root = TemporaryRoot()
        self.folder = self._root.path
        self._scenes: dict[str, tuple[str | None, Scene]] = {}
        self._lock = threading.Lock()

    def new(
        self,
        owner: str | None,
        kind: str,
        open_frames: Callable[..., FrameSource] | None = None,
        folder: Path | None = None,
    ) -> Scene:
        """A new scene of a visitor.

        Args:
            folder: made by `new_folder`, with the input in it; None: a new one.

        Raises:
            ValueError: there are too many scenes.
        """
        with self._lock:
            own = [scene for whose, scene in self._scenes.values() if whose == owner]
            for scene in own[: max(len(own) - self.max_per_owner + 1, 0)]:
                self._remove(scene)
            if len(self._scenes) >= self.max_scenes:
                raise ValueError("Too many people are here at the moment: try again in some minutes.")
            folder = folder or self.new_folder()
            scene = Scene(folder.name, folder, kind, open_frames)
            self._scenes[scene.id] = (owner, scene)
            return scene

    def new_folder(self) -> Path:
        """A folder with an unguessable name, for what a visitor brings.

        Raises:
            ValueError: there is no room left.
        """
        if self.num_bytes() > self.max_bytes:
            raise ValueError("There is no room left for new scenes at the moment: try again later.")
        folder = self.folder / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700)
        return folder

    @property
    def uploads(self) -> Path:
        """Where uploads lie until they are made into scenes."""
        return self.folder / "uploads"

    def num_bytes(self) -> int:
        """What all scenes and uploads take on the disk."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):  # removed meanwhile
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def get(self, id: str, owner: str | None) -> Scene | None:
        """A visitor's scene; None if there is none of that name, or it is another visitor's."""
        whose, scene = self._scenes.get(id, (None, None))
        if scene is None or (whose is not NO_OWNER and (owner is None or not secrets.compare_digest(whose, owner))):
            return None
        scene.used = time.monotonic()
        return scene

    def latest(self, owner: str | None) -> Scene | None:
        """The scene a visitor began last, to be found again when the page is loaded anew."""
        with self._lock:
            own = [scene for whose, scene in self._scenes.values() if whose == owner and owner is not NO_OWNER]
        return own[-1] if own else None

    def remove_expired(self) -> None:
        """Remove scenes that nobody has looked at for long, and uploads that became none."""
        with self._lock:
            for _, scene in list(self._scenes.values()):
                if time.monotonic() - scene.used > self.ttl_seconds:
                    self._remove(scene)
        for folder in self.uploads.glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > self.ttl_seconds:
                    shutil.rmtree(folder, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove all scenes; waits for frames in work."""
        with self._lock:
            scenes = [scene for _, scene in self._scenes.values()]
            for scene in scenes:
                self._remove(scene)
        deadline = time.monotonic() + CLOSE_SECONDS
        for scene in scenes:
            scene.wait_removed(max(deadline - time.monotonic(), 0))

    def close(self) -> None:
        """Remove everything."""
        self.remove_all()
        self._root.remove()

    def _remove(self, scene: Scene) -> None:
        del self._scenes[scene.id]
        scene.remove()

"""All scenes of a running page: owners, limits and expiry."""

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
from streamvggt.export import ResultFrame
from streamvggt.stream.frames import FrameSource

NO_OWNER = None
"""Owner of scenes that are accessible to anyone with the address, for the local viewer."""

CLOSE_SECONDS = 30.0  # maximum wait for current frames at the end of the program


class Scenes:
    """Folders of all scenes in one root that only the user of this process can read.

    Args:
        ttl_seconds: Seconds until an inactive scene is deleted.
        max_per_owner: Maximum number of scenes per user. A new scene replaces the oldest.
        max_scenes: Maximum number of scenes of all users.
        max_bytes: Maximum disk space before new scenes are rejected.
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
        change: Callable[[ResultFrame], ResultFrame] | None = None,
    ) -> Scene:
        """Create a scene of a user.

        Args:
            owner: Session id.
            kind: "images", "video" or "live".
            open_frames: As for `Scene`.
            folder: Folder of `new_folder` with the input. None creates a folder.
            change: As for `Scene`.

        Raises:
            ValueError: If there are too many scenes.
        """
        with self._lock:
            own = [scene for whose, scene in self._scenes.values() if whose == owner]
            for scene in own[: max(len(own) - self.max_per_owner + 1, 0)]:
                self._remove(scene)
            if len(self._scenes) >= self.max_scenes:
                raise ValueError("The server is full. Try again in a few minutes.")
            folder = folder or self.new_folder()
            scene = Scene(folder.name, folder, kind, open_frames, change)
            self._scenes[scene.id] = (owner, scene)
            return scene

    def new_folder(self) -> Path:
        """Create a folder with an unguessable name for user input.

        Raises:
            ValueError: If the disk limit is reached.
        """
        if self.num_bytes() > self.max_bytes:
            raise ValueError("The disk of the server is full. Try again later.")
        folder = self.folder / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700)
        return folder

    @property
    def uploads(self) -> Path:
        """Folder of uploads that are not yet scenes."""
        return self.folder / "uploads"

    def num_bytes(self) -> int:
        """Return the disk space of all scenes and uploads in bytes."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):  # deleted concurrently
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def get(self, id: str, owner: str | None) -> Scene | None:
        """Return a user's scene, or None if it does not exist or belongs to another user."""
        whose, scene = self._scenes.get(id, (None, None))
        if scene is None or (whose is not NO_OWNER and (owner is None or not secrets.compare_digest(whose, owner))):
            return None
        scene.used = time.monotonic()
        return scene

    def latest(self, owner: str | None) -> Scene | None:
        """Return the latest scene of a user, to restore it after a page reload."""
        with self._lock:
            own = [scene for whose, scene in self._scenes.values() if whose == owner and owner is not NO_OWNER]
        return own[-1] if own else None

    def remove_expired(self) -> None:
        """Delete inactive scenes and unused uploads."""
        with self._lock:
            for _, scene in list(self._scenes.values()):
                if time.monotonic() - scene.used > self.ttl_seconds:
                    self._remove(scene)
        for folder in self.uploads.glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > self.ttl_seconds:
                    shutil.rmtree(folder, ignore_errors=True)

    def remove_all(self) -> None:
        """Delete all scenes. Waits for current frames."""
        with self._lock:
            scenes = [scene for _, scene in self._scenes.values()]
            for scene in scenes:
                self._remove(scene)
        deadline = time.monotonic() + CLOSE_SECONDS
        for scene in scenes:
            scene.wait_removed(max(deadline - time.monotonic(), 0))

    def close(self) -> None:
        """Delete everything."""
        self.remove_all()
        self._root.remove()

    def _remove(self, scene: Scene) -> None:
        del self._scenes[scene.id]
        scene.remove()

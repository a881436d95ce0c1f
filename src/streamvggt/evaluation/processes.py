"""One evaluation split over processes, as `accelerate launch` or `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch

from streamvggt.folder_lock import FolderLock

Item = TypeVar("Item")
BARRIER_TIMEOUT = timedelta(days=30)  # a process may finish long before the others


class ProcessGroup:
    """Which part of the work is this process's. Processes meet only in files, and at `claim`, `gather` and `wait`.

    Within `with`, at the end of which the folders that were claimed are free again.
    """

    def __init__(self):
        self._locks = ExitStack()
        self._claimed: dict[Path, FolderLock | None] = {}  # the lock: in the main process
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        if self.count > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group("gloo", timeout=BARRIER_TIMEOUT)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item; together the processes have each of them once."""
        return items[self.rank :: self.count]

    def gather(self, entries: dict[str, Item]) -> dict[str, Item]:
        """The entries of all processes, in the main process; the others keep their own. All must call it."""
        if self.count == 1:
            return entries
        parts: list = [None] * self.count
        torch.distributed.gather_object(entries, parts if self.is_main else None)
        return {name: item for part in parts for name, item in part.items()} if self.is_main else entries

    def claim(self, folder: Path) -> None:
        """Let nobody else write to a folder, which is made if needed; all processes must ask for it.

        Raises:
            BlockingIOError: another evaluation holds it; so in all processes.
            OSError: it cannot be made or written to; so in all processes.
        """
        if folder in self._claimed:
            return
        problem: list[OSError | None] = [None]
        lock = None
        if self.is_main:
            try:
                lock = self._locks.enter_context(FolderLock(folder))
            except OSError as error:
                problem = [error]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(problem)
        if problem[0] is not None:
            raise problem[0]
        self._claimed[folder] = lock

    def check_folders(self) -> None:
        """Raises FileNotFoundError if a folder that was claimed has been deleted or moved."""
        for folder, lock in self._claimed.items():
            if not (folder.is_dir() if lock is None else lock.is_here):
                raise FileNotFoundError(
                    f"{folder}: expected the folder that this evaluation writes to, got none: it was deleted or moved. "
                    "Start again, or move it back and go on."
                )

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_) -> None:
        self._locks.close()
        self._claimed.clear()

    def barrier(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()

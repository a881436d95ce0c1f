"""Split one evaluation over processes started by `accelerate launch` or `torchrun`."""

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
BARRIER_TIMEOUT = timedelta(days=30)  # processes may differ much in run time


class ProcessGroup:
    """Share of the work of this process. Processes communicate only by files and by `claim`, `gather` and `barrier`.

    Use it in a `with` statement. The end of the block releases the claimed folders.
    """

    def __init__(self):
        self._locks = ExitStack()
        self._claimed: dict[Path, FolderLock | None] = {}  # only the main process has the lock
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
        """Return every n-th item. Together the processes have each item once."""
        return items[self.rank :: self.count]

    def gather(self, entries: dict[str, Item]) -> dict[str, Item]:
        """Return all entries in the main process, and the local entries in the others. All processes must call it."""
        if self.count == 1:
            return entries
        parts: list = [None] * self.count
        torch.distributed.gather_object(entries, parts if self.is_main else None)
        return {name: item for part in parts for name, item in part.items()} if self.is_main else entries

    def claim(self, folder: Path) -> None:
        """Lock a folder for this evaluation and create it if needed. All processes must call it.

        Raises:
            BlockingIOError: If another evaluation has locked the folder. Raised in all processes.
            OSError: If the folder cannot be created or written to. Raised in all processes.
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
        """Check that the claimed folders exist.

        Raises:
            FileNotFoundError: If a folder was deleted or moved.
        """
        for folder, lock in self._claimed.items():
            if not (folder.is_dir() if lock is None else lock.is_here):
                raise FileNotFoundError(
                    f"{folder}: expected the folder that this evaluation writes to, got none: it was deleted or moved. "
                    "Start again, or move it back and continue."
                )

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_) -> None:
        self._locks.close()
        self._claimed.clear()
        if torch.distributed.is_initialized():  # threads of Gloo that outlive the interpreter abort the process
            torch.distributed.destroy_process_group()

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            torch.distributed.barrier()

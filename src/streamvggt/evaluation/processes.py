"""One evaluation split over processes, as `accelerate launch` or `torchrun` start them."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch

Item = TypeVar("Item")
PATIENCE = timedelta(days=30)  # a process may finish long before the others


class Processes:
    """Which part of the work is this process's. Processes meet only in files and at `wait`."""

    def __init__(self):
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        if self.count > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group("gloo", timeout=PATIENCE)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item; together the processes have each of them once."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()

"""Processes that train together on the CPU, without a launcher."""

import datetime
import os
import socket
from collections.abc import Callable

import torch
import torch.distributed
import torch.multiprocessing
from launching import PROCESSES

PATIENCE = datetime.timedelta(seconds=30)
"""How long a process waits for the others: one that is out of step is to fail, not to hang."""


def run_together(work: Callable, *arguments, count: int = 2) -> None:
    """Call `work(rank, *arguments)` in `count` processes that form a gloo process group."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    args = (work, count, port, arguments)
    torch.multiprocessing.start_processes(_begin, args, nprocs=count, start_method=PROCESSES.get_start_method())


def _begin(rank: int, work: Callable, count: int, port: int, arguments: tuple) -> None:
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()}, ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    work(rank, *arguments)
    if torch.distributed.is_initialized():  # the work may have ended it
        torch.distributed.destroy_process_group()

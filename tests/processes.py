"""Processes that train together on the CPU, without a launcher."""

import datetime
import os
import socket
from collections.abc import Callable

import torch
import torch.distributed
import torch.multiprocessing

PATIENCE = datetime.timedelta(seconds=30)
"""How long a process waits for the others: one that is out of step is to fail, not to hang."""


def run_together(work: Callable, *arguments, count: int = 2) -> None:
    """Call `work(rank, *arguments)` in `count` processes that form a gloo process group."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(_begin, (work, count, port, arguments), nprocs=count)


def _begin(rank: int, work: Callable, count: int, port: int, arguments: tuple) -> None:
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()}, ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    work(rank, *arguments)
    torch.distributed.destroy_process_group()

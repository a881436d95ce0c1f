"""The training commands of the README, started as a user starts them, with settings small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = [
    "size=56",
    "num_frames=[2,2]",
    "max_images_per_process=2",
    "trainer.optim.steps=2",
    "trainer.optim.warmup_steps=1",
    "trainer.precision=no",
    "trainer.num_workers=0",
    "trainer.num_validation_batches=1",
    "trainer.log_every=1",
]


def launch(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, env=environment, timeout=400)

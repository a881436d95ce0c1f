"""Streams in processes that are killed.

FOLDER/…/whole: one process streams all frames. FOLDER/…/killed: each process goes on from the last saved state, until
it is killed itself, after a frame or in the middle of saving. They write digests of their answers.
"""

import hashlib
import io
import os
import signal
from pathlib import Path

import torch
from small_models import SHALLOW, images, tiny

from streamvggt import SlidingWindow, StreamSession
from streamvggt.stream.policies.probe_saliency import ProbeSaliency

POLICIES = {"window": SlidingWindow(1, 3, 4), "saliency": ProbeSaliency(3, 2)}
NUM_FRAMES, SAVE_EVERY = 60, 8
LIVES = ((10, False), (31, True), (32, False), (55, True), (55, True), (None, False))
"""For each process: after which frame it is killed, and whether while it saves that frame's state."""


def life(folder: Path, policy, killed_after: int | None, while_saving: bool) -> None:
    model = tiny(heads=("camera", "depth"), **SHALLOW)
    frames = images(1, 10, 14, 28)[0]
    session = StreamSession(model, policy=policy)
    if (folder / "state.pt").exists():
        session.restore(folder / "state.pt")
    with open(folder / "answers.txt", "a", encoding="utf-8") as answers:
        for number in range(session.num_frames, NUM_FRAMES):
            output = session.push(frames[number % 10])
            digest = hashlib.sha256(b"".join(value.tobytes() for value in output.numpy().values())).hexdigest()
            answers.write(f"{number} {digest}\n")
            answers.flush()
            if number == killed_after and while_saving:
                torch.save = half_saved
            elif number == killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if number % SAVE_EVERY == SAVE_EVERY - 1:
                session.save(folder / "state.pt")


def half_saved(state, path, save=torch.save) -> None:
    whole = io.BytesIO()
    save(state, whole)
    with open(path, "wb") as file:
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, policy, lives) -> None:
    folder.mkdir(parents=True)
    for killed_after, while_saving in lives:
        child = os.fork()  # a process of its own without loading everything again
        if child == 0:
            life(folder, policy, killed_after, while_saving)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == (0 if killed_after is None else signal.SIGKILL)


def run_all(folder: Path) -> None:
    torch.set_num_threads(1)
    for name, policy in POLICIES.items():
        run(folder / name / "whole", policy, [(None, False)])
        run(folder / name / "killed", policy, LIVES)

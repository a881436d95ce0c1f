"""Child process of endurance.py: stream frames, record the resources, and save the state.

    python benchmarks/endurance_stream.py window:1,8 --frames 2000 --save-every 500 --work out/stream

The process continues from the last state in the folder. `pool` is four streams in one pool that are saved together.
"""

import argparse
import gc
import hashlib
import json
import os
import shutil
import signal
import struct
import time
from pathlib import Path

import psutil
import torch

from streamvggt import (
    FrameDiversity,
    ProbeSaliency,
    SessionPool,
    SlidingWindow,
    StreamSession,
    StreamVGGT,
    TokenDiversity,
)
from streamvggt.flags import some_path, whole, word
from streamvggt.stream.policy import parse_policy

NETWORK = {
    "image_size": 56,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "encoder_depth": 1,
    "encoder_num_heads": 2,
    "camera_trunk_depth": 1,
    "camera_num_heads": 2,
    "camera_iterations": 2,
    "dpt_layers": (0, 0, 1, 1),
    "dpt_features": 16,
    "dpt_channels": (8, 16, 16, 16),
    "heads": ("camera", "depth"),
}
IMAGE_SIZE = (14, 28)
POOL = "pool"
POOL_POLICIES = (SlidingWindow(1, 8), FrameDiversity(8), TokenDiversity(8), ProbeSaliency(5))
NOTE_EVERY = 500  # frames
RECORD = struct.Struct("<I8s")  # frame, digest of its prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", type=word, help="policy, or pool")
    parser.add_argument("--frames", type=whole(), required=True, help="number of frames")
    parser.add_argument("--save-every", type=whole(), required=True, help="frames between two saved states")
    parser.add_argument("--work", type=some_path, required=True, help="folder of the state and the measurements")
    parser.add_argument(
        "--dies-while-saving", type=whole(), metavar="N", help="kill the process in its n-th saved file"
    )
    arguments = parser.parse_args()
    if arguments.dies_while_saving:
        torch.save = DyingSave(arguments.dies_while_saving)
    stream(arguments.policy, arguments.frames, arguments.save_every, arguments.work)


def stream(memory: str, num_frames: int, save_every: int, folder: Path) -> None:
    """Stream up to `num_frames`, from the last state in `folder` if there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = StreamVGGT(**NETWORK).eval().requires_grad_(False)
    images = torch.rand(97, 3, *IMAGE_SIZE)
    streams = Together(model, folder) if memory == POOL else Single(model, memory, folder)
    process = psutil.Process()
    begun, spent_saving, done_before = time.process_time(), 0.0, streams.num_frames
    with (
        (folder / "answers.bin").open("ab") as answers,
        (folder / "notes.txt").open("a", encoding="utf-8") as notes,
    ):
        for frame in range(streams.num_frames, num_frames):
            outputs = streams.push(images, frame)
            digest = hashlib.blake2b(digest_size=8)
            for prediction in outputs:
                for value in prediction.numpy().values():
                    digest.update(value.tobytes())
            del outputs, prediction
            answers.write(RECORD.pack(frame, digest.digest()))
            answers.flush()
            if (frame + 1) % save_every == 0:
                before = time.process_time()
                streams.save()
                spent_saving += time.process_time() - before
            if (frame + 1) % NOTE_EVERY == 0:
                spent = time.process_time() - begun
                gc.collect()
                note = {
                    "frame": frame + 1,
                    "ms": (spent - spent_saving) / (frame + 1 - done_before) * 1000,
                    "rss": process.memory_info().rss,
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                    "objects": len(gc.get_objects()),
                    "memory": streams.num_bytes,
                }
                notes.write(json.dumps(note) + "\n")
                notes.flush()
                begun, spent_saving, done_before = time.process_time(), 0.0, frame + 1


class DyingSave:
    """Replaces torch.save: writes half of the n-th file and kills the process."""

    def __init__(self, number: int):
        self.number = number
        self.save = torch.save

    def __call__(self, state, path) -> None:
        self.save(state, path)
        self.number -= 1
        if self.number == 0:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


class Single:
    """One session, saved to one file."""

    def __init__(self, model, memory: str, folder: Path):
        self.session = StreamSession(model, policy=parse_policy(memory))
        self.path = folder / "state.pt"
        if self.path.exists():
            self.session.restore(self.path)

    @property
    def num_frames(self) -> int:
        return self.session.num_frames

    @property
    def num_bytes(self) -> int:
        return self.session.num_bytes

    def push(self, images, frame: int) -> list:
        return [self.session.push(images[frame % len(images)])]

    def save(self) -> None:
        self.session.save(self.path)


class Together:
    """Streams of a pool, saved to one folder per time, so that all continue from the same frame.

    Predictions of a stream differ by rounding in another batch. To be bit-exact, all streams must continue together.
    """

    def __init__(self, model, folder: Path):
        self.pool = SessionPool(model)
        self.streams = [self.pool.open(policy=policy) for policy in POOL_POLICIES]
        self.folder = folder / "states"
        self.folder.mkdir(exist_ok=True)
        if saved := self._saved():
            for number, stream in enumerate(self.streams):
                stream.restore(saved[-1] / f"{number}.pt")

    def _saved(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix != ".part")

    @property
    def num_frames(self) -> int:
        return self.streams[0].session.num_frames

    @property
    def num_bytes(self) -> int:
        return sum(stream.session.num_bytes for stream in self.streams)

    def push(self, images, frame: int) -> list:
        futures = [stream.push(images[(frame + number) % len(images)]) for number, stream in enumerate(self.streams)]
        self.pool.step()
        return [future.result() for future in futures]

    def save(self) -> None:
        before = self._saved()
        place = self.folder / f"{self.num_frames:08d}"
        part = place.with_suffix(".part")
        for number, stream in enumerate(self.streams):
            stream.save(part / f"{number}.pt")
        os.replace(part, place)
        for path in before:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()

"""Damaged files of every kind that is read: a documented error that names the file, or a valid result.

No other exception, no hang, no file outside the test's folder, and no more memory than for a good file of any size
that is accepted. The damage is the same in every run (tests/mutations.py).
"""

import faulthandler
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from mutations import as_json, damaged, wrong
from PIL import Image
from small_models import SHALLOW, TINY

from streamvggt import SlidingWindow, StreamSession, StreamVGGT, load_model
from streamvggt.cli import main
from streamvggt.cli.run_metadata import RunMetadata, read_previous_settings
from streamvggt.export import ReconstructionResult, ResultWriter, check_result
from streamvggt.files import seal
from streamvggt.model.saving import save_model
from streamvggt.stream.frames import load_frames
from streamvggt.stream.state_file import save_state
from streamvggt.training.checkpoint import CheckpointManager

SECONDS = 5.0  # of processor time for one damaged file
HANG = 60  # seconds after which the process ends and says where it was
MEGABYTES = 700
OUTSIDE: list[str] = []
_inside: list[str] = []


def _note_writes(event: str, arguments: tuple) -> None:
    if not _inside or event not in ("open", "os.mkdir", "os.rename", "os.link", "os.symlink"):
        return
    if event == "open":
        path, mode, flags = arguments
        writes = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = path if writes else None
    else:
        path = arguments[0 if event == "os.mkdir" else 1]
    if isinstance(path, str | bytes | os.PathLike):
        real = os.path.realpath(os.fsdecode(path))
        if not real.startswith((_inside[0], "/dev/")):
            OUTSIDE.append(real)


sys.addaudithook(_note_writes)


@pytest.fixture(autouse=True)
def closed_folder(tmp_path, monkeypatch) -> Iterator[None]:
    """The rules for all damaged files of a test together: memory, places of new files, hangs."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    OUTSIDE.clear()
    before = _peak_megabytes(restart=True)
    faulthandler.dump_traceback_later(HANG, exit=True)
    _inside.append(os.path.realpath(tmp_path))
    try:
        yield
    finally:
        _inside.clear()
        faulthandler.cancel_dump_traceback_later()
    grown = _peak_megabytes() - before
    assert grown < MEGABYTES, f"{grown:.0f} MB"
    assert not OUTSIDE
    assert not list((tmp_path / "elsewhere").iterdir())


def _peak_megabytes(restart: bool = False) -> float:
    """The most memory that this process has had; on Linux since the last restart."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if restart:
        reset.write_text("5")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


@contextmanager
def refused_or_fine(path: Path, what: object) -> Iterator[None]:
    """A documented error that names the file, or none; soon."""
    begun = time.process_time()
    try:
        yield
    except (ValueError, OSError) as error:
        assert path.name in str(error), f"{what}: {type(error).__name__} without the file's name: {error}"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert time.process_time() - begun < SECONDS, what


def each_damaged(path: Path, count: int, read: Callable[[], object], named: Path | None = None) -> None:
    """Read a file as often as it has been damaged; then it is whole again.

    Args:
        named: what errors name; None: the file.
    """
    whole = path.read_bytes()
    for number, data in enumerate(damaged(whole, count, seed=len(path.name))):
        path.write_bytes(data)
        with refused_or_fine(named or path, f"damage {number} of {path.name}"):
            read()
    path.write_bytes(whole)
    read()


def picture(number: int = 0) -> Image.Image:
    y, x = np.indices((30, 40))
    return Image.fromarray(np.stack([6 * x, 8 * y, (x * y + 40 * number) % 256], -1).astype(np.uint8))


def read_images(source) -> None:
    frames = load_frames(source, size=28)
    for frame in frames:
        assert frame.image.shape[0] == 3
        assert frame.image.isfinite().all()
        assert (frame.image >= 0).all() and (frame.image <= 1).all()


IMAGES = {
    "png": {},
    "apng": {"save_all": True, "append_images": [picture(1)]},
    "jpg": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    "webp": {},
    "gif": {"save_all": True, "append_images": [picture(1), picture(2)]},
    "tiff": {"compression": "tiff_lzw"},
    "bmp": {},
    "jp2": {},
    "tga": {},
    "ppm": {},
    "heic": {},
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.filterwarnings("ignore")
def test_images(kind, tmp_path):
    suffix = "png" if kind == "apng" else kind
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    folder = tmp_path / "photos"
    folder.mkdir()
    picture().save(folder / "a.jpg")
    path = folder / f"broken.{suffix}"
    picture().save(path, **IMAGES[kind])
    for data in damaged(path.read_bytes(), 48, seed=7):
        path.write_bytes(data)
        with refused_or_fine(path, kind):
            read_images(folder)
        with refused_or_fine(path, kind):
            read_images(path)


VIDEOS = {"mp4": "mpeg4", "mkv": "mpeg4", "avi": "mjpeg", "webm": "libvpx"}


@pytest.mark.parametrize("kind", VIDEOS)
def test_videos(kind, tmp_path):
    path = tmp_path / f"clip.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(VIDEOS[kind], rate=10)
        stream.width, stream.height = 40, 30
        stream.pix_fmt = "yuvj420p" if VIDEOS[kind] == "mjpeg" else "yuv420p"
        for number in range(6):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(number))))
        container.mux(stream.encode())
    each_damaged(path, 48, lambda: read_images(path))
    each_damaged(path, 12, lambda: list(load_frames(path, size=28, fps=5)))


@pytest.fixture(scope="module")
def network() -> StreamVGGT:
    torch.manual_seed(0)
    return StreamVGGT(**{**TINY, **SHALLOW, "heads": ("camera", "depth", "points")}).eval()


@pytest.fixture
def result(network, tmp_path) -> Path:
    """A result folder of three frames."""
    folder = tmp_path / "result"
    session, writer = StreamSession(network, policy=SlidingWindow(1, 2)), ResultWriter(folder)
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    for frame in load_frames(str(tmp_path / "*.png"), size=28):
        writer.add(frame, session.push(frame))
    return folder


def read_result(folder: Path) -> None:
    found = ReconstructionResult(folder)
    check_result(found)
    assert all(np.isfinite(camera.cam_from_world).all() for camera in found.cameras())


def test_frame_files(result):
    each_damaged(result / "frames" / "000001.npz", 96, lambda: read_result(result))


ARRAYS = {
    "none": np.array(None, object),
    "text": np.array("../../outside"),
    "flag": np.array(True),
    "huge": np.array(2**62),
    "negative": np.array(-(2**62)),
    "not a number": np.array(np.nan),
    "infinite": np.full((3, 4), np.inf),
    "zeros": np.zeros((3, 3)),
    "empty": np.zeros((0, 3)),
    "deep": np.zeros((1,) * 32),
    "complex": np.zeros((3, 3), complex),
    "large numbers": np.full((3, 3), 1e300),
}


def test_fields_of_frame_files(result, tmp_path, capsys):
    path = result / "frames" / "000001.npz"
    with np.load(path) as file:
        fields = dict(file)
    for name, array in fields.items():
        tries = {**ARRAYS, "cut": array.reshape(-1)[:-1], "bytes": array.astype("S")}
        if array.dtype.kind in "fiu":
            limits = np.finfo(array.dtype) if array.dtype.kind == "f" else np.iinfo(array.dtype)
            tries |= {"greatest": np.full_like(array, limits.max), "least": np.full_like(array, limits.min)}
        if array.dtype.kind == "f":
            tries |= {"all nan": np.full_like(array, np.nan), "all inf": np.full_like(array, np.inf)}
        for what, new in tries.items():
            np.savez(path, **{**fields, name: new})
            is_read = False
            with refused_or_fine(path, f"{name}: {what}"), np.errstate(all="ignore"):
                read_result(result)
                is_read = True
            if is_read:  # so it must be exported, or the way out be named
                with np.errstate(all="ignore"):
                    arguments = ["export", str(result), "--out", str(tmp_path / "exports"), "--formats"]
                    status = main([*arguments, "glb,ply,colmap,tum,depth,video"])
                assert status in (0, 1), f"{name}: {what}"
                assert "Traceback" not in capsys.readouterr().err


def test_corrections(result):
    path = result / "corrections.json"
    one = {"scale": 1.0, "rotation": np.eye(3).tolist(), "translation": [0.0, 0.0, 0.0]}
    whole = [{"first_frame": 0, **one}, {"first_frame": 2, **one}]
    path.write_bytes(as_json(whole))
    read_result(result)
    each_damaged(path, 48, lambda: read_result(result))
    for name, value in wrong(whole, 100, seed=1):
        path.write_bytes(as_json(value))
        with refused_or_fine(path, name):
            read_result(result)


def test_run_records(tmp_path):
    path, settings = tmp_path / "run.json", {"weights": "a", "size": 28, "input": ["x.png"]}
    whole = {
        "command": ["reconstruct"],
        "status": "interrupted",
        "error": None,
        "settings": settings,
        "device": "cpu",
        "versions": {"torch": "2"},
        "started": "2026-01-01T00:00:00+00:00",
        "frames": {"input_total": 9, "done": 3, "skipped": [["a.png", "not an image"]]},
        "timings": {"median_ms": 1.5, "p95_ms": 2.0, "seconds": 3.0},
        "submaps": {"num": 2, "latest_restarts": [[3, "lost"]]},
        "exports": ["scene.glb"],
    }

    def go_on() -> None:
        options = {"command": [], "device": torch.device("cpu"), "settings": settings, "num_input": 9, "num_done": 3}
        record = RunMetadata(tmp_path, **options)
        record.finish(["scene.ply"], [])
        read_previous_settings(path, settings)  # what was written can be gone on with

    path.write_bytes(as_json(whole))
    each_damaged(path, 72, go_on, named=tmp_path)
    for name, value in wrong(whole, 200, seed=2):
        path.write_bytes(as_json(value))
        with refused_or_fine(tmp_path, name):
            go_on()


@pytest.fixture
def weights(network, tmp_path) -> Path:
    save_model(network, tmp_path / "weights")
    return tmp_path / "weights"


def test_bytes_of_weights(weights):
    each_damaged(weights / "model.safetensors", 60, lambda: load_model(weights / "model.safetensors"))


def test_headers_of_weights(weights):
    path = weights / "model.safetensors"
    data = path.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8:length]), data[length:]
    for name, value in wrong(header, 75, seed=3):
        text = as_json(value)
        path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
        with refused_or_fine(path, name):
            load_model(path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_configs_of_weights(name, weights):
    """Of the one in the file of weights, and of the one beside it."""
    from safetensors.torch import load_file, save_file

    path, config = weights / name, json.loads((weights / "config.json").read_text())
    tensors = load_file(weights / "model.safetensors")
    if name == "config.json":
        save_file(tensors, weights / "model.safetensors")  # without a config of its own
        each_damaged(path, 30, lambda: load_model(weights), named=weights)
    for where, value in wrong(config, 75, seed=4):
        text = as_json(value)
        if name == "config.json":
            path.write_bytes(text)
        else:
            save_file(tensors, path, metadata={"config": text.decode()})
        with refused_or_fine(weights if name == "config.json" else path, where):
            load_model(path if path.suffix == ".safetensors" else weights)


def test_pickled_weights(network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(
        {"model": network.state_dict(), "config": {"model_type": "streamvggt", **network.config.as_dict()}}, path
    )
    each_damaged(path, 60, lambda: load_model(path))


TENSORS = [None, True, -1, 10**30, 1e300, float("nan"), "", [], {}, [None], torch.zeros(0), torch.full((2, 3), 1e30)]


def stream(network) -> StreamSession:
    session = StreamSession(network, policy=SlidingWindow(1, 2))
    for _ in range(4):
        session.push(torch.rand(3, 28, 42))
    return session


def test_saved_streams(network, tmp_path):
    path = tmp_path / "state.pt"
    saved, session = stream(network), stream(network)
    saved.save(path)
    each_damaged(path, 72, lambda: session.restore(path))
    session.push(torch.rand(3, 28, 42))  # nothing of what failed is left


def test_values_of_saved_streams(network, tmp_path):
    """Sealed, but not by this program."""
    path, session = tmp_path / "state.pt", stream(network)
    for name, value in wrong({"identity": session._identity, "state": session.memory.state_dict()}, 150, 5, TENSORS):
        save_state(path, value.get("identity"), value.get("state"))
        with refused_or_fine(path, name):
            session.restore(path)


@pytest.fixture(scope="module")
def compiler():
    """Optimizers import PyTorch's compiler, which makes a folder outside that of the test."""
    import_module("torch._dynamo")


@pytest.fixture
def training(compiler, network, tmp_path):
    checkpoints = CheckpointManager(tmp_path / "states")
    model = StreamVGGT(**{**TINY, **SHALLOW, "heads": ("camera", "depth")})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    checkpoints.save(1, model, optimizer, model.config.as_dict(), {"best": 1.5})
    return checkpoints, model, optimizer


def test_training_states(training):
    checkpoints, model, optimizer = training
    each_damaged(checkpoints.last, 30, lambda: checkpoints.load(checkpoints.last, model, optimizer))


def test_values_of_training_states(training):
    """Sealed, but not by this program."""
    checkpoints, model, optimizer = training
    whole = torch.load(checkpoints.last, weights_only=True)
    for name, value in wrong(whole, 40, 6, TENSORS):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        checkpoints.last.write_bytes(buffer.getvalue())
        seal(checkpoints.last)
        with refused_or_fine(checkpoints.last, name):
            checkpoints.load(checkpoints.last, model, optimizer)

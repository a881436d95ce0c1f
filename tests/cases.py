"""Run the cases of a folder as a user would, each with its own command, and compare: python tests/cases.py CASES

CASES holds the inputs (README.md there says what each one is). One line per case: case | expected | got | ok. The exit
status is 1 if any differs. Not collected by pytest: the folder is no part of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
CASES: list[tuple[str, str, Callable[[Folder], tuple[bool, str]]]] = []
"""Name, what is expected, and what tells whether it is so and what there is instead."""


@dataclass
class Done:
    """What a command left.

    text: its output, errors included.
    out: the result folder that it was given.
    megabytes: the most memory it had.
    """

    status: int
    text: str
    out: Path
    megabytes: float = 0.0

    @property
    def last(self) -> str:
        lines = [line.strip() for line in self.text.splitlines() if line.strip() and "frame/s" not in line]
        return lines[-1] if lines else "not a word"

    @property
    def names(self) -> list[str]:
        return [str(np.load(path)["name"]) for path in sorted((self.out / "frames").glob("*.npz"))]

    @property
    def record(self) -> dict:
        path = self.out / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def says(self, *words: str) -> bool:
        return any(word.lower() in self.text.lower() for word in words)

    def told(self) -> str:
        """In one line for a person."""
        return f"rc {self.status}, {len(self.names)} frames; {self.last[:150]}"


@dataclass
class Folder:
    """Inputs, and a place to work in."""

    cases: Path
    work: Path
    number: int = 0

    def run(self, *words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Done:
        """Run `streamvggt` with words, in the folder of cases."""
        arguments = [sys.executable, "-m", "streamvggt", *map(str, words)]
        out = Path(words[words.index("--out") + 1]) if "--out" in words else self.work
        return self.call(arguments, cwd or self.cases, out, env)

    def call(self, arguments: list[str], cwd: Path, out: Path, env: dict[str, str] | None = None) -> Done:
        log = self.work / "log.txt"
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        with open(log, "wb") as file:
            process = subprocess.Popen(
                arguments, cwd=cwd, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": path, **(env or {})}
            )
            _, status, usage = os.wait4(process.pid, 0)
        text = log.read_text(encoding="utf-8", errors="replace")
        return Done(os.waitstatus_to_exitcode(status), text, out, usage.ru_maxrss / 1024)

    def reconstruct(self, source: object, *options: object, export: str = "none", **how) -> Done:
        return self.run("reconstruct", source, "--out", self.new(), "--formats", export, *options, **how)

    def new(self) -> Path:
        self.number += 1
        return self.work / f"o{self.number}"

    def photos(self, count: int) -> Path:
        """A new folder of photos."""
        folder = self.new()
        folder.mkdir(parents=True)
        source = sorted((self.cases / "times").glob("*.jpg"))
        for number in range(count):
            shutil.copy(source[number % len(source)], folder / f"{number:03d}.jpg")
        return folder


def case(name: str, expected: str):
    """Add a case; its function answers whether it is as expected, and what there is."""

    def added(function: Callable[[Folder], tuple[bool, str]]):
        CASES.append((name, expected, function))
        return function

    return added


@case("times/", "six frames in the order of the times")
def times(folder: Folder):
    done = folder.reconstruct("times", export="tum")
    return done.status == 0 and done.names == sorted(done.names, key=float) and len(done.names) == 6, ", ".join(
        done.names
    )


@case("heic_among_jpg/", "the third photo is read, or told as left out")
def heic_among(folder: Folder):
    done = folder.reconstruct("heic_among_jpg")
    skipped = done.record.get("frames", {}).get("skipped", [])
    is_told = done.says("2.heic") and bool(skipped)
    return done.status == 0 and (len(done.names) == 3 or is_told), f"{done.told()}; skipped {skipped}"


@case("heic_among_jpg/ --strict", "three frames, or an error")
def heic_among_strict(folder: Folder):
    done = folder.reconstruct("heic_among_jpg", "--strict")
    return (done.status == 0 and len(done.names) == 3) or (done.status == 1 and done.says("2.heic")), done.told()


def _heic(name: str):
    @case(f"heic/{name}", "one frame, read as an image, or a refusal that says HEIC")
    def heic_file(folder: Folder):
        done = folder.reconstruct(f"heic/{name}", "--strict")
        is_read = done.status == 0 and len(done.names) == 1 and not done.says("video")
        return is_read or (done.status == 1 and done.says("heic", "heif")), done.told()


@case("heic/", "three frames, or a word to convert HEIC")
def heic_folder(folder: Folder):
    done = folder.reconstruct("heic", "--strict")
    is_refused = done.status == 1 and done.says("convert")
    return (done.status == 0 and len(done.names) == 3) or is_refused, done.told()


def _animated(name: str):
    @case(f"animated/{name}", "four frames, or a word that only the first is taken")
    def animated(folder: Folder):
        done = folder.reconstruct(f"animated/{name}")
        is_told = len(done.names) == 1 and done.says("first")
        return done.status == 0 and (len(done.names) == 4 or is_told), done.told()


@case("photos.txt", "a refusal: no image, no video")
def text_file(folder: Folder):
    done = folder.reconstruct("photos.txt")
    return done.status == 1 and not done.names and done.says("photos.txt"), done.told()


@case("alpha/", "no points where alpha is 0")
def alpha(folder: Folder):
    done = folder.reconstruct("alpha", "--conf-percentile", 0, export="ply,colmap")
    num_points = _ply_points(done.out)
    opaque = sum((np.asarray(Image.open(path).convert("RGBA"))[..., 3] > 0).mean() for path in _files(folder, "alpha"))
    pixels = [np.load(path)["image"].shape[:2] for path in sorted((done.out / "frames").glob("*.npz"))]
    most = opaque / max(len(pixels), 1) * sum(height * width for height, width in pixels)
    return done.status == 0 and 0 < num_points <= 1.1 * most, f"rc {done.status}, {num_points} points of {most:.0f}"


@case("white/ --drop-white, all exports", "rc 1; TUM, depth and video written, the rest told")
def white(folder: Folder):
    done = folder.reconstruct("white", "--drop-white", export="glb,ply,tum,depth,video")
    there = [name for name in ("trajectory.txt", "depth", "preview.mp4") if (done.out / name).exists()]
    return done.status == 1 and len(there) == 3 and done.says("ply"), f"rc {done.status}, {there}; {done.last[:120]}"


@case("white/ --drop-white --formats colmap", "rc 1 and a word that no point is left; cameras may be there")
def white_colmap(folder: Folder):
    done = folder.reconstruct("white", "--drop-white", export="colmap")
    return done.status == 1 and done.says("no point"), done.told()


def _thin(options: tuple, title: str):
    @case(f"thin.png {title}", "less than 1 GB of memory")
    def thin(folder: Folder):
        source = folder.cases / "thin.png"
        if options:
            source = folder.new().with_suffix(".png")
            Image.new("RGB", (1, 4000)).save(source)
        done = folder.reconstruct(source, *options)
        return done.status in (0, 1) and done.megabytes < 1000, f"rc {done.status}, {done.megabytes:.0f} MB"


@case("照片/ under an ASCII locale", "three frames and run.json")
def ascii_locale(folder: Folder):
    done = folder.reconstruct("照片", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    return done.status == 0 and len(done.names) == 3 and done.record.get("status") == "finished", done.told()


@case("照片/ bytewise", "names of the COLMAP export are ASCII, and its files are there")
def bytewise(folder: Folder):
    done = folder.reconstruct("照片", export="colmap")
    path = done.out / "colmap/sparse/0/images.bin"
    names = colmap_names(path.read_bytes()) if path.exists() else []
    are_there = all((done.out / "colmap/images" / name.decode()).exists() for name in names)
    is_ascii = len(names) == 3 and all(name.isascii() for name in names)
    return done.status == 0 and is_ascii and are_there, f"rc {done.status}, {names}"


def colmap_names(data: bytes) -> list[bytes]:
    """Names in an images.bin."""
    (count,), place, names = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        end = data.index(b"\0", place + 64)
        names.append(data[place + 64 : end])
        (num_points,) = struct.unpack_from("<Q", data, end + 1)
        place = end + 9 + 24 * num_points
    return names


@case("clip [1]/*.jpg", "three frames")
def brackets(folder: Folder):
    done = folder.reconstruct("clip [1]/*.jpg")
    return done.status == 0 and len(done.names) == 3, done.told()


@case("grey12/", "the brightest pixel is bright, or a word")
def grey(folder: Folder):
    done = folder.reconstruct("grey12")
    brightest = max((int(np.load(path)["image"].max()) for path in (done.out / "frames").glob("*.npz")), default=0)
    return done.status == 0 and (brightest > 200 or done.says("bit")), f"rc {done.status}, brightest {brightest}"


def _late(options: tuple):
    @case(" ".join(["late.mkv", *options]), "six frames, not a word of damage")
    def late(folder: Folder):
        done = folder.reconstruct("late.mkv", *options)
        return done.status == 0 and len(done.names) == 6 and not done.says("damaged"), done.told()


@case("anamorphic.mp4", "originals of 112 × 84, as players show them")
def anamorphic(folder: Folder):
    done = folder.reconstruct("anamorphic.mp4")
    sizes = {tuple(np.load(path)["original_size"].tolist()) for path in (done.out / "frames").glob("*.npz")}
    return done.status == 0 and sizes == {(84, 112)}, f"rc {done.status}, H×W {sizes}"


@case("names: one that is no UTF-8", "four frames; GLB, COLMAP and depth are all written")
def names_bytes(folder: Folder):
    photos = folder.photos(3)
    shutil.copy(photos / "000.jpg", os.fsencode(photos) + b"/\xff\xfe.jpg")
    done = folder.reconstruct(photos, export="glb,colmap,depth")
    there = [name for name in ("scene.glb", "colmap", "depth") if (done.out / name).exists()]
    return done.status == 0 and len(done.names) == 4 and len(there) == 3, f"{done.told()}; {there}"


@case("names: a skipped one that is no UTF-8", "three frames; run.json names what was skipped")
def names_skipped(folder: Folder):
    photos = folder.photos(3)
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff\xfe.jpg")).write_text("junk")
    done = folder.reconstruct(photos)
    skipped = done.record.get("frames", {}).get("skipped", [])
    return done.status == 0 and len(done.names) == 3 and len(skipped) == 1, f"{done.told()}; skipped {skipped!a}"


@case("names: one of 247 bytes", "four frames")
def names_long(folder: Folder):
    photos = folder.photos(3)
    shutil.copy(photos / "000.jpg", photos / ("L" * 247 + ".jpg"))
    done = folder.reconstruct(photos)
    return done.status == 0 and len(done.names) == 4, done.told()


def interrupted(folder: Folder, count: int) -> tuple[Path, Path]:
    """A folder of photos, and a result that was stopped after some of them."""
    photos, out = folder.photos(count), folder.new()
    words = [sys.executable, "-m", "streamvggt", "reconstruct", photos, "--out", out, "--formats", "none"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    while process.poll() is None and not (out / "frames/000010.npz").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait()
    return photos, out


def go_on(folder: Folder, source: object, out: Path, **how) -> Done:
    return folder.run("reconstruct", source, "--out", out, "--formats", "none", "--resume", **how)


@case("resume: photos added in front", "refused or told; no frame twice")
def resume_front(folder: Folder):
    photos, out = interrupted(folder, 200)
    for name in ("000a", "000b"):
        shutil.copy(photos / "000.jpg", photos / f"{name}.jpg")
    done = go_on(folder, photos, out)
    is_unique = len(set(done.names)) == len(done.names)
    is_said = done.status == 1 and done.says("000a", "files", "input")
    return is_said or (is_unique and "000a" in done.names), done.told()


@case("resume: a portrait photo added", "goes on, or says that the folder changed")
def resume_portrait(folder: Folder):
    photos, out = interrupted(folder, 200)
    Image.open(photos / "000.jpg").rotate(90, expand=True).save(photos / "200.jpg")
    done = go_on(folder, photos, out)
    is_said = done.status == 1 and done.says("200.jpg", "changed", "input", "added")
    return (done.status == 0 and len(done.names) == 201) or is_said, done.told()


@case("resume: folder/ and an absolute path", "goes on")
def resume_spelling(folder: Folder):
    photos, out = interrupted(folder, 60)
    done = go_on(folder, f"{photos.name}/", out, cwd=photos.parent)
    again = go_on(folder, f"{photos}/", out)
    return done.status == again.status == 0 and len(done.names) == 60, f"{done.told()}; then rc {again.status}"


def _weights(name: str, content: Callable[[dict], dict]):
    @case(f"weights: {name}", "loaded, or the way out named")
    def weights(folder: Folder):
        sys.path.insert(0, str(ROOT / "src"))
        from streamvggt import load_model

        state = {key: value.clone().contiguous() for key, value in load_model("tiny").state_dict().items()}
        path = folder.work / name
        torch.save(content(state), path)
        done = folder.reconstruct(folder.photos(1), "--weights", path)
        return done.status == 0 or done.says("convert", "torch.save("), done.told()


DATA_CASES = {
    "all depth in millimeters": ("millimeters", (), "40"),
    "all depth in millimeters, all frames": ("millimeters", (), "all"),
    "inverted poses in one of two scenes": ("inverted", (), "all"),
    "inverted poses in one of five scenes": ("inverted", ("0007", "0008", "0009"), "all"),
}


def _data(title: str, way: str, also: tuple[str, ...], frames: str):
    @case(f"geometry: {title}", "BAD, rc 1")
    def geometry(folder: Folder):
        root = folder.work / "root"
        if not root.exists():
            folder.run("data", "make-fixtures", root)
        spring = folder.new()
        shutil.copytree(root / "spring", spring / "spring")
        first, second = sorted(path for path in (spring / "spring").iterdir() if path.is_dir())
        for name in also:
            shutil.copytree(second, spring / "spring" / name)
        if way == "millimeters":
            for path in spring.rglob("depth/*.npy"):
                np.save(path, np.load(path) * 1000)
        else:
            for path in (first / "cam").glob("*.npz"):
                camera = dict(np.load(path))
                camera["pose"] = np.linalg.inv(camera["pose"]).astype(camera["pose"].dtype)
                np.savez(path, **camera)
        done = folder.run("data", "check", spring, "--frames", frames, cwd=folder.work)
        return done.status == 1 and "BAD" in done.text, f"rc {done.status}; {done.last[:150]}"


@case("adjust", "bundle adjustment of the COLMAP export runs")
def adjust(folder: Folder):
    import pycolmap

    done = folder.reconstruct("times", export="colmap")
    try:
        model = pycolmap.Reconstruction(str(done.out / "colmap/sparse/0"))
        pycolmap.bundle_adjustment(model, pycolmap.BundleAdjustmentOptions())
    except Exception as error:
        return False, f"{type(error).__name__}: {str(error)[:150]}"
    return True, f"adjusted, error {model.compute_mean_reprojection_error():.2f} px"


def _processes(program: str, config: str):
    @case(f"two processes: {program}", "trains two steps, as with one process")
    def processes(folder: Folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        launch += ["--main_process_port", str(port), f"./{program}", "--config-name", config]
        out = folder.new()
        steps = ["trainer.optim.steps=2", "trainer.optim.warmup_steps=1"]
        launch += [f"output_dir={out}", *steps, "num_frames=[2,2]", "max_images_per_process=2", "data=synthetic"]
        if config == "finetune_tiny":
            launch += ["xfeat_weights=null"]  # the pretrained descriptors are a download
        done = folder.call(launch, ROOT / "src", out)
        return done.status == 0, f"rc {done.status}; {done.last[:150]}"


def _files(folder: Folder, name: str) -> list[Path]:
    return sorted((folder.cases / name).iterdir())


def _ply_points(out: Path) -> int:
    paths = list(out.glob("*.ply"))
    lines = paths[0].read_bytes()[:500].splitlines() if paths else []
    return next((int(line.split()[-1]) for line in lines if line.startswith(b"element vertex")), 0)


for _name in ("a.heic", "b.HIF", "e.heis"):
    _heic(_name)
for _name in ("anim.gif", "anim.webp", "anim.png"):
    _animated(_name)
_thin((), "1 × 60000")
_thin(("--size", 518), "of 1 × 4000 at size 518")
_late(())
_late(("--strict",))
_weights("args.pth", lambda state: {"model": state, "args": argparse.Namespace(lr=1e-4), "epoch": 1})
_weights("best.pth", lambda state: {"model": state, "best_so_far": np.float64(0.5)})
_weights("state_dict.pth", lambda state: {"state_dict": state})
_weights("model_state_dict.pth", lambda state: {"model_state_dict": state})
_weights("compiled.pth", lambda state: {f"_orig_mod.{name}": value for name, value in state.items()})
_weights("plain.ckpt", lambda state: state)
_weights("pytorch_model.bin", lambda state: state)
for _title, _how in DATA_CASES.items():
    _data(_title, *_how)
_processes("train.py", "train_tiny")
_processes("finetune.py", "finetune_tiny")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("only", nargs="*", help="words of names of cases (default: all)")
    arguments = parser.parse_args()
    num_wrong = num_run = 0
    print("case | expected | got | ok")
    for name, expected, function in CASES:
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                is_ok, got = function(Folder(arguments.cases.resolve(), Path(work)))
            except Exception as error:
                is_ok, got = False, f"{type(error).__name__}: {error}"
        num_run, num_wrong = num_run + 1, num_wrong + (not is_ok)
        print(f"{name} | {expected} | {got.encode(errors='backslashreplace').decode()} | {'ok' if is_ok else 'WRONG'}")
        sys.stdout.flush()
    print(f"{num_run - num_wrong} of {num_run} as expected")
    return 1 if num_wrong or not num_run else 0


if __name__ == "__main__":
    sys.exit(main())

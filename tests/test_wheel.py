"""The wheel, built from the source distribution and run in an empty folder without the optional packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT

from streamvggt.extras import EXTRAS

pytest.importorskip("hatchling", reason="the wheel is built with `pip install hatchling`")


def build(kind: str, source: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(out)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1600000000"}
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of packages with the wheel only."""
    work = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(build("sdist", ROOT, work), work / "source")
    (source,) = (work / "source").iterdir()
    assert not (source / "tests").exists()
    wheel = build("wheel", source, work)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(work / "site"), str(wheel)], check=True)
    return work / "site"


@pytest.mark.slow
def test_the_installed_wheel_reconstructs_its_clip_in_an_empty_folder(site, tmp_path):
    optional = sorted({package for packages in EXTRAS.values() for package in packages})
    program = f"""
import shutil, sys
for name in {optional}:
    sys.modules[name] = None
import streamvggt
from streamvggt.bundled import PACKAGE, bundled
from streamvggt.cli import main
assert PACKAGE.is_relative_to({str(site)!r}), PACKAGE
shutil.copy(bundled("assets/clip.mp4"), "clip.mp4")
assert all(bundled(name).is_relative_to(PACKAGE) for name in ("config", "ckpt", "assets/clip.mp4"))
assert streamvggt.load_model("tiny-vggt").config.causal is False
assert (PACKAGE / "app" / "static" / "viewer.html").exists()
assert main(["train"]) == 1
sys.exit(main(["reconstruct", "clip.mp4", "--max-frames", "2"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert 'pip install "streamvggt[train]"' in done.stderr
    assert {"scene.glb", "points.ply", "trajectory.txt", "preview.mp4"} <= set(os.listdir(tmp_path / "results/clip"))


def test_the_installed_script_finds_the_configurations(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("STREAMVGGT_ROOT", None)
    words = ["train", "--config-name", "train_tiny", "--cfg", "job"]
    script = site / "bin" / "streamvggt"
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "teacher_weights: tiny-vggt" in done.stdout

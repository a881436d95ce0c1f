"""The commands of the README, run for real on small networks and the procedural world."""

import os
import subprocess
import sys

import pytest
import torch
from launching import ROOT, SMALL, launch, run_script
from omega import TINY as OMEGA
from omega import write_omega

from streamvggt import VGGT, StreamVGGT, load_model


def test_the_first_code_block_of_the_readme_works_as_pasted():
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 48 + 1
    assert lines[0].startswith("frame_000000 [")
    assert "num_frames=48, num_kept_frames=9" in lines[-1]


def test_the_readmes_reconstruction_of_the_clip(tmp_path):
    words = ["-m", "streamvggt", "reconstruct", "assets/clip.mp4", "--out", str(tmp_path / "out"), "--policy"]
    words += ["window:1,8", "--max-frames", "6", "--formats", "glb,ply,colmap,tum,depth,video"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no meaning" not in done.stderr + done.stdout
    made = {
        "scene.glb",
        "points.ply",
        "colmap",
        "trajectory.txt",
        "depth",
        "inputs.json",
        "preview.mp4",
        "run.json",
        "frames",
        "images",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == made


@pytest.mark.slow
def test_distil_on_two_processes(teacher, data_root, tmp_path):
    """The published command, with all data sets of the mixture."""
    done = launch(
        *("--multi_gpu", "--num_processes", "2", "--main_process_port", "26902"),
        *("./train.py", "--config-name", "train", "model=tiny_streamvggt"),
        *(f"teacher_weights={teacher}", f"output_dir={tmp_path}", f"data_root={data_root}", *SMALL),
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert "teacher and student share the patch encoder" in output
    assert "39000 samples per epoch, 1 per batch:" in output and "omniobject3d: 1800 samples per epoch (4.6%)" in output
    assert "replaced" not in (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    student = load_model(tmp_path / "final")
    assert type(student) is StreamVGGT
    before = load_model(teacher).state_dict()
    changed = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("aggregator.patch_embed.") for name in changed)
    assert {"config.yaml", "last.pt", "log.jsonl", "final", "tensorboard"} <= set(os.listdir(tmp_path))


@pytest.mark.slow
def test_distil_from_another_teacher(teacher, tmp_path):
    """A published file of VGGT-Omega: the images fit the patches of both networks, the license is said."""
    omega = write_omega(tmp_path / "omega.pt", **OMEGA)
    words = ["./train.py", "--config-name", "train", "model=tiny_streamvggt", f"teacher_weights={teacher}"]
    words += [f"teacher={omega}", "data=synthetic", f"output_dir={tmp_path / 'out'}", *SMALL]
    done = run_script(*words, "+supervision.model.register_blocks=[2]")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert "image sides that are multiples of 112 pixels" in output
    assert "LICENSE: VGGT-Omega's weights are under the FAIR Noncommercial Research License" in output
    student, before = load_model(tmp_path / "out" / "final"), load_model(teacher).state_dict()
    changed = {name.split(".")[0] for name, t in student.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"aggregator", "camera_head", "depth_head", "point_head"}


@pytest.mark.slow
def test_a_data_set_that_is_missing_ends_a_training_before_a_network_is_loaded(tmp_path):
    words = ["./train.py", "--config-name", "train", "teacher_weights=nowhere", f"data_root={tmp_path}"]
    done = run_script(*words, f"output_dir={tmp_path / 'out'}")
    assert done.returncode != 0
    assert f"spring: Spring: no folder at {tmp_path / 'spring'}; docs/data.md describes" in done.stderr


@pytest.mark.slow
def test_fine_tune(teacher, data_root, tmp_path):
    words = ["./finetune.py", "--config-name", "finetune", f"model.name_or_path={teacher}", f"output_dir={tmp_path}"]
    done = run_script(*words, f"data_root={data_root}", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert type(load_model(tmp_path / "final")) is VGGT


@pytest.mark.slow
@pytest.mark.parametrize(("script", "config"), [("train.py", "train_tiny"), ("finetune.py", "finetune_tiny")])
def test_the_tiny_recipes_begin(teacher, rendered, tmp_path, script, config):
    words = [f"./{script}", "--config-name", config, f"teacher_weights={teacher}", f"output_dir={tmp_path}"]
    done = run_script(*words, f"rendered={rendered}", *["xfeat_weights=null"] * (script == "finetune.py"), *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]

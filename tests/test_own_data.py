"""The commands of docs/own-data.md, run for real on a tiny network and scenes of the procedural world."""

import json
import re
import shlex

import pytest
import torch
from hydra import compose, initialize_config_dir
from launching import ROOT, SMALL, run_script
from own_scenes import (
    save_transforms,
    world_clips,
    write_colmap,
    write_images,
    write_transforms,
    write_tum,
    write_video,
)

from streamvggt import VGGT, StreamVGGT, load_model
from streamvggt.evaluation.own import main as evaluate_own

LABELED = {"transforms": write_transforms, "COLMAP": write_colmap, "TUM": write_tum}
FINETUNE = ("./finetune.py", "--config-name", "finetune_own")
DISTILL = ("./train.py", "--config-name", "train_own")


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 4, 60, 80, seed=7, fov=1.2)[0]


def documented() -> list[list[str]]:
    """Configuration and overrides of each training command of the page, and of each variant of its table."""
    page = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    lines = page.replace("\\\n", "").splitlines()
    commands = [line.split("#")[0] for line in lines if line.startswith("accelerate launch")]
    variants = re.findall(r"only \| `(.*?)` \|", page)
    commands += [
        f"--config-name {name} data.path=a {words}" for name in ("finetune_own", "train_own") for words in variants
    ]
    return [shlex.split(command.split("--config-name", 1)[1]) for command in commands]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_the_commands_of_the_page_are_configurations(words):
    name, *overrides = words
    with initialize_config_dir(str(ROOT / "config"), version_base=None):
        config = compose(name, overrides)
    assert config.data.path and config.trainer.data._target_.endswith("Mixture")
    learning = config.trainer.optim
    assert ("adapters" in config.trainer) == (name.endswith("_own") and "~adapters" not in overrides)
    assert learning.freeze == ["*"] or not learning.get("lr_multipliers") or learning.freeze == ["aggregator.*"]


def changed(after, before) -> set[str]:
    before = before.state_dict()
    return {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.slow
def test_fine_tune_with_adapters_then_evaluate(teacher, clip, tmp_path):
    """A folder of scenes, one in each layout with labels; every scene is drawn."""
    scenes, out = tmp_path / "scenes", tmp_path / "out"
    for layout, write in LABELED.items():
        write(scenes / layout, clip)
    words = [f"model.name_or_path={teacher}", f"data.path={scenes}", f"data.validation_path={scenes / 'TUM'}"]
    done = run_script(
        *FINETUNE, *words, f"output_dir={out}", *SMALL, "trainer.optim.steps=9", "data.samples_per_epoch=9"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = (out / "log.jsonl").read_text(encoding="utf-8")
    assert "of 9 in 3 scenes" in done.stdout + done.stderr and "replaced" not in log
    tuned = load_model(out / "final")
    assert type(tuned) is VGGT
    moved = changed(tuned, load_model(teacher))
    assert "aggregator.global_blocks.0.attn.qkv.weight" in moved and "depth_head.norm.weight" in moved
    assert not any(name.startswith("aggregator.patch_embed.") for name in moved)
    words = ["--weights", out / "final", "--model_name", "VGGT", "--json", tmp_path / "own.json"]
    assert evaluate_own([str(scenes), *map(str, words)]) == 0
    numbers = json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["scenes"]
    assert set(numbers) == set(LABELED) and all(scene["Abs Rel"] > 0 for scene in numbers.values())


@pytest.mark.slow
def test_distil_on_a_video_and_images_without_labels(teacher, clip, tmp_path):
    write_video(tmp_path / "clips/walk.mp4", clip)
    write_images(tmp_path / "clips/photos", clip)
    words = [f"teacher_weights={teacher}", f"model.name_or_path={teacher}", f"output_dir={tmp_path / 'out'}"]
    done = run_script(*DISTILL, *words, f"data.path={tmp_path / 'clips'}", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no validation" in done.stderr
    student = load_model(tmp_path / "out/final")
    assert type(student) is StreamVGGT
    moved = changed(student, load_model(teacher))
    assert "aggregator.global_blocks.0.attn.qkv.weight" in moved and "depth_head.norm.weight" in moved


@pytest.mark.slow
def test_bad_data_ends_the_command_with_one_line(teacher, clip, tmp_path):
    content = write_transforms(tmp_path / "scene", clip)
    content["frames"][2]["transform_matrix"][0][3] = float("nan")
    save_transforms(tmp_path / "scene", content)
    done = run_script(*FINETUNE, f"model.name_or_path={teacher}", f"data.path={tmp_path / 'scene'}", *SMALL)
    assert done.returncode != 0
    output = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(output) == 1 and "transforms.json: frames[2].transform_matrix" in output[0], done.stderr[-3000:]

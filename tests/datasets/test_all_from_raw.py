"""All fifteen training sets from raw layouts, by the commands of docs/data.md, train together."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from launching import run_script

from procedural_scenes.fixture_clips import world_clips
from streamvggt.cli import main
from streamvggt.datasets import source_class
from streamvggt.datasets._fixtures import near_mask
from streamvggt.datasets._registry import training_sets

HERE = Path(__file__).parent


def raw_layouts(name: str) -> ModuleType:
    """The test of a preparation, which writes the raw layout."""
    spec = importlib.util.spec_from_file_location(f"raw_{name}", HERE / f"prepare/test_{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write_raw(root: Path) -> None:
    """The raw layout of every set in a folder of its name."""
    indoor, outdoor = (world_clips(1, 12, 60, 80, stride=3, outdoors=outdoors)[0] for outdoors in (False, True))
    objects = [replace(view, instance_ids=near_mask(view)) for view in indoor[:4]]
    films, rendered, photos, things = map(
        raw_layouts, ("film_and_game_sets", "rendered_sets", "photo_sets", "object_sets")
    )
    arkit, scannet, scannetpp, waymo = map(raw_layouts, ("arkitscenes", "scannet", "scannetpp", "waymo"))
    films.write_spring(root / "spring", outdoor[:4])
    films.write_mvs_synth(root / "mvs_synth", outdoor[:4])
    films.write_virtual_kitti2(root / "virtual_kitti2", outdoor[:4])
    for write, name in ((rendered.write_hypersim, "hypersim"), (rendered.write_point_odyssey, "point_odyssey")):
        (root / name).mkdir(parents=True)
        write(root / name, world_clips(1, 4, rendered.H, rendered.W, outdoors=True)[0])
    rendered.write_omniobject3d(root / "omniobject3d", world_clips(1, 4, rendered.H, rendered.W)[0])
    photographs = world_clips(1, 12, photos.H, photos.W, stride=3)[0]
    photos.write_blendedmvs(root / "blendedmvs", photographs, "5" * 24)
    photos.write_megadepth(root / "megadepth", photographs)
    things.write_wildrgbd(root / "wildrgbd", objects)
    things.write_wildrgbd_lists(root / "wildrgbd", {"train": ["scene_001"], "val": []})
    frames = things.write_co3d(root / "co3d", {"1_a": objects})
    things.write_lists(root / "co3d", ["1_a"], [], frames)
    arkit.write_raw(root / "arkitscenes", arkit.CLIP)
    arkit.write_raw(root / "arkitscenes_highres", arkit.CLIP)
    scannet.write_sens(root / "scannet")
    scannetpp.write_scannetpp(root / "scannetpp")
    waymo.write(root / "waymo", *(waymo.frame_at(time) for time in (0.0, 0.1, 0.2)))


@pytest.mark.slow
def test_fifteen_sets_from_raw_layouts_train_together(tmp_path):
    raw, root = tmp_path / "raw", tmp_path / "train"
    write_raw(raw)
    for name in training_sets():
        if name == "arkitscenes_highres":  # the same recording: it would be left to this set
            (raw / name / "Training/40000001").rename(raw / name / "Training/40000002")
        assert main(["data", "prepare", name, str(raw / name), str(root), "--workers", "1"]) == 0, name
    (root / source_class("omniobject3d").folder / "scale.json").write_text(
        json.dumps({"anise_001": 0.001}), encoding="utf-8"
    )
    assert len(training_sets()) == 15
    settings = [
        "data=distill_mix",
        f"data_root={root}",
        f"output_dir={tmp_path / 'out'}",
        "size=56",
        "num_frames=[2,2]",
    ]
    settings += [
        "max_images_per_process=16",
        "trainer.optim.steps=2",
        "trainer.optim.warmup_steps=1",
        "trainer.num_workers=0",
    ]
    settings += [f"data.train.samples_per_epoch.{name}=4" for name in training_sets()]
    done = run_script("./train.py", "--config-name", "train_tiny", *settings)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert all(f"{name}: 4 samples per epoch" in output for name in training_sets()), output[-3000:]
    log = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(entry.get("step", 0) for entry in log) == 2 and not any(
        value for entry in log for key, value in entry.items() if key.startswith("train/replaced")
    )

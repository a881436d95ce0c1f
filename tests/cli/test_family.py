"""Small random checkpoints in the layout of each published file, from photos to exports."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_models import TINY, formula_weights

from streamvggt import StreamVGGT, load_model
from streamvggt.export import ReconstructionResult
from streamvggt.model.config import VGGTConfig

# What shapes do not tell must be as in the released networks, or as assumed for small ones.
SIZE = {
    **TINY,
    "embed_dim": 64,
    "num_heads": 4,
    "encoder_depth": 1,
    "encoder_num_heads": 1,
    "camera_trunk_depth": 1,
    "camera_num_heads": 16,
}
DENSE = ("camera", "depth", "points")
LINGBOT = {"scale_frames": 8, "global_rotation": "time", "pose": "world_from_camera"}
LAYOUTS = {
    "stream3r/model.safetensors": {"heads": DENSE},
    "model_tracker_fixed_e20.pt": {},
    "lingbot-map-long.pt": {"heads": ("camera", "depth"), **LINGBOT},
    "lingbot-map-stage1.pt": {"heads": DENSE, "pose": "world_from_camera"},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*shapes do not tell")


def published(folder, layout):
    """Write a network as the file of that name is written, without a config of this project."""
    model = formula_weights(StreamVGGT(**SIZE, **LAYOUTS[layout]))
    path = folder / layout
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
        config = json.dumps({"img_size": 518, "patch_size": 14, "embed_dim": 1024})
        path.with_name("config.json").write_text(config, encoding="utf-8")
    elif layout.startswith("lingbot"):
        torch.save({"model": model.state_dict()}, path)
    else:
        torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_photos_to_exports(command, photos, tmp_path, layout):
    model, path = published(tmp_path, layout)
    weights = path.parent if path.suffix == ".safetensors" else path
    loaded = load_model(weights, causal=True)
    assert loaded.heads == model.heads
    of_tracker = {name for name in SIZE if name.startswith("track_") and "track" not in loaded.heads}
    for name in {field.name for field in fields(VGGTConfig)} - of_tracker:
        assert getattr(loaded.config, name) == getattr(model.config, name), name
    words = ("--out", tmp_path / "out", "--weights", weights, "--device", "cpu", "--formats", "glb,ply,tum")
    status, output = command("reconstruct", photos, *words)
    assert status == 0, output
    result = ReconstructionResult(tmp_path / "out")
    written = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert len(result) == 6 and {"scene.glb", "points.ply", "trajectory.txt"} <= written
    settings = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["settings"]
    assert settings["policy"] == ("trajectory:8,63" if loaded.scale_frames else "frame-diversity:9")
    assert settings["submaps"] is None
    if loaded.scale_frames:  # six photos are fewer than the joint step has: all are computed together
        with torch.no_grad():
            images = torch.stack([torch.from_numpy(frame.image) for frame in result]).movedim(-1, 1)[None] / 255
            expected = loaded(images).cameras().cam_from_world[0]
        found = np.stack([frame.cam_from_world for frame in result])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_lingbot_map_gets_submaps_where_its_training_was_shorter(command, many_photos, tmp_path, monkeypatch):
    from streamvggt.cli import memory_settings

    monkeypatch.setattr(memory_settings, "TRAINED_LENGTH", 20)
    monkeypatch.setattr(memory_settings, "TRAINED_WINDOWS", "20,9")
    _, path = published(tmp_path, "lingbot-map-long.pt")
    words = ("--weights", path, "--device", "cpu", "--formats", "none", "--max-frames")
    status, output = command("reconstruct", many_photos, "--out", tmp_path / "long", *words, 24)
    assert status == 0 and "Using --submaps 20,9: this network was trained with up to 20 frames" in output
    status, output = command("reconstruct", many_photos, "--out", tmp_path / "one", "--policy", "all", *words, 24)
    assert status == 0 and "--submaps" not in output


def test_the_shared_camera_memory_is_rejected(command, photos, tmp_path):
    words = ("reconstruct", photos, "--out", tmp_path / "out", "--camera-cache", "shared", "--weights")
    for weights in ("yslan/STream3R", "robbyant/lingbot-map", tmp_path / "lingbot-map.pt"):
        status, output = command(*words, weights)
        assert status != 0 and "--camera-cache shared: expected per_iteration for" in output

"""config.json is checked before anything is built."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import TINY, tiny

from streamvggt import VGGT, load_model
from streamvggt.model.config import VGGTConfig
from streamvggt.model.fingerprint import file_fingerprint

MAY_BE_ZERO = ("scale_frames", "stem_width")
INTEGERS = [n for n, value in VGGTConfig().as_dict().items() if type(value) is int and n not in MAY_BE_ZERO]
HUGE = 10**9


@pytest.fixture
def saved(tmp_path):
    """A folder whose config is in config.json alone, and a function that changes it."""
    tiny(dtype=torch.float32).save_pretrained(tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))

    def change(**values):
        path.write_text(json.dumps({**content, **values}), encoding="utf-8")
        return tmp_path

    return change


@pytest.mark.parametrize("value", [None, "4", -1, HUGE, 10**400, float("inf"), float("nan"), 1.5, True, [4], {}])
def test_a_size_that_is_no_size_is_named(value):
    with pytest.raises(ValueError, match=r"^depth: expected .* from \d+ to \d+, got "):
        VGGTConfig(depth=value)


def test_every_size_is_checked():
    for name in INTEGERS:
        with pytest.raises(ValueError, match=rf"^{name}: expected .* from \d+ to \d+, got 0"):
            VGGTConfig(**{name: 0})


WRONG = {
    "dpt_layers": (None, "0123", 4, [0, 1, 2], [0, 1, 2, 3, 4], {"0": 1}, *([value, 4, 4, 4] for value in ("4", -4))),
    "dpt_channels": (None, [0, 1, 2], *([value, 4, 4, 4] for value in (None, HUGE, float("inf"), True)), [6, 8, 8, 8]),
    "mlp_ratio": (None, "4", 0, HUGE, float("inf"), float("nan"), True, 4j),
    "xfeat": (None, "no", 0, []),
    "causal": (None, 0, "past", [True]),
    "scale_frames": (None, "8", -1, HUGE, 1.5, True),
    "stem_width": (None, -1),
    "pose": (None, 0, "other", []),
    "global_rotation": (None, "other"),
    "heads": (None, "camera", 3, [], [3], ["normals"], ["camera", "camera"], {"depth": 1}),
    "dpt_features": (12,),
    "track_features": (6,),
    "embed_dim": (4j,),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_values_that_are_wrong_are_named(name):
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=f"^{name}"):
            VGGTConfig(**{name: value})


def test_good_values_pass_as_they_are_written_in_a_file():
    config = VGGTConfig.of({**TINY, "mlp_ratio": 4, "heads": ["camera"], "dpt_layers": [0, 1, 2, 3]})
    assert config.mlp_ratio == 4.0 and type(config.mlp_ratio) is float
    assert config.heads == ("camera",) and config.dpt_layers == (0, 1, 2, 3)
    assert VGGTConfig.of(json.loads(json.dumps(config.as_dict()))) == config
    assert VGGT(**TINY).config == VGGTConfig(**TINY)


@pytest.mark.parametrize(
    "values",
    [{"depth": 10**6}, {"camera_iterations": HUGE}, {"depth": None}, {"embed_dim": 33}, {"num_heads": 3}, {"1": 2}],
)
def test_the_file_with_the_wrong_config_is_named_at_once(saved, values):
    folder = saved(**values)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=str(folder)):
        load_model(folder)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("text", [b"", b"{", b"null", b'"tiny"', b"3", b"[]", b"\xff\xfe{", b"[" * 100_000])
def test_broken_json_names_its_file(saved, text):
    folder = saved()
    (folder / "config.json").write_bytes(text)
    for read in (load_model, file_fingerprint):
        with pytest.raises(ValueError, match=r"config\.json: expected (a )?JSON"):
            read(folder)


def test_a_broken_config_inside_the_weights_names_them(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"config": "{"})
    with pytest.raises(ValueError, match=r"model\.safetensors, config: expected JSON"):
        load_model(tmp_path)
    torch.save({"model": {}, "config": {"model_type": "streamvggt", 3: 4}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt, config: the network has no argument 3"):
        load_model(tmp_path / "odd.pt")


def test_a_config_that_contradicts_the_weights_is_rejected(tmp_path):
    tiny(dtype=torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "camera_iterations": 2, "causal": False}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: .*causal=False .*True.*camera_iterations=2 .*weights: 4"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int64])
@pytest.mark.parametrize("file", ["model.safetensors", "model.pt"])
def test_tensors_that_are_no_weights_are_named(tmp_path, dtype, file):
    model = tiny(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    state = {**model.state_dict(), "camera_head.trunk_norm.bias": model.camera_head.trunk_norm.bias.to(dtype)}
    if file.endswith("pt"):
        config = {"model_type": "streamvggt", **model.config.as_dict()}
        torch.save({"model": state, "config": config}, tmp_path / file)
    else:
        save_file(state, tmp_path / file)
    with pytest.raises(ValueError, match=rf"{file}: camera_head\.trunk_norm\.bias: expected .*, got {dtype}"):
        load_model(tmp_path / file)

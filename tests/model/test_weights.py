"""Files of every kind become networks, or say why not."""

import argparse
import json
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import MagicMock

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from launching import finish, start
from safetensors.torch import load_file, save_file
from small_models import GOLDEN_SIZE, TINY, assert_same, images, tiny

from streamvggt import VGGT, StreamVGGT, load_model
from streamvggt.model import fingerprint as fingerprints
from streamvggt.model import loading
from streamvggt.model.fingerprint import file_fingerprint, fingerprint
from streamvggt.model.infer_config import infer_config
from streamvggt.model.random_networks import init_random_model
from streamvggt.model.weights import init_model

NOT_IN_SHAPES = {"encoder_num_heads": 2, "camera_num_heads": 4, "dpt_layers": (0, 1, 2, 3)}


@pytest.fixture
def model():
    return tiny(dtype=torch.float32)


def same(a: VGGT, b: VGGT) -> None:
    """The same weights to the bit; they may lie in another order in memory, so the answers are alike to rounding."""
    assert a.config == b.config
    theirs = b.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())
    assert a.state_dict().keys() == theirs.keys()
    frames = images(1, 2, dtype=torch.float32)
    with torch.no_grad():
        assert_same(a(frames), b(frames), tolerance=1e-5)


def test_saved_and_loaded_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "here")
    assert sorted(os.listdir(tmp_path / "here")) == ["config.json", "model.safetensors"]
    same(load_model(tmp_path / "here"), model)
    same(StreamVGGT.from_pretrained(tmp_path / "here"), model)
    assert type(load_model(tmp_path / "here")) is StreamVGGT
    assert not load_model(tmp_path / "here").training


def test_the_config_is_read_from_the_file(model, tmp_path):
    model.save_pretrained(tmp_path)
    os.rename(tmp_path / "model.safetensors", tmp_path / "alone.safetensors")
    os.remove(tmp_path / "config.json")
    same(load_model(tmp_path / "alone.safetensors"), model)


def test_the_config_beside_the_file_serves_files_without_one(model, tmp_path):
    model.save_pretrained(tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    same(load_model(tmp_path), model)


def test_the_config_or_the_caller_selects_teacher_or_student(model, tmp_path):
    teacher = tiny(False, dtype=torch.float32)
    teacher.save_pretrained(tmp_path / "teacher")
    assert type(load_model(tmp_path / "teacher")) is VGGT
    same(load_model(tmp_path / "teacher", causal=True), model)
    assert VGGT.from_pretrained(tmp_path / "teacher").causal is False
    assert StreamVGGT.from_pretrained(tmp_path / "teacher").causal is True


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("plain", "plain.ckpt"),
        ("trainer", "pytorch_model.bin"),
        ("distributed", "MODEL.PT"),
        ("compiled", "compiled.pth"),
        ("both", "both.pth"),
        ("lightning", "last.ckpt"),
        ("weights", "weights.pth"),
        ("numpy", "best.pth"),
        ("args", "args.pth"),
        ("old format", "old.pth"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*shapes do not tell")
def test_pickled_checkpoints(model, tmp_path, kind, file):
    prefix = {"distributed": "module.", "compiled": "_orig_mod.", "both": "module._orig_mod.", "lightning": "model."}
    state = {prefix.get(kind, "") + name: tensor for name, tensor in model.state_dict().items()}
    if kind != "plain":
        entry = {"lightning": "state_dict", "weights": "model_state_dict"}.get(kind, "model")
        state = {entry: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    if kind == "numpy":
        state["best_so_far"] = np.float64(0.5)
    if kind == "args":
        state["args"] = argparse.Namespace(lr=1e-4, folder=Path("/tmp"), sets={1, 2}, more=Options(3))
    path = tmp_path / file
    torch.save(state, path, _use_new_zipfile_serialization=kind != "old format")
    same(load_model(path, **NOT_IN_SHAPES), model)


@dataclass
class Options:
    """Settings as a trainer pickles them beside the weights."""

    steps: int


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("by", ["folder", "index"])
def test_shards_are_one_network(model, tmp_path, suffix, by):
    index = shards(model, tmp_path, suffix)
    same(load_model(tmp_path if by == "folder" else index), model)
    assert file_fingerprint(tmp_path) == fingerprint(model)


def shards(model, folder, suffix="safetensors"):
    """Write a network in two shards; answer the index."""
    state = model.state_dict()
    names = [f"model-{number:05d}-of-00002.{suffix}" for number in (1, 2)]
    places = {name: names[position % 2] for position, name in enumerate(state)}
    for file in names:
        part = {name: tensor for name, tensor in state.items() if places[name] == file}
        save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    config = {"model_type": "streamvggt", **model.config.as_dict()}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return index


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../a.pt"}}', '{"weight_map": {"a": 3}}']
)
def test_a_damaged_index_is_named(model, tmp_path, content):
    index = shards(model, tmp_path)
    index.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: expected JSON with a weight_map"):
        load_model(tmp_path)


def test_a_missing_shard_is_named(model, tmp_path):
    shards(model, tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json: expected 2 files .*model-00002-of-00002.* missing"):
        load_model(tmp_path)


def test_sizes_are_read_from_the_shapes(tmp_path):
    for size in (TINY, GOLDEN_SIZE, {}, {**TINY, "track_levels": 7, "patch_size": 16, "image_size": 96}):
        with torch.device("meta"):
            network = VGGT(**size)
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        unknown = {
            name: getattr(network.config, name) for name in ("encoder_num_heads", "camera_num_heads", "dpt_layers")
        }
        found = {**network.config.as_dict(), **infer_config(shapes, known=unknown | {"camera_iterations": 4})}
        assert found == network.config.as_dict()


def test_sizes_that_shapes_do_not_determine_are_reported(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.warns(UserWarning, match=r"do not tell encoder_num_heads.*camera_num_heads=16"):
        assert load_model(tmp_path / "model.pt").config.camera_num_heads == 16


def test_a_subset_of_heads_reads_no_others(model, tmp_path):
    model.save_pretrained(tmp_path)
    some = load_model(tmp_path, heads=("camera", "depth"))
    assert some.heads == ("camera", "depth")
    assert not any(name.startswith(("point_head", "track_head")) for name in some.state_dict())
    frames = images(1, 2, dtype=torch.float32)
    with torch.no_grad():
        assert_same(some(frames), model(frames, heads=("camera", "depth")), tolerance=1e-5)


@pytest.mark.filterwarnings("ignore:.*shapes do not tell")
def test_a_file_without_track_head_loads_with_the_heads_it_has(model, tmp_path, caplog):
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("track_head")}
    path = tmp_path / "no_tracks.safetensors"
    save_file(state, path)
    some = load_model(path, **NOT_IN_SHAPES)
    assert some.heads == ("camera", "depth", "points")
    assert [record.getMessage() for record in caplog.records] == [
        f"Loading {path} with heads camera, depth, points. No track in it."
    ]
    caplog.clear()
    assert load_model(path, heads=("camera", "depth"), **NOT_IN_SHAPES).heads == ("camera", "depth")
    assert not caplog.records
    with pytest.raises(ValueError, match=r"has no track head: load it with heads=\('camera',\)"):
        load_model(path, heads=("camera", "track"), **NOT_IN_SHAPES)


@pytest.mark.filterwarnings("ignore:.*shapes do not tell")
def test_a_head_with_some_of_its_tensors_is_no_absent_head(model, tmp_path):
    keep = "track_head.tracker.fmap_norm.weight"
    names = [name for name in model.state_dict() if not name.startswith("track_head") or name == keep]
    torch.save({name: model.state_dict()[name] for name in names}, tmp_path / "model.pt")
    with pytest.raises((ValueError, KeyError), match=r"track_head"):
        load_model(tmp_path / "model.pt", **NOT_IN_SHAPES)


def test_missing_extra_and_wrong_tensors_are_listed(model, tmp_path):
    state = dict(model.state_dict())
    del state["camera_head.trunk_norm.bias"]
    state["camera_head.surprise"] = torch.zeros(2)
    state["point_head.norm.weight"] = torch.zeros(3)
    torch.save(
        {"model": state, "config": {"model_type": "streamvggt", **model.config.as_dict()}}, tmp_path / "model.pt"
    )
    with pytest.raises(ValueError) as caught:
        load_model(tmp_path / "model.pt")
    for output in (
        "1 missing: camera_head.trunk_norm.bias",
        "1 extra: camera_head.surprise",
        "1 of wrong shape: point_head.norm.weight is (3,), expected (64,)",
    ):
        assert output in str(caught.value)


def test_weights_of_another_network_are_rejected(tmp_path):
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(
        ValueError, match=r"does not contain a VGGT network: .* is missing among its 2 tensors \(weight, bias\)"
    ):
        load_model(tmp_path / "linear.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="contains no state dict"):
        load_model(tmp_path / "list.pt")


def test_code_in_a_file_is_never_run(tmp_path):
    proof = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    with open(tmp_path / "plain.pt", "wb") as file:
        pickle.dump({"model": Payload()}, file)
    torch.save({"model": Payload()}, tmp_path / "zip.pt")
    for name in ("plain.pt", "zip.pt"):
        with pytest.raises(ValueError, match=r"never executed.*torch\.load\(.*weights_only=False.*torch\.save\("):
            load_model(tmp_path / name)
    assert not proof.exists()


def test_code_beside_the_weights_is_never_run(model, tmp_path):
    proof = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return exec, (f"import os; os.mkdir({str(proof)!r})",)

    config = {"model_type": "streamvggt", **model.config.as_dict()}
    torch.save({"model": model.state_dict(), "config": config, "args": Payload()}, tmp_path / "args.pt")
    same(load_model(tmp_path / "args.pt"), model)
    torch.save(Payload(), tmp_path / "alone.pt")
    with pytest.raises(ValueError, match="contains no state dict"):
        load_model(tmp_path / "alone.pt")
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_cut_off_files_are_named(model, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{path.name} .*cut off"):
        load_model(path)
    path.write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match=path.name):
        load_model(path)


def test_what_is_not_there_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at 'ckpt/none\.pt': expected .*lch01/StreamVGGT"):
        load_model("ckpt/none.pt")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*; there are none"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"expected random:small or random:full, got .random:huge"):
        load_model("random:huge")
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(ValueError, match=r"\.safetensors, \.pt or \.pth"):
        load_model(tmp_path / "weights.onnx")
    with pytest.raises(ValueError, match="no argument camera_heads"):
        load_model("random:small", camera_heads=3)
    with pytest.raises(ValueError, match="flash"):
        load_model("random:small", attention="flash")


@pytest.mark.parametrize(
    ("name", "file", "network"),
    [
        ("facebook/VGGT-1B", "model.safetensors", VGGT),
        ("facebook/VGGT-1B-Commercial", "vggt_1B_commercial.pt", VGGT),
        ("facebook/VGGT_tracker_fixed", "model_tracker_fixed_e20.pt", VGGT),
        ("lch01/StreamVGGT", "checkpoints.pth", StreamVGGT),
        ("yslan/STream3R", "model.safetensors", StreamVGGT),
        ("somebody/their-model", "model.safetensors", StreamVGGT),
        ("me/streamvggt-v1.1", "model.safetensors", StreamVGGT),
        ("so.me/streamvggt_2.0.final", "model.safetensors", StreamVGGT),
    ],
)
def test_hub_names(monkeypatch, model, tmp_path, name, file, network):
    """With a stand-in for the Hub: no machine of ours reaches it."""
    asked = []

    def hf_hub_download(repo, filename):
        asked.append((repo, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append(url))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    if file.endswith("safetensors"):
        model.save_pretrained(tmp_path)
        if name in ("facebook/VGGT-1B", "yslan/STream3R"):  # the published repositories' config is not ours
            save_file(load_file(tmp_path / file), tmp_path / file)
            (tmp_path / "config.json").write_text(
                json.dumps({"img_size": 518, "patch_size": 14, "embed_dim": 1024}), encoding="utf-8"
            )
    else:
        torch.save(model.state_dict(), tmp_path / file)
    loaded = load_model(name, **NOT_IN_SHAPES)
    assert (name, file) in asked
    assert type(loaded) is network
    assert fingerprint(loaded) == fingerprint(model)


@pytest.mark.parametrize(
    ("name", "file"), [("lch01/StreamVGGT", "checkpoints.pth"), ("no/such-1.0", "model.safetensors")]
)
def test_an_unreachable_hub_is_asked_once_and_the_error_names_the_fix(monkeypatch, name, file):
    asked = []

    def get_hf_file_metadata(url, timeout):
        asked.append(url)
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", get_hf_file_metadata)
    with pytest.raises(FileNotFoundError, match=rf"{file} of {name} .* give the file's path"):
        load_model(name)
    assert len(asked) == 1


def test_an_id_that_the_hub_lacks_is_reported(monkeypatch):
    def get_hf_file_metadata(url, timeout):
        raise RepositoryNotFoundError("404", response=MagicMock())

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", get_hf_file_metadata)
    with pytest.raises(FileNotFoundError, match=r"nosuch/model: expected .* Check the name"):
        load_model("nosuch/model")


@pytest.mark.parametrize(
    "name", ["no/such.pt", "no/such.ckpt", "no/such.SAFETENSORS", "a/b/c", "./a", "a b/c", "-", ""]
)
def test_paths_are_no_hub_ids(name):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_model(name or "none")


def test_half_precision_keeps_the_tracker_exact(model, tmp_path):
    model.save_pretrained(tmp_path)
    half = load_model(tmp_path, dtype=torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in half.state_dict().items()}
    assert dtypes.pop("track_head.tracker.query_ref_token") == torch.float32
    assert all((dtype == torch.float32) == name.startswith("track_head.tracker.") for name, dtype in dtypes.items())
    memory = half.new_memory()
    with torch.no_grad():
        output = half.step(images(1, 2, dtype=torch.float32), memory=memory, query_points=torch.ones(1, 2, 2) * 9)
    assert output.tracks.dtype == torch.float32
    assert memory.layers[0].keys_values()[0].dtype == torch.bfloat16


def test_random_weights_are_seeded_and_leave_the_callers_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a = load_model("random:small", heads=("camera",))
    assert torch.equal(torch.rand(1), expected)
    assert fingerprint(a) == fingerprint(load_model("random:small", heads=("camera",)))
    assert fingerprint(a) != fingerprint(load_model("random:small", heads=("depth",)))


def print_memory_of_loading(path: Path, dtype: torch.dtype) -> None:
    """Print the peak of the anonymous memory while weights are loaded, and their size, in bytes."""
    convert, sizes = torch.Tensor.to, []

    def anonymous() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def to(self, *args, **kwargs):
        converted = convert(self, *args, **kwargs)
        sizes.append(anonymous())
        return converted

    before = anonymous()
    torch.Tensor.to = to
    model = load_model(path, dtype=dtype)
    print(max(*sizes, anonymous()) - before, sum(tensor.nbytes for tensor in model.state_dict().values()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("file", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_holds_one_copy_of_the_weights(tmp_path, file, dtype):
    """Memory that only this process has; pages of the mapped file come and go as the system likes."""
    big = StreamVGGT(**{**TINY, "embed_dim": 512, "num_heads": 8, "encoder_num_heads": 8, "camera_num_heads": 8})
    if file.endswith("pt"):
        torch.save(
            {"model": big.state_dict(), "config": {"model_type": "streamvggt", **big.config.as_dict()}}, tmp_path / file
        )
    else:
        big.save_pretrained(tmp_path)
    done = finish(start(print_memory_of_loading, tmp_path / file, dtype, folder=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    peak, weights = map(int, done.stdout.split())
    assert weights > 80e6 / (1 if dtype == torch.float32 else 2)
    # Beyond the weights: the largest tensor once more, and what Python and PyTorch take at first use. A second copy
    # of the network in float32 would be 80 MB.
    assert peak - weights < 35e6


def test_a_fresh_network_may_start_from_a_dinov2_encoder(model, tmp_path):
    """DINOv2's own names are those of the patch encoder."""
    encoder = {name: t.clone() for name, t in model.aggregator.patch_embed.state_dict().items()}
    torch.save(encoder, tmp_path / "dinov2.pth")
    made = init_model(encoder_weights=tmp_path / "dinov2.pth", **TINY)
    assert not made.causal
    for name, tensor in made.aggregator.patch_embed.state_dict().items():
        assert torch.equal(tensor, encoder[name]), name
    assert fingerprint(init_model(seed=1, **TINY)) != fingerprint(init_model(seed=2, **TINY))
    del encoder["register_tokens"]
    torch.save(encoder, tmp_path / "no_registers.pth")
    with pytest.raises(ValueError, match=r"not a DINOv2 encoder of this size\. 1 tensors differ: register_tokens"):
        init_model(encoder_weights=tmp_path / "no_registers.pth", **TINY)


def test_a_file_has_one_name_whatever_is_loaded_of_it(tmp_path):
    model = tiny(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    name = file_fingerprint(tmp_path)
    assert name == fingerprint(model)
    assert name != fingerprint(load_model(tmp_path, heads=("camera",)))
    with torch.no_grad():
        next(model.depth_head.parameters()).add_(1)
    model.save_pretrained(tmp_path)
    assert file_fingerprint(tmp_path) != name


def test_every_number_counts_for_the_fingerprint_and_all_are_hashed_once(tmp_path, monkeypatch):
    model = tiny(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    hashed = []
    real = fingerprints._hash_tensors
    monkeypatch.setattr(fingerprints, "_hash_tensors", lambda *arguments: hashed.append(1) or real(*arguments))
    before = fingerprint(model)
    assert (
        fingerprint(model) == before == file_fingerprint(tmp_path) == file_fingerprint(tmp_path / "model.safetensors")
    )
    assert len(hashed) == 2  # the module once, the file once
    largest = max(model.parameters(), key=torch.Tensor.numel)
    with torch.no_grad():
        largest.view(-1)[-1] += 1
    assert fingerprint(model) != before
    assert fingerprint(load_model(tmp_path)) == before
    model.save_pretrained(tmp_path)
    assert file_fingerprint(tmp_path) == fingerprint(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_random_weights_are_the_same_numbers_in_every_format(dtype):
    built = init_random_model(VGGT.build, "random:small", {"causal": True}).state_dict()
    loaded = load_model("random:small", dtype=dtype)
    for name, tensor in loaded.state_dict().items():
        wanted = torch.float32 if name.startswith(loading.FLOAT32_PREFIXES) else dtype
        assert tensor.dtype == wanted and torch.equal(tensor, built[name].to(wanted)), name
    fixed = [name for name, parameter in loaded.named_parameters() if not parameter.requires_grad]
    assert fixed == ["aggregator.patch_embed.mask_token"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks of memory from Linux")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_holds_one_copy_of_random_weights(dtype):
    wide = {"embed_dim": 384, "num_heads": 6, "depth": 8, "heads": ("camera",)}  # 208 MB in float32
    load_model("random:small", heads=("camera",))  # what Python imports at the first use

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is what there is now
    before = status("VmRSS")
    model = load_model("random:small", dtype=dtype, **wide)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert status("VmHWM") - before < 1.3 * size

"""The fitted confidence is the reciprocal of the expected error, and is the only thing that changes."""

import sys

import numpy as np
import pytest
import torch
from small_models import tiny

from experiments import fit_confidence
from experiments.fit_confidence import fit, open_clips, sample, set_confidence
from procedural_scenes import clips
from procedural_scenes.world import SyntheticScenes
from streamvggt import load_model


def test_the_confidence_is_the_reciprocal_of_the_expected_error():
    random = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(50_000, 4, generator=random) + 2
    expected = 1 / (1 + (features @ torch.tensor([0.3, -0.2, 0.1, 0.0]) + 1).exp())
    errors = expected * 2 * torch.rand(len(features), generator=random)
    weight, bias = fit(features, errors)
    fitted = 1 / (1 + (features @ weight + bias).exp())
    torch.testing.assert_close(fitted, expected, rtol=0.05, atol=0)


def test_samples_are_inputs_of_the_last_layer_and_errors_of_valid_pixels():
    model = tiny(dtype=torch.float32, heads=("camera", "depth"))
    batch = SyntheticScenes("train").batch(0, 2, 3, 28, 42)
    features, errors = sample(model, batch, torch.Generator().manual_seed(0))
    last = model.depth_head.scratch.output_conv2[-1]
    assert features.shape == (len(errors), last.in_channels) and errors.isfinite().all() and len(errors) > 3000
    depth = model(batch.images, heads=("depth",)).depth[..., 0]
    logarithms = (features @ last.weight[0, :, 0, 0] + last.bias[0]).unique()
    assert torch.isin(logarithms.round(decimals=3), depth.log().round(decimals=3)).float().mean() > 0.9


def test_the_fitted_confidence_ranks_the_errors_of_unseen_scenes():
    model = tiny(dtype=torch.float32, heads=("camera", "depth"))
    generator = torch.Generator().manual_seed(0)
    train, unseen = (SyntheticScenes(split).batch(0, 16, 2, 56, 56) for split in ("train", "test"))
    set_confidence(model, *fit(*sample(model, train, generator)))
    features, errors = sample(model, unseen, generator)
    last = model.depth_head.scratch.output_conv2[-1]
    confidence = features @ last.weight[1, :, 0, 0] + last.bias[1]
    ranks = torch.stack([-confidence, errors]).argsort(-1).argsort(-1)
    assert np.corrcoef(ranks)[0, 1] > 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of the recipe, and weights in half precision."""
    root = tmp_path_factory.mktemp("confidence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "CLIPS_PER_SHARD", 8)
        for name in ("rooms", "video", "world"):
            clips.render_clips(root / name, SyntheticScenes("train"), 8, 24, 28)
    tiny(dtype=torch.float16, heads=("camera", "depth")).save_pretrained(root / "weights")
    return root


def run(monkeypatch, folder, *more, weights=None) -> None:
    words = ["fit_confidence", weights or folder / "weights", "--clips", folder, "--batches", 2, *more]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    fit_confidence.main()


def test_one_seed_gives_one_file_and_only_the_confidence_changes(folder, tmp_path, monkeypatch):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(monkeypatch, folder, "--seed", seed, "--out", tmp_path / out)
    same, again, other = ((tmp_path / out / "model.safetensors").read_bytes() for out in "abc")
    assert same == again != other
    images = SyntheticScenes("test").batch(0, 1, 3, 28, 42).images
    before, after = (load_model(path)(images) for path in (folder / "weights", tmp_path / "a"))
    assert torch.equal(before.depth, after.depth) and torch.equal(before.pose_enc, after.pose_enc)
    assert not torch.equal(before.depth_conf, after.depth_conf)


def test_the_shares_are_those_of_the_training_recipe(folder, tmp_path, monkeypatch):
    assert open_clips(folder, 0).shares == {"rooms": 0.65, "video": 0.25, "world": 0.1}
    recipe = tmp_path / "rendered.yaml"
    recipe.write_text("train:\n  shares: {video: 1}\n", encoding="utf-8")
    monkeypatch.setattr(fit_confidence, "RECIPE", recipe)
    assert open_clips(folder, 0).shares == {"video": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{weights}"], "already contains files"),
        (["--out", "{weights}/config.json"], "is a file"),
        (["--out", "{new}", "--clips", "{new}"], "expected rendered clips, got none"),
        (["--out", "{new}", "--seed", "-1"], "--seed: expected a whole number"),
        (["--out", "{new}", "--batches", "0"], "--batches: expected a whole number"),
    ],
)
def test_wrong_arguments_are_rejected_before_the_network_runs(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fit_confidence, "load_depth_network", None)
    words = [word.format(weights=folder / "weights", new=tmp_path / "new") for word in words]
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, folder, *words)
    assert message in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_weights_without_a_depth_head_are_rejected(folder, tmp_path, monkeypatch, capsys):
    tiny(dtype=torch.float16, heads=("camera",)).save_pretrained(tmp_path / "weights")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, folder, "--out", tmp_path / "new", weights=tmp_path / "weights")
    assert "expected a network with a depth head" in capsys.readouterr().err

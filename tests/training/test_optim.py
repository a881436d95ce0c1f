"""Schedules, groups and freezing, with the published numbers where there are any."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from streamvggt import StreamVGGT
from streamvggt.training.optim import OptimConfig, freeze_parameters, parameter_groups, summarize_parameters

GOLDEN = np.load(Path(__file__).parent.parent / "goldens" / "losses.npz")


@pytest.mark.parametrize("tag", ["default_50", "iter_9750", "paper"])
def test_the_schedule_is_the_published_one(tag):
    """One step per thousandth of an epoch; the schedule takes fractions of steps as well."""
    settings = json.loads(str(GOLDEN[f"lr/{tag}/args_json"]))
    per_epoch = 1000
    optim = OptimConfig(
        lr=settings["lr"],
        min_lr=settings["min_lr"],
        steps=round(settings["epochs"] * per_epoch),
        warmup_steps=round(settings["warmup_epochs"] * per_epoch),
    )
    ours = [optim.lr_at(epoch * per_epoch) for epoch in GOLDEN[f"lr/{tag}/epoch_f"]]
    np.testing.assert_allclose(ours, GOLDEN[f"lr/{tag}/lr"][:, 0], rtol=1e-9, atol=1e-20)


def test_a_plateau_before_the_cosine():
    plain = OptimConfig(lr=2.0, steps=100, warmup_steps=10)
    assert plain == OptimConfig(lr=2.0, steps=100, warmup_steps=10, decay_from=0.0)
    late = OptimConfig(lr=2.0, steps=100, warmup_steps=10, decay_from=0.5)
    assert late.lr_at(5) == 1.0
    assert late.lr_at(10) == late.lr_at(50) == 2.0
    assert late.lr_at(75) == pytest.approx(1.0) and late.lr_at(100) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="decay_from"):
        OptimConfig(lr=2.0, steps=100, decay_from=1.0)


def test_groups_by_hand():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model.register_parameter("token", nn.Parameter(torch.zeros(1, 3)))
    groups = parameter_groups(model, 0.05, {"0.*": 0.1})
    output = {(g["weight_decay"], g["lr_multiplier"]): sum(p.numel() for p in g["params"]) for g in groups}
    assert output == {(0.05, 1.0): 3, (0.05, 0.1): 6, (0.0, 0.1): 3, (0.0, 1.0): 6}


def test_the_published_toy_is_split_as_published():
    shapes = json.loads(str(GOLDEN["groups/toy_shapes_json"]))
    model = nn.Module()
    for name, entry in shapes.items():
        *shape, learns = entry
        owner = model
        *path, last = name.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_parameter(last, nn.Parameter(torch.zeros(shape), requires_grad=learns))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in parameter_groups(model, 0.05, {})}
    published = json.loads(str(GOLDEN["groups/toy_json"]))
    decayed, plain = set(), set()
    for group in published:  # a group of their own for names with "enc_blocks", with the same values
        (decayed if group["weight_decay"] else plain).update(group["params"])
    assert groups == {0.05: decayed, 0.0: plain}


def test_the_full_network_is_frozen_as_published():
    with torch.device("meta"):
        model = StreamVGGT()
    freeze_parameters(model, ["aggregator.patch_embed.*", "aggregator.camera_token", "aggregator.register_token"])
    assert summarize_parameters(model) == (
        "1451 tensors with 952,154,540 parameters are trainable, 346 with 304,382,976 are frozen"
    )
    groups = parameter_groups(model, 0.05, {})
    counts = {g["weight_decay"]: (len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups}
    assert counts == {0.0: (1039, 1_060_187), 0.05: (412, 951_094_353)}


def test_patterns_that_match_nothing_are_errors():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"'encoder\.\*' matches no parameter"):
        freeze_parameters(model, ["encoder.*"])
    with pytest.raises(ValueError, match="lr_multipliers pattern 'x'"):
        parameter_groups(model, 0.0, {"x": 0.5})
    with pytest.raises(ValueError, match="no parameter is trainable"):
        freeze_parameters(model, ["*"])
        OptimConfig(lr=1.0, steps=1).build(model)
    with pytest.raises(ValueError, match="warmup_steps=5"):
        OptimConfig(lr=1.0, steps=2, warmup_steps=5)


def test_parts_clipped_apart_are_all_parameters_once(fresh):
    model = fresh()
    optim = OptimConfig(lr=1e-3, steps=1, separate_clip=["camera_head.*", "*.bias"])
    sets = optim.clip_groups(model)
    found = [id(p) for parameters in sets for p in parameters]
    assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {id(p) for p in sets[1]} == {id(p) for p in model.camera_head.parameters()}
    with pytest.raises(ValueError, match="separate_clip pattern 'heads"):
        OptimConfig(lr=1e-3, steps=1, separate_clip=["heads.*"]).clip_groups(model)


@pytest.mark.parametrize("wrappers", ["module", "_orig_mod", "module._orig_mod", "_fsdp_wrapped_module"])
def test_names_of_a_wrapped_network_are_those_of_the_network(wrappers):
    model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "camera_head": nn.Linear(2, 1)})
    wrapped = model
    for wrapper in reversed(wrappers.split(".")):
        inner, wrapped = wrapped, nn.Module()
        wrapped.add_module(wrapper, inner)
    settings = {"separate_clip": ["camera_head.*"], "lr_multipliers": {"camera_head.*": 0.5}}
    optim = OptimConfig(lr=1.0, steps=1, **settings)
    freeze_parameters(wrapped, ["trunk.bias"])
    optim.build(wrapped)
    together, apart = optim.clip_groups(wrapped)
    assert [p is q for p, q in zip(apart, model["camera_head"].parameters(), strict=True)] == [True, True]
    assert together[0] is model["trunk"].weight and len(together) == 1

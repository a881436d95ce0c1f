"""Low-rank adapters: what learns, what is saved, and that a training with them resumes bit-exactly."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from streamvggt import load_model
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.training.adapters import LowRank
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth
from streamvggt.training.trainer import Trainer

BLOCKS = ("aggregator.frame_blocks.*", "aggregator.global_blocks.*")
FROZEN = ["aggregator.*"]


def make(folder, model, data, optim, **options) -> Trainer:
    return Trainer(
        model=model,
        supervision=GroundTruth(),
        loss=MultiTaskLoss(),
        data=data,
        optim=OptimConfig(**{"lr": 1e-3, "steps": 6, **optim}),
        output_dir=folder,
        **options,
    )


def test_a_fresh_adapter_changes_nothing_and_its_layer_is_frozen(fresh):
    model, plain = fresh(), fresh()
    LowRank(BLOCKS, rank=2).add(model)
    images = torch.rand(1, 2, 3, 28, 42)
    with torch.no_grad():
        assert torch.equal(model(images).depth, plain(images).depth)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "aggregator.global_blocks.0.attn.qkv.lora_B.default.weight" in learning
    assert "depth_head.norm.weight" in learning and "aggregator.camera_token" in learning
    assert not any(".base_layer." in name for name in learning)


def test_merged_weights_are_those_of_peft(fresh):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"]), model)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter)
    merged = LowRank(["*"], rank=2, alpha=6).merged(model.state_dict())
    assert set(merged) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for module in (layer for layer in model if isinstance(layer, LoraLayer)):
        module.merge()
    theirs = {
        name.replace(".base_layer", ""): value for name, value in model.state_dict().items() if "lora" not in name
    }
    for name, value in merged.items():
        assert torch.allclose(value, theirs[name], atol=1e-6), name


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_the_final_weights_are_plain_and_compute_the_same(tmp_path, planes, fresh, ema_decay):
    adapters = LowRank(BLOCKS, rank=2)
    options = {"adapters": adapters, "optim": {"freeze": FROZEN, "lr": 1e-2}, "ema_decay": ema_decay}
    trainer = make(tmp_path, fresh(), planes(), **options)
    trainer.run()
    final, before = load_model(tmp_path / "final"), fresh().state_dict()
    changed = {name for name, tensor in final.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "aggregator.frame_blocks.0.attn.qkv.weight" in changed and "depth_head.norm.weight" in changed
    assert not any("bias" in name and "blocks" in name and name.startswith("aggregator") for name in changed)
    assert not any(name.startswith("aggregator.patch_embed.") for name in changed)
    trained = trainer.network if ema_decay is None else trainer.update.ema.module
    images = planes()[0].images
    with torch.no_grad():
        assert torch.allclose(final(images).depth, trained.eval()(images).depth, atol=1e-5)


def test_a_training_with_adapters_resumes_bit_exactly(tmp_path, planes, fresh):
    options = {"adapters": LowRank(BLOCKS, rank=2, dropout=0.1), "optim": {"freeze": FROZEN, "steps": 3}}
    make(tmp_path / "whole", fresh(), planes(), **options).run()
    for _ in range(3):
        trainer = make(tmp_path / "cut", fresh(), planes(), max_minutes=0.0, **options)
        trainer.run()
    assert trainer.step == 3
    whole, cut = (load_model(tmp_path / name / "final").state_dict() for name in ("whole", "cut"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name
    with pytest.raises(ValueError, match=r"last\.pt: expected plain weights, .* Load best/ or final/ beside it"):
        load_model(tmp_path / "cut/last.pt")


def test_fewer_numbers_are_optimized(tmp_path, planes, fresh):
    trainer = make(tmp_path, fresh(), planes(), adapters=LowRank(BLOCKS, rank=1), optim={"freeze": ["*"]})
    learning = sum(p.numel() for p in trainer.network.parameters() if p.requires_grad)
    linear = [
        m
        for n, m in fresh().named_modules()
        if isinstance(m, nn.Linear) and n.startswith("aggregator.") and "_blocks." in n
    ]
    assert learning == sum(m.in_features + m.out_features for m in linear)


def test_a_pattern_without_a_linear_layer_is_an_error(fresh):
    with pytest.raises(
        ValueError, match=r"adapters\.layers: expected patterns of linear layers, got 'aggregator\.norm"
    ):
        LowRank(["aggregator.norm*"]).add(fresh())
    with pytest.raises(ValueError, match="expected rank ≥ 1"):
        LowRank(BLOCKS, rank=0)


def test_the_optimizer_is_of_what_the_caller_left_to_learn(fresh):
    model = fresh()
    LowRank(BLOCKS, rank=1).add(model)
    optimizer = OptimConfig(lr=1.0, steps=1).build(model)
    ours = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for p in model.parameters() if p.requires_grad}

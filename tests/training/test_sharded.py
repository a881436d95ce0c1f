"""A network shared by two processes block by block, as FSDP does it."""

import json

import pytest
import torch
from accelerate import Accelerator
from planes import Planes
from processes import run_together
from small_models import TINY

from streamvggt import StreamVGGT
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth
from streamvggt.training.trainer import Trainer
from streamvggt.training.validation import validate

OPTIMISATION = {"lr": 1e-3, "steps": 2, "separate_clip": ["camera_head.*"], "clip_norm": 1e-3}


def trainer(folder, model) -> Trainer:
    kinds = {"supervision": GroundTruth(), "loss": MultiTaskLoss(), "optim": OptimConfig(**OPTIMISATION)}
    return Trainer(model=model, output_dir=folder, data=Planes(), validation=Planes(), **kinds)


def validated(made: Trainer, num_batches: int) -> dict:
    """Validation losses, and the number of forward passes for them."""
    passes, model = [], made.update.model
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    losses, _ = validate(made.objective, model, made.validation, num_batches)
    hook.remove()
    return {"passes": len(passes), **losses}


def shard(model: StreamVGGT) -> StreamVGGT:
    from torch.distributed.fsdp import fully_shard

    for part in (*model.aggregator.frame_blocks, *model.aggregator.global_blocks, model.camera_head, model.depth_head):
        fully_shard(part)
    return fully_shard(model)


def train_sharded(rank, folder):
    Accelerator.prepare_model = lambda self, model, **_: model  # no DDP around it
    torch.manual_seed(0)
    made = trainer(folder, shard(StreamVGGT(**TINY)))
    output = {number: validated(made, number) for number in (1, 3)}
    output["norm"] = next(made.steps(1))["grad_norm"].item()
    (folder / f"{rank}.json").write_text(json.dumps(output), encoding="utf-8")


@pytest.mark.slow
def test_processes_keep_step_in_validation_and_count_each_batch_once(tmp_path):
    run_together(train_sharded, tmp_path)
    both = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert both[0] == both[1]
    assert both[0]["norm"] > 0
    assert (both[0]["1"]["passes"], both[0]["3"]["passes"]) == (1, 2)
    torch.manual_seed(0)
    alone = validated(trainer(tmp_path / "alone", StreamVGGT(**TINY)), 3)
    assert alone.pop("passes") == 3
    assert alone == pytest.approx({name: both[0]["3"][name] for name in alone}, rel=1e-4)

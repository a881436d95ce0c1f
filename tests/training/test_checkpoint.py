"""States of networks that processes share: gathered whole, and dealt out again."""

from pathlib import Path

import pytest
import torch
from planes import Planes
from processes import run_together
from small_models import TINY
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from streamvggt import StreamVGGT, load_model
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.training.checkpoint import CheckpointManager
from streamvggt.training.supervision import GroundTruth


def build(seed: int) -> tuple[StreamVGGT, torch.optim.Optimizer]:
    """A network whose blocks two processes share."""
    torch.manual_seed(seed)
    mesh = init_device_mesh("cpu", (2,))
    model = StreamVGGT(heads=("camera", "depth"), **TINY)
    for block in [*model.aggregator.frame_blocks, *model.aggregator.global_blocks]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def step(model: StreamVGGT, optimizer: torch.optim.Optimizer, index: int) -> None:
    loss, batch = MultiTaskLoss(points=None), Planes()[index]
    target = GroundTruth()(batch, loss.heads, None, None)
    loss(model(batch.images, heads=loss.heads), target).total.backward()
    optimizer.step()
    optimizer.zero_grad()


def save_and_continue(rank: int, folder: Path) -> None:
    model, optimizer = build(0)
    assert model.aggregator.frame_blocks[0].mlp.fc1.weight._local_tensor.shape != (128, 32)  # a share of it
    step(model, optimizer, 0)
    checkpoints = CheckpointManager(folder, is_main=rank == 0)
    checkpoints.save(1, model, optimizer, model.config.as_dict(), {"best": 1.5})
    torch.distributed.barrier()
    again, its_optimizer = build(1)
    assert checkpoints.load(checkpoints.last, again, its_optimizer) == (1, {"best": 1.5})
    step(model, optimizer, 1)
    step(again, its_optimizer, 1)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a.full_tensor(), b.full_tensor()), name


@pytest.mark.slow
def test_a_sharded_network_is_saved_whole_and_continues(tmp_path):
    folder = tmp_path / "states"
    run_together(save_and_continue, folder)
    whole = load_model(folder / "last.pt")
    assert whole.aggregator.frame_blocks[0].mlp.fc1.weight.shape == (128, 32)
    state = torch.load(folder / "last.pt", weights_only=True)
    moment = state["optimizer"]["state"]["aggregator.frame_blocks.0.mlp.fc1.weight"]["exp_avg"]
    assert moment.shape == (128, 32)
    assert moment.abs().max() > 0

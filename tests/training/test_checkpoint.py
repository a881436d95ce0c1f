"""States of networks that processes share: gathered whole, and dealt out again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from streamvggt import load_model

SHARDED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from conftest import Planes
from small_models import TINY
from streamvggt import StreamVGGT
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.training.checkpoint import CheckpointManager
from streamvggt.training.supervision import GroundTruth

torch.distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
rank = torch.distributed.get_rank()

def build(seed):
    torch.manual_seed(seed)
    model = StreamVGGT(heads=("camera", "depth"), **TINY)
    for block in [*model.aggregator.frame_blocks, *model.aggregator.global_blocks]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=1e-3), MultiTaskLoss(points=None)

def step(model, optimizer, loss, index):
    batch = Planes()[index]
    target = GroundTruth()(batch, loss.heads, None, None)
    loss(model(batch.images, heads=loss.heads), target).total.backward()
    optimizer.step()
    optimizer.zero_grad()

model, optimizer, loss = build(0)
assert not model.aggregator.frame_blocks[0].mlp.fc1.weight._local_tensor.shape == (128, 32)  # a share of it
step(model, optimizer, loss, 0)
checkpoints = CheckpointManager(Path({folder!r}), is_main=rank == 0)
checkpoints.save(1, model, optimizer, model.config.as_dict(), {{"best": 1.5}})
torch.distributed.barrier()
again, its_optimizer, _ = build(1)
assert checkpoints.load(checkpoints.last, again, its_optimizer) == (1, {{"best": 1.5}})
step(model, optimizer, loss, 1)
step(again, its_optimizer, loss, 1)
for (name, a), b in zip(model.state_dict().items(), again.state_dict().values()):
    assert torch.equal(a.full_tensor(), b.full_tensor()), name
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_a_sharded_network_is_saved_whole_and_continues(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "sharded.py"
    folder = tmp_path / "states"
    script.write_text(SHARDED.format(paths=[str(here), str(here.parent)], folder=str(folder)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29633"]
    done = subprocess.run(
        [*command, script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole = load_model(folder / "last.pt")
    assert whole.aggregator.frame_blocks[0].mlp.fc1.weight.shape == (128, 32)
    state = torch.load(folder / "last.pt", weights_only=True)
    moment = state["optimizer"]["state"]["aggregator.frame_blocks.0.mlp.fc1.weight"]["exp_avg"]
    assert moment.shape == (128, 32)
    assert moment.abs().max() > 0

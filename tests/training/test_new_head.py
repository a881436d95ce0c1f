"""A head of surface normals, added by an entry in the table of heads: from data to loss, stream, result and export."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from planes import Planes
from small_models import tiny
from torch import Tensor
from torch.nn import functional as F

from streamvggt import StreamSession, load_model
from streamvggt.export import EXPORTERS, ExportOptions, NothingLeft, ReconstructionResult, ResultWriter
from streamvggt.frame import Frame
from streamvggt.losses.distill import DistillLoss, DistillMapTerm
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.losses.target import Target
from streamvggt.losses.terms import normals
from streamvggt.model.heads import HEADS, HeadEntry, dpt_layers
from streamvggt.model.heads.dense import MapHead
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth
from streamvggt.training.trainer import Trainer


class NormalsHead(MapHead):
    """Surface normals in the camera frame."""

    out_channels = 4

    def activate(self, maps: Tensor) -> dict[str, Tensor]:
        return {"normals": F.normalize(maps[..., :3], dim=-1), "normals_conf": 1 + maps[..., 3].exp()}


@dataclass(frozen=True)
class NormalsTerm:
    """1 - cosine to the normals of the target's points."""

    weight: float = 1.0
    target_output = "points"

    def __call__(self, prediction, target):
        known = normals(target.prediction.points)[:, :, 0, 1:, 1:]
        rotation = target.prediction.cameras().cam_from_world[..., :3]
        known = torch.einsum("bsij,bshwj->bshwi", rotation, known)
        return (1 - (prediction.extra["normals"][:, :, 1:, 1:] * known).sum(-1)).mean()


class SameBatch:
    """The same batch at every step."""

    def __getitem__(self, index):
        return Planes()[1]


@pytest.fixture
def normals_in_table(monkeypatch):
    monkeypatch.setitem(HEADS, "normals", HeadEntry("normals_head", NormalsHead, dpt_layers))


@pytest.fixture
def trained(normals_in_table, fresh, tmp_path):
    model = fresh(heads=("camera", "normals"))
    trainer = Trainer(
        model=model,
        supervision=GroundTruth(),
        loss=MultiTaskLoss(camera=None, depth=None, points=None, normals=NormalsTerm()),
        data=SameBatch(),
        optim=OptimConfig(lr=5e-3, steps=12, warmup_steps=1),
        output_dir=tmp_path / "out",
    )
    losses = [float(step["normals"]) for step in trainer.steps(12)]
    assert losses[-1] < 0.5 * losses[0]
    trainer.save_weights("final")
    return tmp_path / "out" / "final"


def test_from_training_to_export(trained, tmp_path):
    model = load_model(trained)
    assert model.heads == ("camera", "normals") and not hasattr(model, "depth_head")
    assert any(name.startswith("normals_head.scratch.") for name in model.state_dict())
    frames = Planes(num_frames=3)[5].images
    with torch.no_grad():
        whole = model(frames)
    session, writer = StreamSession(model), ResultWriter(tmp_path / "result")
    for number, image in enumerate(frames[0]):
        original = (image * 255).round().byte().movedim(0, -1).numpy()
        frame = Frame(
            image=image,
            index=number,
            name=f"f{number}",
            original=original,
            original_from_image=np.eye(3),
            content=(0, 0, 28, 42),
        )
        output = session.push(frame)
        torch.testing.assert_close(output.extra["normals"][:, 0], whole.extra["normals"][:, number], atol=1e-4, rtol=0)
        writer.add(frame, output)
    result = ReconstructionResult(tmp_path / "result")
    assert result[1].extra.keys() == {"normals", "normals_conf"} and result[1].depth is None
    folder = EXPORTERS["extra"](result, tmp_path, ExportOptions())
    np.testing.assert_allclose(np.load(folder / "normals" / "f2.npy"), whole.extra["normals"][0, 2], atol=1e-4)


def test_distillation_of_a_further_map(normals_in_table):
    teacher, student = (tiny(causal, heads=("camera", "normals")) for causal in (False, True))
    frames = Planes()[0].images.double()
    with torch.no_grad():
        known = teacher(frames)
    loss = DistillLoss(camera=None, depth=None, points=None, track=None, normals=DistillMapTerm(weight=2.0))
    assert loss.heads == ("normals",)
    result = loss(student(frames, heads=loss.heads, dense_frames=[0, 2]), Target(known))
    result.total.backward()
    assert result.terms.keys() == {"normals"} and student.normals_head.norm.weight.grad.abs().sum() > 0


def test_results_without_further_heads_have_nothing_to_export(tmp_path):
    session, writer = StreamSession(tiny(dtype=torch.float32, heads=("camera",))), ResultWriter(tmp_path)
    image = torch.rand(3, 28, 42)
    original = np.zeros((28, 42, 3), np.uint8)
    frame = Frame(
        image=image, index=0, name="f", original=original, original_from_image=np.eye(3), content=(0, 0, 28, 42)
    )
    writer.add(frame, session.push(frame))
    with pytest.raises(NothingLeft, match="no head beside"):
        EXPORTERS["extra"](ReconstructionResult(tmp_path), tmp_path, ExportOptions())

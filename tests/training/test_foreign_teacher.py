"""Teachers of which only predictions are known: from data to the student's loss, at any image size and scale."""

import json

import pytest
import torch
from omega import TINY, write_omega

from streamvggt import VGGT, Prediction
from streamvggt.geometry.camera import Cameras, pose_enc_from_cameras
from streamvggt.geometry.pointmap import project
from streamvggt.losses.distill import DistillLoss
from streamvggt.training.foreign_teacher import ForeignTeacher, resized
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import Teacher, mean_distance
from streamvggt.training.teachers import load_teacher, taught_by
from streamvggt.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*shapes do not determine")


class StandIn:
    """A foreign teacher: depth by brightness, a camera that moves to the right, everything in a unit of its own."""

    patch_size = 16
    unit = 1.0

    def __call__(self, images: torch.Tensor) -> Prediction:
        batch, frames, _, height, width = images.shape
        self.seen = height, width
        pose = torch.eye(4)[:3].repeat(batch, frames, 1, 1)
        pose[..., 0, 3] = -0.1 * torch.arange(frames) * self.unit
        intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
        depth = (2 + images.mean(2))[..., None] * self.unit
        return Prediction(
            (height, width),
            pose_enc=pose_enc_from_cameras(Cameras(pose, intrinsics.expand(batch, frames, 3, 3)), (height, width)),
            depth=depth,
            depth_conf=1 + depth[..., 0] / self.unit,
            tracks=torch.zeros(batch, frames, 5, 2),
        )


def test_from_data_to_loss(planes, fresh):
    batch = planes(2)[3]
    teacher = ForeignTeacher(StandIn())
    target = teacher(batch, ("camera", "depth", "points", "track"), None, None)
    assert target.prediction.tracks is None and teacher.query_points(batch, torch.Generator()) is None
    result = DistillLoss()(fresh()(batch.images), target)
    assert result.terms.keys() == {"camera", "depth", "points"}
    assert result.total.isfinite() and all(term > 0 for term in result.terms.values())
    perfect = DistillLoss()(target.prediction, target)
    assert perfect.terms["camera"] < 1e-10 and perfect.details["points_gradient"] < 1e-6


def test_the_unit_is_the_mean_distance_of_the_supervised_points(planes):
    batch = planes(2, height=32, width=48)[3]
    batch.valid[:, 1, :5] = False
    model = StandIn()
    plain = ForeignTeacher(model)(batch, (), None, None).prediction
    torch.testing.assert_close(mean_distance(plain.points, batch.valid), torch.ones(2), atol=1e-4, rtol=0)
    model.unit = 50.0
    other = ForeignTeacher(model)(batch, (), None, None).prediction
    for name, tensor in plain._tensors().items():
        torch.testing.assert_close(getattr(other, name), tensor, atol=1e-5, rtol=1e-5, msg=name)
    raw = ForeignTeacher(model, normalize=False)(batch, (), None, None).prediction
    factor = raw.depth / plain.depth
    assert (factor - factor[:, :1, :1, :1]).abs().max() < 1e-2 and factor.min() > 40
    assert torch.equal(raw.pose_enc[..., 3:], plain.pose_enc[..., 3:])


@pytest.mark.parametrize(("size", "own"), [((32, 48), (32, 48)), ((28, 42), (32, 48)), ((70, 28), (64, 32))])
def test_images_that_its_patches_do_not_divide(planes, size, own):
    """The teacher sees the same whole picture at a size of its own; cameras, depth and points fit the student's."""
    batch = planes(1, height=size[0], width=size[1])[3]
    model = StandIn()
    output = ForeignTeacher(model).predict(batch.images)
    assert model.seen == own and output.image_size == size
    with_own = model(batch.images if own == size else torch.zeros(1, 3, 3, *own))
    assert torch.equal(output.pose_enc, with_own.pose_enc)
    assert output.depth.shape == (1, 3, *size, 1) and output.depth_conf.shape == output.points_conf.shape == (
        1,
        3,
        *size,
    )
    known = (2 + batch.images.mean(2))[..., None]
    near = (output.depth - known).abs()
    assert near.mean() < (1e-6 if own == size else 0.05)
    pixels, depth = project(output.points.flatten(2, 3), output.cameras())
    torch.testing.assert_close(depth.reshape(output.depth.shape), output.depth, atol=1e-4, rtol=0)
    y, x = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    torch.testing.assert_close(pixels[0, 0], torch.stack([x, y], -1).flatten(0, 1), atol=2e-3, rtol=0)


def test_maps_are_resized_linearly_and_fields_of_view_stay():
    """A map that is linear over the picture stays that map, away from the border."""
    across = (torch.arange(8) + 0.5) / 8
    points = across.expand(1, 1, 4, 8)[..., None] * torch.tensor([1.0, 2.0, 3.0])
    told = resized(Prediction((4, 8), points=points, points_conf=across.expand(1, 1, 4, 8)), (6, 16))
    finer = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(told.points_conf[0, 0, :, 1:-1], finer[1:-1].expand(6, -1))
    torch.testing.assert_close(told.points[..., 2], 3 * told.points_conf)
    assert told.image_size == (6, 16)


def test_a_teacher_of_other_frames_is_rejected(planes):
    with pytest.raises(ValueError, match=r"teacher, depth: expected \(1, 3, 28, 42, 1\), got \(1, 2, 28, 42, 1\)"):
        ForeignTeacher(lambda images: Prediction((28, 42), depth=images[:, 1:, 0, :, :, None])).predict(
            planes()[0].images
        )


class Sized:
    """The same planes at every step, in images of whole patches."""

    def __init__(self, planes, patch_size=14):
        self.planes, self.patch_size = planes, patch_size

    def for_patches(self, patch_size):
        return Sized(self.planes, patch_size)

    def __getitem__(self, index):
        side = self.patch_size * max(1, round(42 / self.patch_size))
        return self.planes(1, 2, side, side)[7]


def train(folder, model, supervision, planes, **options) -> Trainer:
    return Trainer(
        model=model,
        supervision=supervision,
        loss=DistillLoss(),
        data=Sized(planes),
        optim=OptimConfig(lr=2e-3, steps=10, warmup_steps=1),
        output_dir=folder,
        log_every=1,
        **options,
    )


@pytest.mark.parametrize("same_images", [True, False])
def test_a_student_learns_from_a_small_omega(tmp_path, planes, fresh, same_images, capsys):
    omega = load_teacher(write_omega(tmp_path / "omega.pt", **TINY))
    before = {name: tensor.clone() for name, tensor in omega.state_dict().items()}
    supervision = taught_by(omega, same_images=same_images)
    assert isinstance(supervision, ForeignTeacher)
    student = fresh(patch_size=8, image_size=48)
    trainer = train(tmp_path / "out", student, supervision, planes)
    sizes, norms = set(), {}
    omega.register_forward_pre_hook(lambda _, inputs: sizes.add(tuple(inputs[0].shape[-2:])))
    student.register_forward_pre_hook(lambda _, inputs: sizes.add(tuple(inputs[0].shape[-2:])))
    learning = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    for name, parameter in learning.items():
        parameter.register_hook(lambda gradient, name=name: norms.__setitem__(name, float(gradient.norm())))
    trainer.run()
    assert sizes == ({(48, 48)} if same_images else {(40, 40), (32, 32)})
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 10 and all(map(float, losses)) and losses[-1] < 0.9 * losses[0]
    assert {name for name in learning if not norms.get(name)} == {name for name in learning if "track_head." in name}
    assert all(torch.equal(tensor, before[name]) for name, tensor in omega.state_dict().items())
    output = capsys.readouterr()
    output = output.out + output.err
    assert (
        "Distilling from VGGTOmega (patch size 16) without tracks." in output
        and "noncommercial research only" in output
    )
    assert ("image sides that are multiples of 16 pixels" in output) == same_images


def test_both_grids_divide_multiples_of_112(tmp_path, planes, fresh):
    trainer = train(tmp_path, fresh(), ForeignTeacher(StandIn()), planes)
    assert trainer.data.patch_size == 112


def test_a_vggt_stays_a_teacher_that_may_share_its_encoder(teacher):
    model = load_teacher(teacher)
    assert type(model) is VGGT and not model.causal
    supervision = taught_by(model, num_queries=7)
    assert isinstance(supervision, Teacher) and supervision.num_queries == 7

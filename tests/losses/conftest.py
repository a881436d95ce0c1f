"""Inputs of the golden losses, and the pieces that tests put predictions together from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamvggt.geometry.camera import Cameras, invert_pose, pose_enc_from_cameras
from streamvggt.losses.target import Target
from streamvggt.prediction import Prediction

SIZE = (28, 42)


class Goldens:
    """`losses.npz`: numbers as float64 tensors, masks as bool, text parsed."""

    def __init__(self, path: Path):
        self.file = np.load(path)

    def __contains__(self, name: str) -> bool:
        return name in self.file

    def __getitem__(self, name: str) -> torch.Tensor:
        value = torch.from_numpy(self.file[name])
        return value.double() if value.is_floating_point() else value

    def text(self, name: str) -> dict:
        return json.loads(str(self.file[name]))

    def maps(self, who: str, case: str = "base", tracks: bool = False) -> Prediction:
        """Student's or teacher's side of a distillation case."""
        read = {
            "pose_enc": "pose",
            "depth": "depth",
            "depth_conf": "depth_conf",
            "points": "pts",
            "points_conf": "conf",
        }
        if tracks:
            read |= {"tracks": "track", "visibility": "vis", "track_conf": "track_conf"}
        return Prediction(SIZE, **{field: self[f"distill/in/{who}_{name}"] for field, name in read.items()})

    def distill(self, case: str) -> tuple[Prediction, Target]:
        """Student and target of a distillation case, as losses.md describes them."""
        tracks = case in ("track", "empty_view", "identical")
        student, teacher = self.maps("student", case, tracks), self.maps("teacher", case, tracks)
        mask = {
            "empty_view": "mask_empty_view",
            "empty_sample": "mask_empty_sample",
            "all_empty": "mask_all_empty",
        }.get(case, "mask_base")
        valid = self[f"distill/in/{mask}"]
        shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        if case == "no_depth":
            student, teacher = (replace(p, depth=None, depth_conf=None) for p in (student, teacher))
        elif case == "low_conf":
            student = replace(student, points_conf=self["distill/in/student_conf_low"])
        elif case == "identical":
            student = teacher
        elif case == "affine":
            student = replace(student, depth=student.depth * 3 + 0.7, points=student.points * 0.25 + shift)
        elif case == "neg_depth":
            student = replace(student, depth=-student.depth)
        elif case == "b1_affine":
            student = replace(student, depth=student.depth * -2 + 0.7, points=student.points * -0.25 + shift)
        if case.startswith("b1"):
            student, teacher = (p.map(lambda t: t[:1]) for p in (student, teacher))
            valid = valid[:1]
        return student, Target(teacher, valid=valid)

    def finetune(self, case: str) -> tuple[Prediction, Target]:
        """Prediction and target of a fine-tuning case, with the first camera as world."""
        world_from_cam = self["finetune/in/camera_pose"]
        first_from_world = world_from_cam[:, :1].inverse()  # not quite a rotation: they were rounded to float32
        rotation, translation = first_from_world[..., :3, :3], first_from_world[..., :3, 3]
        points = self["finetune/in/pts3d"] @ rotation[:, :, None].mT + translation[:, :, None, None]
        first_from_cam = (first_from_world @ world_from_cam)[..., :3, :]
        eye = torch.eye(3, dtype=torch.float64)
        cameras = Cameras(invert_pose(first_from_cam), eye.expand(*first_from_cam.shape[:2], 3, 3) * 30)
        known = Prediction(SIZE, pose_enc=pose_enc_from_cameras(cameras, SIZE), points=points)

        kind = case.rsplit("/")[-1]
        pose = self["finetune/in/pred_pose_vggt_convention" if kind == "train_vggt_pose" else "finetune/in/pred_pose"]
        predicted = Prediction(
            SIZE,
            pose_enc=torch.nn.functional.pad(pose, (0, 2)),  # the criterion reads seven numbers
            points=self["finetune/in/pred_pts"],
            points_conf=self["finetune/in/pred_conf"],
        )
        empty = {"train_empty_view": "valid_mask_empty_view", "train_empty_sample": "valid_mask_empty_sample"}
        sky = self["finetune/in/sky_mask"]
        if kind in empty or kind == "train_no_sky":
            sky = torch.zeros_like(sky)
        metric = {"all": [True, True], "none": [False, False]}.get(kind.split("_")[1], [True, False])
        if kind == "train_norm_all":
            metric = [True, False]
        return predicted, Target(
            known,
            valid=self[f"finetune/in/{empty.get(kind, 'valid_mask')}"],
            sky=sky,
            is_metric=torch.tensor(metric),
            camera_only=torch.tensor([kind == "train_camera_only", False]),
        )


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return Goldens(Path(__file__).parents[1] / "goldens" / "losses.npz")


@pytest.fixture
def student(goldens) -> Prediction:
    return goldens.maps("student", tracks=True)


@pytest.fixture
def teacher(goldens) -> Prediction:
    return goldens.maps("teacher", tracks=True)


@pytest.fixture
def valid(goldens) -> torch.Tensor:
    return goldens["distill/in/mask_base"]


@pytest.fixture
def close():
    """Equal as the goldens are: they were computed in float64, but for one pixel count."""

    def assert_close(ours, theirs, rtol=1e-6, atol=1e-9):
        ours, theirs = (torch.as_tensor(value, dtype=torch.float64).detach() for value in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)

    return assert_close


@pytest.fixture
def gradients():
    """The gradients of a criterion's total with respect to every field of the prediction."""

    def compute(criterion, prediction: Prediction, target: Target) -> dict[str, torch.Tensor]:
        prediction = prediction.map(lambda tensor: tensor.detach().clone().requires_grad_())
        leaves = prediction._tensors()
        criterion(prediction, target).total.backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    return compute

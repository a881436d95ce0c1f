"""The published fine-tuning criteria: every number of the released code."""

from dataclasses import replace

import pytest
import torch

from streamvggt.geometry.camera import cameras_from_pose_enc
from streamvggt.losses.pointmap_reference import (
    PointmapLossReference,
    PointmapTestPublished,
    pointmap_errors,
    published_pose,
    weighted_mean_norm,
)

TRAIN = (
    *("all_metric", "camera_only", "empty_sample", "empty_view", "mixed"),
    *("no_sky", "none_metric", "norm_all", "vggt_pose"),
)
TEST = ["all_metric", "mixed", "none_metric"]
FIELDS = {"points": "pts3d_in_other_view", "points_conf": "conf", "pose_enc": "camera_pose"}
DETAILS = {
    "Regr3DPose_pts3d": "points",
    "Regr3DPose_ScaleInv_pts3d": "points_same_spread",
    "ConfLoss(Regr3DPose(L21Loss()))_conf_loss": "conf",
}


def our_names(details: dict) -> dict:
    named = {"pose": details["pose_loss"]} if "pose_loss" in details else {}
    for name, value in details.items():
        kind, _, view = name.rpartition("/")
        if kind:
            named[f"{DETAILS[kind]}/{view}"] = value
    return named


def criterion_of(case: str):
    if case.startswith("test"):
        return PointmapTestPublished()
    return PointmapLossReference(keep_metric=case != "train_norm_all")


@pytest.mark.parametrize("case", [f"train_{name}" for name in TRAIN] + [f"test_{name}" for name in TEST])
class TestGoldens:
    def test_total_and_details(self, goldens, close, case):
        result = criterion_of(case)(*goldens.finetune(case))
        close(result.total, goldens[f"finetune/{case}/total"])
        close(sum(result.terms.values()), result.total)
        theirs = our_names(goldens.text(f"finetune/{case}/details_json"))
        assert result.details.keys() == theirs.keys()
        for name, value in theirs.items():
            close(result.details[name], value)

    def test_gradients(self, goldens, close, gradients, case):
        found = gradients(criterion_of(case), *goldens.finetune(case))
        for ours, theirs in FIELDS.items():
            close(found[ours].norm(), goldens[f"finetune/{case}/gradnorm_{theirs}"])

    def test_normalized_quantities(self, goldens, close, case):
        prediction, target = goldens.finetune(case)
        keep = {"keep_scale": True} if case.startswith("test") else {"sky_error": 2.0}
        errors = pointmap_errors(prediction, target, keep_metric=case != "train_norm_all", **keep)
        poses = published_pose(target.prediction.pose_enc)
        if case != "train_camera_only":
            known, predicted = (
                (poses[..., :3], errors.target_factor),
                (prediction.pose_enc[..., :3], errors.prediction_factor),
            )
            for (translation, factor), name in ((known, "gt"), (predicted, "pred")):
                close(translation / factor[:, None, None], goldens[f"finetune/{case}/{name}_pose_T"])
        close(poses[..., 3:], goldens[f"finetune/{case}/gt_pose_Q"])
        assert torch.equal(target.valid.sum((0, 2, 3)), goldens[f"finetune/{case}/n_masked"])
        if case == "train_mixed":
            assert torch.equal((errors.counted & ~target.valid).sum((0, 2, 3)), goldens[f"finetune/{case}/n_sky"])

        weights = prediction.points_conf.log().clamp(min=1e-3) * target.valid
        for points, name in (
            (target.prediction.points, "norm_factor_gt"),
            (prediction.points, "norm_factor_pred_if_not_metric"),
        ):
            if f"finetune/{case}/{name}" in goldens:
                close(weighted_mean_norm(points, weights), goldens[f"finetune/{case}/{name}"].clamp(min=1e-3))


def test_same_spread_without_true_scale(goldens, close):
    errors = pointmap_errors(*goldens.finetune("scaleinv_nogt"), same_spread=True)
    means = errors.view_means(errors.points)
    close(means.sum(), goldens["finetune/scaleinv_nogt/total"])
    theirs = our_names(goldens.text("finetune/scaleinv_nogt/details_json"))
    close(means, [theirs[f"points_same_spread/{view}"] for view in (1, 2, 3)])
    close(errors.pose, theirs["pose"])


def test_camera_learns_nothing_from_its_own_convention(goldens, gradients):
    """What is wrong with it: perfect poses as VGGT writes them are clipped away."""
    found = gradients(PointmapLossReference(), *goldens.finetune("train_vggt_pose"))
    assert (found["pose_enc"] == 0).all()


def test_converted_pose(goldens, close):
    """With `convert_pose`, the network's own numbers of the ground-truth pose are right."""
    prediction, target = goldens.finetune("train_all_metric")
    prediction = replace(prediction, pose_enc=target.prediction.pose_enc)
    result = PointmapLossReference(convert_pose=True)(prediction, target)
    close(result.details["pose"], 0.0, atol=1e-12)
    unit = published_pose(prediction.pose_enc)
    close(unit[..., :3], cameras_from_pose_enc(prediction.pose_enc, (28, 42)).world_from_cam[..., 3])


def test_autocast_is_left_outside(goldens):
    """The conversion multiplies matrices, which autocast would do in bfloat16."""
    prediction, target = goldens.finetune("train_all_metric")
    prediction = prediction.to(torch.float32)
    target = replace(target, prediction=target.prediction.to(torch.float32))
    criterion = PointmapLossReference(convert_pose=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = criterion(prediction, target)
    assert inside.details["pose"] == criterion(prediction, target).details["pose"]


def test_without_the_camera_only_points_are_asked_for(goldens):
    criterion = PointmapLossReference(camera=0.0)
    assert criterion.heads == ("points",)
    prediction, target = goldens.finetune("train_mixed")
    assert set(criterion(replace(prediction, pose_enc=None), target).terms) == {"points"}

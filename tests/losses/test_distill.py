"""The corrected distillation loss: what it must teach, and what it must not."""

import math
from dataclasses import replace

import pytest
import torch

from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.distill import DEPTH, POINTS, DistillLoss, DistillMapTerm
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.losses.target import Target
from streamvggt.losses.terms import iteration_mean
from streamvggt.losses.track import TrackTerm, cross_entropy
from streamvggt.prediction import Prediction

FREE = {scale: {"normalization": scale} for scale in ("per_map", "least_squares")}


def maps_loss(**options) -> DistillLoss:
    depth, points = (replace(term, **options) for term in (DEPTH, POINTS))
    return DistillLoss(camera=None, depth=depth, points=points, track=None)


def scaled(prediction: Prediction, factor) -> Prediction:
    return replace(prediction, depth=prediction.depth * factor, points=prediction.points * factor)


@pytest.fixture
def target(teacher, valid) -> Target:
    return Target(teacher, valid=valid)


class TestScale:
    @pytest.mark.parametrize("scale", ["per_map", "least_squares"])
    def test_is_free_when_asked(self, student, target, close, scale):
        criterion = maps_loss(normalization=scale)
        close(criterion(scaled(student, 1.7), target).total, criterion(student, target).total, rtol=1e-9)

    def test_is_taught_by_default(self, teacher, target):
        perfect, wrong = (maps_loss()(prediction, target).total for prediction in (teacher, scaled(teacher, 1.1)))
        assert wrong > perfect + 0.5

    @pytest.mark.parametrize("scale", ["teacher", "per_map", "least_squares"])
    @pytest.mark.parametrize("change", ["view scale", "shift", "view shift", "sign"])
    def test_nothing_else_is_free(self, teacher, target, scale, change):
        """Every change that ruins a reconstruction costs, in depth and in points."""
        ones = torch.ones(2, 3, 1, 1, 1, dtype=torch.float64)
        views = torch.tensor([1.0, 1.1, 0.9], dtype=torch.float64)[:, None, None, None]
        changed = {
            "view scale": lambda x: x * views,
            "shift": lambda x: x + 0.2 * ones,
            "view shift": lambda x: x + (views - 1),
            "sign": lambda x: -x,
        }[change]
        criterion = maps_loss(normalization=scale)
        perfect = criterion(teacher, target)
        worse = criterion(replace(teacher, depth=changed(teacher.depth), points=changed(teacher.points)), target)
        for head in ("depth", "points"):
            assert worse.terms[head] > perfect.terms[head] + 0.1, head

    def test_between_frames_is_free_with_factors_of_each_view(self, teacher, target, close):
        criterion = maps_loss(normalization="per_map", scope="view")
        views = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)[:, None, None, None]
        close(criterion(scaled(teacher, views), target).total, criterion(teacher, target).total, rtol=1e-9)

    def test_unit_of_the_scene_is_irrelevant(self, student, teacher, valid, close):
        totals = [
            maps_loss()(scaled(student, unit), Target(scaled(teacher, unit), valid=valid)).total for unit in (1, 7)
        ]
        close(*totals, rtol=1e-9)

    @pytest.mark.parametrize("wrong", [{"normalization": "none"}, {"scope": "batch"}, {"gradient": "grad"}])
    def test_unknown_words_are_rejected(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))):
            DistillMapTerm(weight=1.0, **wrong)


class TestMask:
    def test_empty_sample_contributes_nothing(self, student, teacher, valid, close):
        valid = valid.clone()
        valid[0] = False
        both = maps_loss()(student, Target(teacher, valid=valid))
        one = maps_loss()(student.map(lambda t: t[1:]), Target(teacher.map(lambda t: t[1:]), valid=valid[1:]))
        close(both.total, one.total)

    def test_empty_view_of_a_sample_does_not_explode(self, goldens):
        """The published loss says 387 here, and 5 without the empty view."""
        student, target = goldens.distill("empty_sample")
        full = maps_loss()(student, replace(target, valid=goldens["distill/in/mask_base"])).total
        assert maps_loss()(student, target).total == pytest.approx(full.item(), rel=0.2)

    def test_invalid_pixels_are_never_looked_at(self, student, teacher, valid, close, gradients):
        far = torch.full_like(student.depth, 1e8)
        hidden = ~valid[..., None]
        spoilt = replace(
            student, depth=torch.where(hidden, far, student.depth), points=torch.where(hidden, far, student.points)
        )
        nan = teacher.map(lambda t: t.clone())
        nan.depth[~valid], nan.points[~valid] = math.nan, math.nan
        for options in ({}, *FREE.values()):
            expected = maps_loss(**options)(student, Target(teacher, valid=valid)).total
            close(maps_loss(**options)(spoilt, Target(nan, valid=valid)).total, expected, rtol=1e-12)
        found = gradients(maps_loss(), student, Target(nan, valid=valid))
        assert all((found[name][~valid] == 0).all() for name in ("depth", "points", "depth_conf", "points_conf"))

    def test_no_mask_means_all_pixels(self, student, teacher, valid, close):
        close(
            maps_loss()(student, Target(teacher)).total,
            maps_loss()(student, Target(teacher, valid=torch.ones_like(valid))).total,
        )

    def test_wrong_shape_is_rejected(self, student, teacher, valid):
        with pytest.raises(ValueError, match="valid mask"):
            maps_loss()(student, Target(teacher, valid=valid[:, :1]))

    def test_more_invalid_pairs_do_not_dilute_the_slopes(self, teacher):
        """A slope that is wrong by 1 everywhere is an error of 1/2 (x of x and y), however much is masked."""
        x = torch.arange(42.0).expand(1, 1, 28, 42)
        flat = torch.ones(1, 1, 28, 42, 1)
        half = torch.zeros(1, 1, 28, 42, dtype=torch.bool)
        half[..., :20] = True
        criterion = DistillLoss(
            camera=None,
            points=None,
            track=None,
            depth=DistillMapTerm(weight=1.0, gradient="slope", gamma=0.0, alpha=0.0),
        )
        conf = torch.ones(1, 1, 28, 42)
        student = Prediction((28, 42), depth=flat + x[..., None], depth_conf=conf)
        for valid in (None, half):
            total = criterion(student, Target(Prediction((28, 42), depth=flat), valid=valid)).total
            assert total.item() == pytest.approx(0.5, rel=1e-5)

    def test_slopes_at_several_strides(self, teacher, close):
        """The same ramp is twice as wrong over two pixels."""
        x = torch.arange(42.0).expand(1, 1, 28, 42)
        flat, conf = torch.ones(1, 1, 28, 42, 1), torch.ones(1, 1, 28, 42)
        for strides, expected in (((1,), 0.5), ((2,), 1.0), ((1, 2), 0.75)):
            term = DistillMapTerm(weight=1.0, gradient="slope", gamma=0.0, alpha=0.0, strides=strides)
            criterion = DistillLoss(camera=None, points=None, track=None, depth=term)
            student = Prediction((28, 42), depth=flat + x[..., None], depth_conf=conf)
            close(criterion(student, Target(Prediction((28, 42), depth=flat))).total, expected, rtol=1e-5)

    def test_a_handful_of_normals_is_not_a_mean(self, student, teacher, valid):
        few = torch.zeros_like(valid)
        few[:, 0, 10:12, 10:14] = True  # 8 pixels: 12 normals
        assert maps_loss()(student, Target(teacher, valid=few)).details["points_gradient"] > 0
        few[:, 0, 10, 13] = False  # 9 normals
        assert maps_loss()(student, Target(teacher, valid=few)).details["points_gradient"] == 0


class TestMinimum:
    def test_perfect_prediction(self, teacher, target, close):
        """Only the confidences' reward and the entropies are left."""
        sure = replace(teacher, track_conf=torch.ones_like(teacher.track_conf))
        result = DistillLoss()(sure, target)
        close(result.terms["camera"], 0.0)
        for head, weight in (("depth", 20), ("points", 10)):
            close(result.details[f"{head}_gradient"], 0.0, atol=1e-4)  # grazing normals are shorter than 1
            log = getattr(teacher, f"{head}_conf").log() * target.valid
            reward = (log.flatten(1).sum(1) / target.valid.flatten(1).sum(1)).mean()
            close(result.terms[head], weight * (-0.1 * reward + result.details[f"{head}_gradient"]), rtol=1e-6)

    def test_gradients_vanish_there(self, teacher, target, gradients):
        found = gradients(DistillLoss(), teacher, target)
        assert found["pose_enc"].abs().max() == 0 and found["tracks"].abs().max() == 0
        assert found["depth"].abs().max() == 0
        assert found["visibility"].abs().max() < 1e-12

    def test_a_step_downhill_helps(self, student, target, gradients):
        found = gradients(DistillLoss(), student, target)
        better = replace(student, **{name: value - 1e-4 * found[name] for name, value in student._tensors().items()})
        assert DistillLoss()(better, target).total < DistillLoss()(student, target).total


class TestCamera:
    def test_stages_by_hand(self, student, teacher, close):
        """Only translation x of one frame is wrong: by 1, 0.5, 0.2, 0.1 in the four steps."""
        errors = (1.0, 0.5, 0.2, 0.1)
        stages = []
        for error in errors:
            pose_enc = teacher.pose_enc.clone()
            pose_enc[0, 1, 0] += error
            stages.append(pose_enc)
        student = replace(student, pose_enc=stages[-1], pose_enc_list=tuple(stages))
        found = CameraTerm(weight=1.0, error="l1", iteration_decay=0.6)(student, Target(teacher))
        of_all = 0.216 * 1.0 + 0.36 * 0.5 + 0.6 * 0.2 + 0.1
        close(found, of_all / 4 / 18)  # 18 = 2 sequences · 3 frames · 3 components
        last = CameraTerm(weight=1.0, error="l1", iteration_decay=None)(student, Target(teacher))
        close(last, 0.1 / 18)

    def test_huber_and_blocks_by_hand(self, teacher, close):
        pose_enc = teacher.pose_enc.clone()
        pose_enc[..., 0] += 0.05  # quadratic: 0.05²/0.2
        pose_enc[..., 8] += 0.5  # linear: 0.5 - 0.05
        found = CameraTerm(weight=1.0, translation=2.0, field_of_view=4.0)(
            replace(teacher, pose_enc=pose_enc), Target(teacher)
        )
        close(found, 2 * 0.0125 / 3 + 4 * 0.45 / 2)

    @pytest.mark.parametrize("error", ["huber", "l1", "l2"])
    def test_a_quaternion_and_its_negative_are_one_rotation(self, student, teacher, close, error):
        term, target = CameraTerm(weight=1.0, error=error), Target(teacher)
        flip = torch.tensor([1, 1, 1, -1, -1, -1, -1, 1, 1])
        close(term(replace(student, pose_enc=student.pose_enc * flip), target), term(student, target))

    def test_stage_mean_of_one_is_that_one(self, close):
        close(iteration_mean([torch.tensor(3.0)], 0.6), 3.0)


class TestTracks:
    @pytest.mark.parametrize("seen", [0.1, 0.5, 0.8, 1.0])
    def test_visibility_is_best_at_the_target(self, seen):
        """The published loss is best at 0 for every target below one half, and at 1 above 0.73."""
        probabilities = torch.linspace(0, 1, 101, dtype=torch.float64)
        best = probabilities[cross_entropy(probabilities, torch.full_like(probabilities, seen)).argmin()]
        assert best.item() == pytest.approx(seen, abs=1e-9)

    def test_confidence_cannot_be_made_small_for_free(self, student, teacher, gradients):
        """In the published loss every gradient with respect to it is positive."""
        near = replace(student, tracks=teacher.tracks + 1.0)
        far = replace(student, tracks=teacher.tracks + 5.0)
        for prediction, sign in ((near, -1), (far, 1)):
            found = gradients(DistillLoss(), prediction, Target(teacher))["track_conf"]
            assert (found * sign > 0).all()

    def test_confidence_is_of_the_last_step(self, student, teacher, gradients):
        stages = (teacher.tracks + 50.0, teacher.tracks + 1.0)
        student = replace(student, tracks=stages[-1], tracks_list=stages)
        criterion = DistillLoss(track=TrackTerm(weight=1.0, iteration_decay=0.8))
        assert (gradients(criterion, student, Target(teacher))["track_conf"] < 0).all()

    def test_unsure_teacher_teaches_less(self, student, teacher, gradients):
        conf = torch.ones_like(teacher.track_conf)
        conf[:, :, 3] = 0
        found = gradients(DistillLoss(), student, Target(replace(teacher, track_conf=conf)))
        for name in ("tracks", "visibility", "track_conf"):
            assert (found[name][:, :, 3] == 0).all() and (found[name][:, 1:, 4] != 0).all()

    def test_stages_by_hand(self, teacher, close):
        off = torch.tensor([3.0, 4.0], dtype=torch.float64)
        stages = tuple(teacher.tracks + k * off for k in (2, 1, 0))
        student = replace(teacher, tracks=stages[-1], tracks_list=stages)
        only_distance = {"visibility": 0.0, "confidence": 0.0, "weight_by_teacher_conf": False}
        for distance, length in (("l2", 5), ("l1", 7)):
            term = TrackTerm(weight=1.0, distance=distance, iteration_decay=0.8, **only_distance)
            close(term(student, Target(teacher)), (0.64 * 2 * length + 0.8 * length) / 3)
        close(TrackTerm(weight=1.0, **only_distance)(student, Target(teacher)), 0.0)

    def test_without_visibility_or_confidence(self, student, teacher):
        bare = {"visibility": None, "track_conf": None}
        total = DistillLoss()(replace(student, **bare), Target(replace(teacher, **bare))).total
        assert total.isfinite()


class TestConfidences:
    def test_pixels_count_by_the_teachers_confidence(self, student, teacher, valid):
        """Where the teacher is sure of one pixel only, this pixel decides."""
        conf = torch.full_like(teacher.depth_conf, 1e-9)
        conf[:, 1, 5, 5] = 1.0
        here = valid.clone()
        here[:, 1, 5, 5] = True
        target = Target(replace(teacher, depth_conf=conf), valid=here)
        term = DistillMapTerm(weight=1.0, weight_by_teacher_conf=True)
        criterion = DistillLoss(camera=None, points=None, track=None, depth=term)
        right = replace(student, depth=student.depth.clone(), depth_conf=torch.ones_like(conf))
        right.depth[:, 1, 5, 5] = teacher.depth[:, 1, 5, 5]
        assert criterion(right, target).total.abs() < 1e-5 < criterion(student, target).total.abs()

    def test_equal_confidence_changes_nothing(self, student, teacher, valid, close):
        same = replace(teacher, depth_conf=teacher.depth_conf * 0 + 3, points_conf=teacher.points_conf * 0 + 3)
        target = Target(same, valid=valid)
        close(maps_loss(weight_by_teacher_conf=True)(student, target).total, maps_loss()(student, target).total)
        even = replace(student, depth_conf=same.depth_conf, points_conf=same.points_conf)
        close(maps_loss(weight_gradient_by_conf=True)(even, target).total, maps_loss()(even, target).total)

    def test_slopes_by_the_students_confidence(self, student, target, gradients):
        """It weighs the slopes and normals, which say nothing about it."""
        plain, weighed = maps_loss(gamma=0.0, alpha=0.0), maps_loss(gamma=0.0, alpha=0.0, weight_gradient_by_conf=True)
        assert plain(student, target).total != weighed(student, target).total
        assert gradients(weighed, student, target)["depth_conf"].abs().max() == 0

    def test_a_teacher_without_confidence_cannot_weigh(self, student, teacher):
        with pytest.raises(ValueError, match="weight_by_teacher_conf"):
            maps_loss(weight_by_teacher_conf=True)(student, Target(replace(teacher, depth_conf=None)))


ALL = [
    DistillLoss(),
    DistillLoss(track=TrackTerm(weight=0.5, iteration_decay=0.8)),
    maps_loss(normalization="per_map"),
    maps_loss(normalization="least_squares", weight_by_teacher_conf=True, weight_gradient_by_conf=True),
    MultiTaskLoss(track=TrackTerm(weight=0.05, visible_only=True)),
]


@pytest.mark.parametrize("criterion", ALL)
class TestEveryCriterion:
    @pytest.mark.parametrize("edge", ["all empty", "zero", "huge conf", "large", "sure tracks", "one pixel"])
    def test_finite_at_the_edges(self, student, teacher, valid, gradients, criterion, edge):
        zero = {"depth": torch.zeros_like(student.depth), "points": torch.zeros_like(student.points)}
        huge = {name: torch.full_like(student.depth_conf, 1e30) for name in ("depth_conf", "points_conf")}
        sure = {name: torch.ones_like(student.track_conf) for name in ("visibility", "track_conf")}
        one = torch.zeros_like(valid)
        one[0, 0, 3, 3] = True
        mask = {"all empty": torch.zeros_like(valid), "one pixel": one}.get(edge, valid)
        changed = {"zero": zero, "huge conf": huge, "sure tracks": sure}.get(edge, {})
        student = scaled(replace(student, **changed), 1e4 if edge == "large" else 1).to(torch.float32)
        teacher = replace(teacher, visibility=torch.zeros_like(teacher.visibility)).to(torch.float32)
        for known in (teacher, scaled(teacher, 0.0)):
            found = gradients(criterion, student, Target(known, valid=mask))
            assert all(value.isfinite().all() for value in found.values())
            assert criterion(student, Target(known, valid=mask)).total.isfinite()

    def test_half_precision_is_computed_in_float32(self, student, target, criterion):
        rounded = student.to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = criterion(rounded, replace(target, prediction=target.prediction.to(torch.float32)))
        expected = criterion(rounded.to(torch.float32), target)
        assert found.total.dtype == torch.float32
        assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)

    def test_the_teacher_learns_nothing(self, student, teacher, valid, criterion):
        teacher = teacher.map(lambda t: t.clone().requires_grad_())
        criterion(student.map(lambda t: t.clone().requires_grad_()), Target(teacher, valid=valid)).total.backward()
        assert all(tensor.grad is None for tensor in teacher._tensors().values())

    def test_what_the_target_does_not_know_is_skipped(self, student, teacher, valid, gradients, criterion):
        """But every output has a gradient, so that processes with different data agree."""
        target = Target(Prediction((28, 42)), valid=valid)
        assert criterion(student, target).terms == {}
        found = gradients(criterion, student, target)
        assert all((value == 0).all() for value in found.values())

    def test_what_the_prediction_lacks_is_an_error(self, student, target, criterion):
        with pytest.raises(ValueError, match="heads"):
            criterion(replace(student, depth=None, depth_conf=None), target)


def test_float32_is_enough(student, target):
    """The published loss wanders by 0.06 on maps this small: the normals of its corners are rounding noise."""
    exact = DistillLoss()(student, target).total
    rounded = DistillLoss()(student.to(torch.float32), replace(target, prediction=target.prediction.to(torch.float32)))
    assert rounded.total.item() == pytest.approx(exact.item(), rel=1e-5)


def test_batch_of_two_is_the_mean_of_two(student, teacher, valid, close):
    """Sequences do not know of each other."""

    def alone(prediction: Prediction, b: int) -> Prediction:
        return prediction.map(lambda tensor: tensor[b : b + 1])

    both = DistillLoss()(student, Target(teacher, valid=valid))
    ones = [DistillLoss()(alone(student, b), Target(alone(teacher, b), valid=valid[b : b + 1])) for b in range(2)]
    for name in ("camera", "depth", "points", "track"):
        close(both.terms[name], sum(one.terms[name] for one in ones) / 2)
    close(both.total, sum(one.total for one in ones) / 2)


def test_weight_zero_asks_for_no_head(student, target):
    criterion = DistillLoss(track=TrackTerm(weight=0.0), points=None)
    assert criterion.heads == ("camera", "depth")
    assert set(criterion(replace(student, points=None, tracks=None), target).terms) == {"camera", "depth"}
    assert DistillLoss().heads == ("camera", "depth", "points", "track")

"""Supervision by measurements: the original VGGT's numbers, and what must hold."""

from dataclasses import replace

import pytest
import torch

from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.criterion import MapPair
from streamvggt.losses.multitask import MultiTaskLoss, SupervisedMapTerm, trimmed_mean
from streamvggt.losses.target import Target
from streamvggt.losses.track import TrackTerm

SLOPE = {"gradient": "slope", "strides": (1, 2, 4, 8)}
NORMAL = {"gradient": "normal", "strides": (1, 2, 4)}
CONF = {"weight_gradient_by_conf": True}


@pytest.mark.parametrize("keep", [None, 0.98])
@pytest.mark.parametrize(
    "case, head, options",
    [
        ("depth", "depth", SLOPE),
        ("point", "points", NORMAL),
        ("depth_gradconf", "depth", SLOPE | CONF),
        ("point_normalconf", "points", NORMAL | CONF),
    ],
)
def test_maps_are_vggts(goldens, student, teacher, valid, close, case, head, options, keep):
    maps = MapPair.of(head, student, Target(teacher, valid=valid))
    found = SupervisedMapTerm(1.0, error_quantile=keep, **options)(maps)
    theirs = f"vggt_style/{case}/valid_range_{'none' if keep is None else keep}"
    close(found["conf"], goldens[f"{theirs}/loss_conf"])
    close(found["regression"], goldens[f"{theirs}/loss_reg"])
    gradient = found["gradient"]
    if case == "depth_gradconf":
        # The original pays for confidence at pairs that are not valid too; we do not.
        gradient = gradient - torch.stack([unearned(maps, s) for s in options["strides"]]).mean()
    close(gradient, goldens[f"{theirs}/loss_grad"])


def unearned(maps: MapPair, stride: int, alpha: float = 0.2):
    log, valid = maps.conf.log()[..., ::stride, ::stride], maps.valid[..., ::stride, ::stride]
    along_x = log[..., 1:][~(valid[..., 1:] & valid[..., :-1])].sum()
    along_y = log[..., 1:, :][~(valid[..., 1:, :] & valid[..., :-1, :])].sum()
    return alpha * (along_x + along_y) / valid.sum()


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_camera_is_vggts(goldens, student, teacher, close, kind):
    noise = student.pose_enc - teacher.pose_enc
    multipliers = goldens["vggt_style/camera/stage_multipliers"]
    student = replace(student, pose_enc_list=tuple(teacher.pose_enc + m * noise for m in multipliers))
    target = Target(teacher)
    close(CameraTerm(1.0, kind)(student, target), goldens[f"vggt_style/camera/{kind}/loss"])
    parts = [
        CameraTerm(1.0, kind, translation=t, rotation=r, field_of_view=f)(student, target)
        for t, r, f in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    close(torch.stack(parts), goldens[f"vggt_style/camera/{kind}/T_R_FL"])


def test_total_is_the_weighted_sum(student, teacher, valid, close):
    result = MultiTaskLoss(track=TrackTerm(weight=0.05))(student, Target(teacher, valid=valid))
    assert set(result.terms) == {"camera", "depth", "points", "track"}
    close(sum(result.terms.values()), result.total)
    close(sum(v for k, v in result.details.items() if k.startswith("depth")), result.terms["depth"])
    assert not any(value.requires_grad for value in [*result.terms.values(), *result.details.values()])


def test_sequences_that_are_not_well_measured_teach_no_camera(student, teacher, valid, close):
    few = valid.clone()
    few[0, 0] = False
    few[0, 0, 0, :100] = True
    few[0, 0, 1:3, :29] = True  # 42 + 58 pixels
    term = CameraTerm(1.0, min_valid_pixels=101)
    second = term(student.map(lambda t: t[1:]), Target(teacher.map(lambda t: t[1:])))
    close(term(student, Target(teacher, valid=few)), second)
    few[0, 0, 4, 0] = True
    close(term(student, Target(teacher, valid=few)), term(student, Target(teacher)))


def test_outliers_are_dropped(close):
    values = torch.ones(2000, dtype=torch.float64)
    values[:20] = 50
    everything = torch.ones(2000, dtype=torch.bool)
    close(trimmed_mean(values + torch.arange(2000) * 1e-9, everything, 0.98), 1.0, rtol=1e-5)
    close(trimmed_mean(values, everything, None), (1980 + 20 * 50) / 2000)
    close(trimmed_mean(torch.full((2000,), 3.0, dtype=torch.float64), everything, 0.98), 3.0)
    close(trimmed_mean(torch.tensor([1.0, 1e9]), everything[:2], None), (1 + 100) / 2)


@pytest.mark.parametrize("number", [0, 1, 1000, 1001, 1026, 3000])
def test_values_that_do_not_count_do_not_move_the_quantile(number, close):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3000, generator=generator, dtype=torch.float64)
    counts = torch.zeros(3000, dtype=torch.bool)
    counts[torch.randperm(3000, generator=generator)[:number]] = True
    kept = values[counts].sort().values
    if number > 1000:
        kept = kept[: round(0.98 * (number - 1))]
    close(trimmed_mean(torch.where(counts, values, torch.nan), counts, 0.98), kept.mean() if number else 0.0)


@pytest.mark.parametrize("num_valid, learns", [(99, False), (100, True)])
def test_a_batch_of_few_pixels_teaches_nothing(student, teacher, valid, gradients, num_valid, learns):
    few = torch.zeros_like(valid).flatten()
    few[valid.flatten().nonzero()[:num_valid, 0]] = True
    few = few.view_as(valid)
    if not learns:
        student = replace(student, depth=torch.full_like(student.depth, torch.nan))  # spreads nowhere
    found = gradients(MultiTaskLoss(camera=None, points=None, track=None), student, Target(teacher, valid=few))
    assert found["depth"].isfinite().all()
    assert bool((found["depth"] != 0).any()) == learns


def test_broken_measurements_spread_nowhere(student, teacher, valid, gradients):
    nan = torch.tensor(float("nan"), dtype=torch.float64)
    broken = replace(
        teacher,
        depth=torch.where(valid[..., None], teacher.depth, nan),
        points=torch.where(valid[..., None], teacher.points, nan),
    )
    found = gradients(MultiTaskLoss(), student, Target(broken, valid=valid))
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert (found["depth"][~valid] == 0).all() and (found["points"][~valid] == 0).all()


def test_measured_tracks_count_where_they_are_seen(student, teacher, close):
    visibility = torch.ones_like(teacher.visibility)
    visibility[:, 0, :4] = 0  # unknown from the start
    visibility[:, 2, 4] = 0  # hidden in the last frame
    target = Target(replace(teacher, visibility=visibility))
    term = TrackTerm(1.0, visible_only=True, weight_by_teacher_conf=False, visibility=0.0, confidence=0.0)
    seen = visibility.bool() & visibility[:, :1].bool()
    distance = (student.tracks - teacher.tracks).norm(dim=-1)
    close(term(student, target), torch.stack([d[s].mean() for d, s in zip(distance, seen, strict=True)]).mean())

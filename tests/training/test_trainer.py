"""The loop: exact resume, many processes as one, and what goes wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from accelerate.utils.dataclasses import get_module_class_from_name
from planes import Planes
from processes import run_together
from small_models import TINY

import streamvggt.training.acceleration as acceleration
from streamvggt import StreamVGGT, load_model
from streamvggt.data.view import Batch
from streamvggt.layers.block import Block
from streamvggt.losses.distill import DistillLoss
from streamvggt.losses.distill_reference import DistillLossReference
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.losses.pointmap_reference import PointmapLossReference
from streamvggt.stream.policies.sliding_window import KeepAll, SlidingWindow
from streamvggt.stream.policies.token_diversity import TokenDiversity
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth, Teacher
from streamvggt.training.trainer import Trainer


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def make(folder, model, data, steps=6, **options) -> Trainer:
    optim = options.pop("optim", {})
    return Trainer(
        **{
            "model": model,
            "supervision": GroundTruth(),
            "loss": MultiTaskLoss(),
            "data": data,
            "validation": None,
            "optim": OptimConfig(**{"lr": 1e-3, "steps": steps, "warmup_steps": 1, **optim}),
            "output_dir": folder,
            "save_every": 2,
            "log_every": 1,
            **options,
        }
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_resumed_is_training_uninterrupted_bit_exactly(tmp_path, planes, fresh, accumulate):
    options = {"ema_decay": 0.9, "gradient_accumulation_steps": accumulate}
    make(tmp_path / "whole", fresh(), planes(), **options).run()

    class Killed(Exception):
        pass

    class Kills:
        def __init__(self, data, at):
            self.data, self.at = data, at

        def __getitem__(self, index):
            if index == self.at:
                raise Killed
            return self.data[index]

    with pytest.raises(Killed):
        make(tmp_path / "cut", fresh(), Kills(planes(), 3 * accumulate), **options).run()
    trainer = make(tmp_path / "cut", fresh(), planes(), **options)
    assert trainer.step == 2
    trainer.run()
    whole, cut = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 6
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, cut["model"][name]), name
    for name, tensor in whole["extra"]["ema"].items():
        assert torch.equal(tensor, cut["extra"]["ema"][name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert sorted(path.name for path in (tmp_path / "cut").glob("step-*")) == ["step-00000004.pt", "step-00000006.pt"]


def test_a_training_in_slices_is_a_training_in_one_go(tmp_path, planes, fresh):
    make(tmp_path / "whole", fresh(), planes(), steps=3).run()
    for slice_number in range(1, 4):  # no time at all: one step each
        trainer = make(tmp_path / "sliced", fresh(), planes(), steps=3, max_minutes=0.0)
        trainer.run()
        assert trainer.step == slice_number
        assert (tmp_path / "sliced" / "final").exists() == (slice_number == 3)
    whole, sliced = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "sliced"))
    assert all(torch.equal(tensor, sliced["model"][name]) for name, tensor in whole["model"].items())


def test_one_batch_can_be_overfitted(tmp_path, planes, fresh):
    class One:
        def __getitem__(self, index):
            return planes()[7]

    make(tmp_path, fresh(False), One(), steps=80, save_every=1000, optim={"lr": 3e-3}).run()
    output = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert output[-1]["train/camera"] < 0.1 * output[0]["train/camera"]
    model = load_model(tmp_path / "final")
    batch = planes()[7]
    with torch.no_grad():
        depth = model(batch.images).depth[..., 0]
    known = batch.depth / batch.depth.mean() * depth.mean()
    assert ((depth - known).abs() / known).mean() < 0.05


def test_frozen_is_frozen_and_what_is_not_run_does_not_change(tmp_path, planes, fresh):
    model = fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = MultiTaskLoss(points=None)  # the track term has weight 0
    make(tmp_path, model, planes(), loss=loss, optim={"freeze": ["aggregator.patch_embed.*"]}).run()
    changed = {name.split(".")[0] for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"aggregator", "camera_head", "depth_head"}
    for name, tensor in model.state_dict().items():
        if name.startswith("aggregator.patch_embed."):
            assert torch.equal(tensor, before[name]), name


def test_learning_rate_multipliers_slow_what_they_match(tmp_path, planes, fresh):
    model = fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {"lr_multipliers": {"camera_head.*": 0.0}, "warmup_steps": 0}
    make(tmp_path, model, planes(), steps=2, optim=settings).run()
    state = model.state_dict()
    assert all(torch.equal(state[n], before[n]) for n in state if n.startswith("camera_head"))
    assert not torch.equal(state["depth_head.norm.weight"], before["depth_head.norm.weight"])


def test_the_teachers_encoder_runs_once_when_it_is_the_students(tmp_path, planes, fresh, monkeypatch):
    teacher, student = fresh(False), fresh(True)
    ran = []
    for name, model in (("teacher", teacher), ("student", student)):
        real = model.aggregator.encode_patches
        monkeypatch.setattr(
            model.aggregator, "encode_patches", lambda images, real=real, name=name: ran.append(name) or real(images)
        )
    settings = {"freeze": ["aggregator.patch_embed.*"]}
    trainer = make(
        tmp_path / "a",
        student,
        planes(),
        steps=2,
        supervision=Teacher(teacher, 4),
        loss=DistillLoss(),
        optim=settings,
    )
    assert trainer.objective.encoder is not None
    trainer.run()
    assert ran == ["teacher", "teacher"]
    shared = losses(tmp_path / "a")
    apart = make(
        tmp_path / "b",
        fresh(True),
        planes(),
        steps=2,
        supervision=Teacher(teacher, 4),
        loss=DistillLoss(),
        optim=settings,
    )
    apart.objective.encoder = None
    apart.run()
    torch.testing.assert_close(torch.tensor(losses(tmp_path / "b")), torch.tensor(shared))
    learns = make(tmp_path / "c", fresh(True), planes(), supervision=Teacher(teacher, 4), loss=DistillLoss())
    assert learns.objective.encoder is None


@pytest.mark.parametrize("criterion", ["distill", "multitask"])
def test_the_published_criteria_train_too(tmp_path, planes, fresh, criterion):
    if criterion == "distill":
        options = {"supervision": Teacher(fresh(False), 4), "loss": DistillLossReference()}
    else:
        options = {"supervision": GroundTruth(normalize=False), "loss": PointmapLossReference()}
    make(tmp_path, fresh(), planes(num_sequences=2), steps=2, **options).run()
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


def test_accumulation_is_the_mean_of_its_micro_batches(tmp_path, planes, fresh):
    """Clipped once, after the last one (the published toy: 0.2929, 0.2929, 1)."""
    first = make(tmp_path / "a", fresh(), planes(), steps=2, gradient_accumulation_steps=2)
    first.run()
    output = losses(tmp_path / "a")
    second = make(tmp_path / "b", fresh(), planes(), steps=1, gradient_accumulation_steps=2, optim={"lr": 0.0})
    model, loss = second.network, second.objective.criterion
    expected = []
    for index in (0, 1):
        batch = planes()[index]
        target = GroundTruth()(batch, loss.heads, None, None)
        expected.append(loss(model(batch.images, heads=loss.heads), target).total.item())
    assert output[0] == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize("good_again", [True, False])
def test_steps_that_are_not_finite_are_skipped_counted_and_at_last_fatal(tmp_path, planes, fresh, good_again):
    class Broken:
        def __getitem__(self, index):
            batch = planes()[index]
            if index in ((1, 2) if good_again else range(1, 100)):
                batch.images[:] = float("nan")
            return batch

    trainer = make(tmp_path, fresh(), Broken(), steps=5, max_nonfinite_steps=3, save_every=1)
    if good_again:
        trainer.run()
        assert trainer.update.num_nonfinite == 2
        assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
    else:
        with pytest.raises(RuntimeError, match=r"3 steps in a row had no finite loss .*last\.pt"):
            trainer.run()
        assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


def test_data_are_described_and_their_replaced_samples_logged(tmp_path, planes, fresh, capsys):
    class Told:
        def __getitem__(self, index):
            return planes()[index]

        def describe(self):
            return "planes, all of them"

        def num_replaced(self):
            return {"tilted": 3, "flat": 0}

    make(tmp_path, fresh(), Told(), steps=1).run()
    assert "planes, all of them" in capsys.readouterr().out
    last = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["train/replaced/tilted"] == 3 and "train/replaced/flat" not in last


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_trains(tmp_path, planes, fresh, precision):
    make(tmp_path, fresh(), planes(), steps=4, precision=precision).run()
    output = losses(tmp_path)
    assert all(value == value for value in output)


def test_validation_keeps_the_best_and_writes_images(tmp_path, planes, fresh):
    trainer = make(
        tmp_path, fresh(), planes(), steps=4, validation=planes(), validate_every=2, num_validation_batches=2
    )
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    validated = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert len(validated) == 2
    assert trainer.best == min(validated)
    assert load_model(tmp_path / "best").config == trainer.network.config
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_checkpoint_is_a_network_for_load_model(tmp_path, planes, fresh):
    trainer = make(tmp_path, fresh(), planes(), steps=2)
    trainer.run()
    for path in (tmp_path / "last.pt", tmp_path / "final"):
        loaded = load_model(path)
        for name, tensor in trainer.network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_training_is_not_overwritten(tmp_path, planes, fresh):
    make(tmp_path, fresh(), planes(), steps=2).run()
    with pytest.raises(FileExistsError, match="already contains a training"):
        make(tmp_path, fresh(), planes(), resume=False)


def test_a_damaged_state_is_named(tmp_path, planes, fresh):
    make(tmp_path, fresh(), planes(), steps=2).run()
    path = tmp_path / "last.pt"
    whole = path.read_bytes()
    for damaged in (whole[:-500], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.pt is damaged: expected"):
            make(tmp_path, fresh(), planes())
    with pytest.raises(ValueError, match=r"last\.pt is damaged: expected"):
        load_model(path)


def test_without_the_last_state_the_newest_other_one_is_taken(tmp_path, planes, fresh, capsys):
    """The last one is damaged: it says which to remove, and continues from the one before."""
    make(tmp_path, fresh(), planes(), steps=4, save_every=2).run()
    (tmp_path / "step-00000001.pt").touch()  # what a kill between two savings leaves
    (tmp_path / ".step-00000003.part.pt").touch()
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-1])
    words = r"Without last\.pt, step-00000004\.pt, the training continues from step-00000002\.pt"
    with pytest.raises(ValueError, match=words):
        make(tmp_path, fresh(), planes())
    path.unlink()
    (tmp_path / "step-00000004.pt").unlink()
    assert make(tmp_path, fresh(), planes(), steps=4).step == 2
    assert "Resumed after step 2, from step-00000002.pt" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.part.pt"))


def test_equal_trainings_write_equal_weights(tmp_path, planes, fresh):
    for name in ("a", "b"):
        torch.manual_seed(0)
        make(tmp_path / name, fresh(), planes(), steps=1).run()
    files = [tmp_path / name / "final" / "model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    (tmp_path / "usual").touch()
    assert {path.stat().st_mode for path in files} == {(tmp_path / "usual").stat().st_mode}


@pytest.mark.parametrize(
    "name",
    [
        "save_every",
        "validate_every",
        "log_every",
        "max_checkpoints",
        "gradient_accumulation_steps",
        "max_nonfinite_steps",
    ],
)
def test_numbers_are_checked_by_the_constructor(tmp_path, planes, fresh, name):
    model, data = fresh(), planes()
    for value in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"trainer.{name}: expected a whole number of at least 1, got"):
            make(tmp_path, model, data, **{name: value})


@pytest.mark.parametrize("name, value", [("seed", -1), ("num_workers", -1), ("ema_decay", 2), ("ema_decay", "no")])
def test_other_numbers_are_checked_by_the_constructor(tmp_path, planes, fresh, name, value):
    with pytest.raises(ValueError, match=f"trainer.{name}: expected a"):
        make(tmp_path, fresh(), planes(), **{name: value})


@pytest.mark.parametrize("name", ["lr", "min_lr", "clip_norm", "weight_decay"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_rates_are_checked_by_the_constructor(name, value):
    with pytest.raises(ValueError, match=f"optim.{name}: expected a finite number of the right sign"):
        OptimConfig(**{"lr": 1e-3, "steps": 1, name: value})


def test_a_loss_that_needs_a_head_the_network_lacks(tmp_path, planes, fresh):
    with pytest.raises(ValueError, match="requires the heads points"):
        make(tmp_path, fresh(heads=("camera", "depth")), planes())


def test_sharding_that_cannot_be_had_is_an_error(tmp_path, planes, fresh, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(acceleration, "Accelerator", lambda **options: Accelerator(cpu=True))
    with pytest.raises((ValueError, RuntimeError), match=r"does not shard on cpu|no available devices"):
        make(tmp_path, fresh(), planes())


def test_sharding_that_clips_each_share_by_its_own_norm_is_rejected():
    def sharded(version):
        plugin = SimpleNamespace(fsdp_version=version)
        return SimpleNamespace(distributed_type=DistributedType.FSDP, state=SimpleNamespace(fsdp_plugin=plugin))

    acceleration.check_sharding(sharded(2))
    with pytest.raises(ValueError, match=r"FSDP version 1 .* Use version 2"):
        acceleration.check_sharding(sharded(1))


def test_sharding_takes_blocks_as_units(fresh):
    names = fresh()._no_split_modules
    assert [get_module_class_from_name(fresh(), name) for name in names] == [Block]


def test_steps_that_the_loss_scaler_skips_are_not_bad(tmp_path, planes, fresh):
    """Gradients beyond float16 lead the scaler to its scale; a scale below 1 or a loss that is not finite is bad."""
    update = make(tmp_path, fresh(), planes()).update
    inf, one = torch.tensor(torch.inf), torch.tensor(1.0)
    update.accelerator.scaler = SimpleNamespace(get_scale=lambda: 1.0)
    update.optimizer.step = lambda: None
    for _ in range(20):
        update.step(inf, one)
    assert update.num_nonfinite == update.nonfinite_steps == 0
    update.step(inf, inf)
    assert update.num_nonfinite == 1
    update.accelerator.scaler = SimpleNamespace(get_scale=lambda: 0.5)
    update.step(inf, one)
    assert update.num_nonfinite == update.nonfinite_steps == 2


def test_processes_share_gradients_without_a_copy_of_them(tmp_path, planes, fresh):
    trainer = make(tmp_path, fresh(), planes())
    assert trainer.accelerator.ddp_handler.gradient_as_bucket_view


def test_batches_go_up_without_what_no_loss_reads(tmp_path, planes, fresh, monkeypatch):
    trainer = make(tmp_path, fresh(), planes())
    batch = replace(planes()[0], instance_ids=torch.zeros(1, 3, 28, 42, dtype=torch.long))
    sent = []
    monkeypatch.setattr(Batch, "to", lambda self, *where, **how: sent.append((self, how)) or self)
    trainer.objective(trainer.network, batch, torch.Generator())
    ((moved, how),) = sent
    assert moved.instance_ids is None and how == {"non_blocking": True}


def test_every_tensor_of_a_batch_is_pinned(planes, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    batch = planes()[0].pin_memory()
    assert len(pinned) == 9 and batch.num_frames == 3


def train_in_float64(rank: int, folder: Path, accumulate: int) -> None:
    torch.manual_seed(0)
    make(folder, StreamVGGT(**TINY).double(), Planes(), steps=4, gradient_accumulation_steps=accumulate).run()


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path):
    run_together(train_in_float64, tmp_path / "two", 1)
    train_in_float64(0, tmp_path / "one", 2)
    two, one = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("two", "one"))
    for name, tensor in one.items():
        # In float64: Adam's first steps divide gradients by their own size, so rounding of tiny ones would show.
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(two[name], tensor, atol=1e-7, rtol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_training_with_a_policy_trains_what_its_stream_computes(tmp_path, planes, fresh):
    """The validation loss of a training with a memory policy is the loss of the same network, streamed with it."""
    model, data, policy = fresh(), planes(num_frames=5), SlidingWindow(1, 1)
    trainer = make(tmp_path / "window", model, data, policy=policy)
    batch = data[0]
    _, prediction, _ = trainer.objective(model, batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        streamed = model.step(batch.images, heads=trainer.heads, memory=model.new_memory(policy))
    torch.testing.assert_close(prediction.depth, streamed.depth, rtol=0, atol=1e-5)
    torch.testing.assert_close(prediction.pose_enc, streamed.pose_enc, rtol=0, atol=1e-5)
    _, seen_all, _ = make(tmp_path / "all", model, data).objective(model, batch, torch.Generator().manual_seed(0))
    assert (prediction.pose_enc - seen_all.pose_enc).abs().max() > 1e-3, "the policy hid nothing: the test says nothing"


def test_training_with_room_for_all_is_training_without_a_policy(tmp_path, planes, fresh):
    make(tmp_path / "without", fresh(), planes(), steps=2).run()
    make(tmp_path / "with", fresh(), planes(), steps=2, policy=KeepAll()).run()
    assert losses(tmp_path / "without") == losses(tmp_path / "with")


@pytest.mark.parametrize(("causal", "policy"), [(False, SlidingWindow(1, 2)), (True, TokenDiversity(4))])
def test_a_policy_that_cannot_be_trained_with_is_rejected(tmp_path, planes, fresh, causal, policy):
    with pytest.raises(ValueError, match="training requires an index-based policy"):
        make(tmp_path, fresh(causal), planes(), policy=policy)

"""`config/loss/*.yaml` build what the constructors build by default, and say all there is to say."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from streamvggt.losses.distill import DistillLoss
from streamvggt.losses.distill_reference import DistillLossReference
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.losses.pointmap_reference import PointmapLossReference
from streamvggt.losses.target import Target

FOLDER = Path(__file__).parents[2] / "config" / "loss"
DEFAULTS = {
    "distill": DistillLoss,
    "distill_reference": DistillLossReference,
    "multitask": MultiTaskLoss,
    "pointmap_reference": PointmapLossReference,
}


def plain(value):
    """Knobs as plain data, to compare."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "__dict__") and type(value).__module__.startswith("streamvggt"):
        return {name: plain(knob) for name, knob in vars(value).items()}
    if isinstance(value, dict):
        return {name: plain(knob) for name, knob in value.items()}
    return value if isinstance(value, (str, float, int, type(None))) else list(value)


def test_every_file_is_known():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == DEFAULTS.keys()


@pytest.mark.parametrize("name", DEFAULTS)
def test_file_builds_the_default(name, student, teacher, valid):
    hydra_utils = pytest.importorskip("hydra.utils", reason="hydra-core is for the entry scripts only")
    OmegaConf = pytest.importorskip("omegaconf").OmegaConf
    config = OmegaConf.load(FOLDER / f"{name}.yaml")
    criterion = hydra_utils.instantiate(config)
    default = DEFAULTS[name]()
    assert type(criterion) is type(default)
    assert plain(criterion) == plain(default)
    if hasattr(default, "by_head"):
        for head in set(config) - {"_target_"}:
            term = hydra_utils.instantiate(config[head])
            assert set(config[head]) - {"_target_"} == {field.name for field in fields(term)}
    target = Target(teacher, valid=valid)
    assert criterion(student, target).total == default(student, target).total

"""The table of published checkpoints: names, shapes and sizes at full size."""

from pathlib import Path

import pytest
import torch

from streamvggt import VGGT, StreamVGGT
from streamvggt.model.checkpoints import BY_ID, CHECKPOINTS, find_known
from streamvggt.model.infer_config import infer_config

GOLDENS = Path(__file__).parent.parent / "goldens"
RELEASED = {
    name: tuple(map(int, shape.split("x")))
    for name, shape in (line.split("\t") for line in (GOLDENS / "state_dict.tsv").read_text().splitlines())
}


def published_shapes(known):
    """Of the released 1,797 tensors those of the file's heads, and the scale token of LingBot-Map."""
    absent = {"depth": "depth_head.", "points": "point_head.", "track": "track_head.", "camera": "camera_head."}
    skipped = tuple(prefix for head, prefix in absent.items() if head not in known.heads)
    shapes = {name: shape for name, shape in RELEASED.items() if not name.startswith(skipped)}
    if known.repository == "robbyant/lingbot-map" and known.causal:
        shapes["aggregator.scale_token"] = (1, 2, 1, 1024)
    return shapes


@pytest.mark.parametrize("known", [known for known in CHECKPOINTS if known.model == "vggt"], ids=lambda known: known.id)
def test_names_shapes_and_sizes_at_full_size(known):
    shapes = published_shapes(known)
    config = {"causal": known.causal, "heads": known.heads, **known.options, **infer_config(shapes)}
    with torch.device("meta"):
        model = (StreamVGGT if known.causal else VGGT)(**{k: v for k, v in config.items() if k != "causal"})
    state = model.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
    assert sum(tensor.numel() for tensor in state.values()) == known.parameters
    assert known.num_bytes == 4 * known.parameters


@pytest.mark.parametrize(
    ("name", "num_tensors", "gigabytes"),
    [
        ("facebook/VGGT_tracker_fixed", 1797, 5.026),
        ("yslan/STream3R", 1403, 4.762),
        ("robbyant/lingbot-map", 1342, 4.632),
        ("robbyant/lingbot-map:base", 1342, 4.632),
        ("robbyant/lingbot-map:stage1", 1403, 4.762),
    ],
)
def test_counts_as_published(name, num_tensors, gigabytes):
    assert len(published_shapes(BY_ID[name])) == num_tensors
    assert BY_ID[name].num_bytes / 1e9 == pytest.approx(gigabytes, abs=5e-4)


def test_a_scale_token_selects_all_options_of_lingbot_map():
    config = infer_config(published_shapes(BY_ID["robbyant/lingbot-map"]))
    assert (config["scale_frames"], config["global_rotation"], config["pose"]) == (8, "time", "world_from_camera")
    assert "scale_frames" not in infer_config(RELEASED)


def test_rows_are_found_by_id_and_by_distinct_files():
    assert find_known("yslan/STream3R").heads == ("camera", "depth", "points")
    assert find_known("some/where/lingbot-map-stage1.pt").id == "robbyant/lingbot-map:stage1"
    assert find_known("some/where/model.safetensors") is find_known("mine.pt") is None
    assert len(BY_ID) == len(CHECKPOINTS)


def test_the_documented_table_is_this_one():
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    for known in CHECKPOINTS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{known.id}` "))
        for output in (f"`{known.file}`", f"{known.parameters:,}", f"{known.num_bytes / 1e9:.2f}", known.license):
            assert output in row, (known.id, output)
        assert ", ".join(known.heads) in row

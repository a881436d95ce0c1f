"""Released checkpoints must load: every tensor's name and shape is a promise."""

from pathlib import Path

import torch

from streamvggt import VGGT, StreamVGGT

GOLDENS = Path(__file__).parent.parent / "goldens"


def test_names_and_shapes_are_those_of_the_released_checkpoints():
    lines = (GOLDENS / "state_dict.tsv").read_text(encoding="utf-8").splitlines()
    released = {name: tuple(map(int, shape.split("x"))) for name, shape in (line.split("\t") for line in lines)}
    assert len(released) == 1797
    for network in (VGGT, StreamVGGT):
        with torch.device("meta"):
            model = network()
        ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        assert ours == released
        assert sum(p.numel() for p in model.parameters()) == 1_256_537_516

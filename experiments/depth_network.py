"""Network with a depth head on the command line."""

from __future__ import annotations

import argparse

from streamvggt import VGGT, load_model
from streamvggt.flags import word


def add_depth_network(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `load_depth_network`."""
    parser.add_argument("weights", type=word, help="network, as in load_model: a name, file or folder")
    parser.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the network as a causal student, or as a bidirectional teacher (default: --causal)",
    )


def load_depth_network(arguments: argparse.Namespace) -> VGGT:
    """Load the network.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file is not a network of this repository, or the network has no depth head.
    """
    model = load_model(arguments.weights, causal=arguments.causal)
    if "depth" not in model.heads:
        raise ValueError(f"{arguments.weights}: expected a network with a depth head, got {', '.join(model.heads)}")
    return model

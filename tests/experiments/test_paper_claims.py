"""The table of the paper's claims is made by one command."""

import json

from small_models import TINY

from experiments import paper_claims
from streamvggt import VGGT


def test_the_command_writes_its_tables(tmp_path, monkeypatch):
    VGGT(**{**TINY, "heads": ("camera", "depth", "points")}).save_pretrained(tmp_path / "weights")
    weights = str(tmp_path / "weights")
    arguments = ["--teacher", weights, "--student", weights, "--ground-truth-student", weights, "--frames", "2", "3"]
    arguments += ["--sequences", "1", "1", "--image-size", "28", "28", "--out", str(tmp_path / "claims.md")]
    monkeypatch.setattr("sys.argv", ["paper_claims", *arguments])
    paper_claims.main()
    text, numbers = (
        (tmp_path / "claims.md").read_text(encoding="utf-8"),
        json.loads((tmp_path / "claims.json").read_text(encoding="utf-8")),
    )
    assert text.count("| teacher (bidirectional)") == 2
    three = {name.partition(" (")[0]: row for name, row in numbers["3"].items()}
    # One set of weights: streamed exactly, causal and "student" are one network.
    exact, causal = (
        three['… streamed, `camera_cache="per_iteration"`'],
        three["weights of the teacher, run causally without training"],
    )
    assert abs(exact["AbsRel"] - causal["AbsRel"]) < 1e-4
    assert len(three) == 7

"""The benchmark of components takes a real step apart: every part has a time, and the parts add up to the frame."""

import pytest
from benchmark_runs import load, rows, run


def test_every_part_of_a_frame_has_a_time(tmp_path, monkeypatch):
    components = load("components", monkeypatch)
    weights, image_size, _, policy, _, _ = components.SIZES["tiny"]
    monkeypatch.setitem(components.SIZES, "tiny", (weights, image_size, ("float32",), policy, 2, 2))
    monkeypatch.setattr(components, "flops_per_second", lambda dtype, device: 1e11)
    monkeypatch.setattr(components, "bytes_per_second", lambda device: 1e10)
    for owner, method in components.MEMORY_METHODS:
        monkeypatch.setattr(owner, method, getattr(owner, method))  # restored after the test
    found = rows(run("components", monkeypatch, "--sizes", "tiny", "--out", tmp_path / "table.md"))
    parts = [found[title] for title in components.PARTS.values()]
    assert all(float(cells[0]) > 0 for cells in parts)
    whole = found["**whole frame**"]
    assert float(whole[2]) == pytest.approx(sum(float(cells[2]) for cells in parts), rel=0.01)
    idle = {components.PARTS["memory"], components.PARTS["rest"]}
    assert {title for title in components.PARTS.values() if found[title][2] == "0"} == idle

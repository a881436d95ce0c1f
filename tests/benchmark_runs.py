"""Run a script of benchmarks/ in this process, at a small size."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(script: str, monkeypatch) -> ModuleType:
    """Import a script of benchmarks/."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(script)


def run(script: str, monkeypatch, *arguments) -> str:
    """Run a script without waiting for steady times, and return its table."""
    module = load(script, monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    for name in ("WARM", "TIMED", "NUM_CLOUD"):
        monkeypatch.setattr(module, name, 2, raising=False)
    module.main()
    out = Path(arguments[arguments.index("--out") + 1])
    return out.with_suffix(".md").read_text(encoding="utf-8")


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of each row of the tables of a report, by the first cell."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in cells] for first, *cells in lines}

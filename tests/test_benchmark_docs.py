"""benchmarks/: the list names every script and report, reports say how they were made, and their commands are valid."""

import re
import shlex

import pytest
from launching import ROOT
from test_docs import check_python

FOLDER = ROOT / "benchmarks"
LIST = (FOLDER / "README.md").read_text(encoding="utf-8")
REPORTS = [path for path in sorted(FOLDER.glob("*.md")) if path.name != "README.md"]
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if "ArgumentParser" in path.read_text(encoding="utf-8")]
CHILDREN = {"endurance_stream.py"}
"""Programs that another benchmark starts."""


def commands(text: str) -> list[str]:
    """Commands in code spans and code blocks that run a script of benchmarks/, without variables and comments.

    Not the processes that a benchmark starts (`--worker`).
    """
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*", "", text, flags=re.MULTILINE))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith(("    ", "taskset", "python"))]
    found = (re.search(r"\bpython (benchmarks/\w+\.py\b.*)", " ".join(part.split())) for part in [*spans, *lines])
    return [re.sub(r" +#.*", "", match[1]) for match in found if match and "--worker" not in match[1]]


def test_the_list_names_every_script_and_every_report():
    for script in SCRIPTS:
        assert f"`python benchmarks/{script.name} " in LIST or script.name in CHILDREN, script.name
    for report in REPORTS:
        assert f"({report.name}" in LIST, report.name
    for name, anchor in re.findall(r"\]\(([\w.-]+)(?:#([\w-]+))?\)", LIST):
        headings = re.findall(r"^#+ (.*)", (FOLDER / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_a_report_names_its_command_its_machine_and_its_date(report):
    text = report.read_text(encoding="utf-8")
    assert commands(text), "no command"
    assert re.search(r"AMD EPYC|Intel", text) and re.search(r"PyTorch\s2", text), "no machine"
    assert re.search(r"\b2026-\d\d-\d\d\b", text), "no date"


def all_commands() -> list[str]:
    return sorted({command for path in FOLDER.glob("*.md") for command in commands(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", all_commands())
def test_every_command_is_accepted(command, monkeypatch, tmp_path):
    """By the parser of the script. Placeholders stand for numbers and folders."""
    monkeypatch.chdir(tmp_path)
    words = [{"N": "0"}.get(word, word) for word in shlex.split(command)]
    monkeypatch.syspath_prepend(FOLDER)
    check_python(words, monkeypatch)

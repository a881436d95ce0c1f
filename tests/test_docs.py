"""The documentation: the site builds, and every command and code block of README, docs/ and ckpt/ is accepted."""

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from itertools import takewhile
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from launching import ROOT

import streamvggt

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "ckpt/README.md"]
EXTERNAL = {"cat", "cd", "eval", "git", "ns-train", "rerun", "split", "tar", "unzip"}
OTHER_REPOSITORIES = ("examples/simple_trainer.py",)  # of gsplat
VALUES = {"NAME": "co3d", "RAW": "raw", "ROOT": "root", "PATH": "path"}
"""Placeholders of the docs and words that the parsers accept in their place."""


def commands() -> list[str]:
    """All commands of ```bash blocks, without comments and environment variables, joined over line ends."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            block = re.sub(r" *<<'END'.*?\nEND\n", "\n", block, flags=re.DOTALL)
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r" && | \| ", re.sub(r"(^| ) *#.*", "", line)):
                    command = re.sub(r"^(\w+=(\"[^\"]*\"|\S*)( +|$))*", "", part.strip())
                    found[" ".join(command.split())] = None
    return [command for command in found if command]


class Parsed(Exception):
    """Raised in place of the rest of a program."""


def parse(run, *arguments) -> None:
    """Run a program until it has parsed its arguments."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, args=None, namespace=None):
        original(parser, args, namespace)
        raise Parsed

    errors = io.StringIO()
    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args), contextlib.redirect_stderr(errors):
        try:
            run(*arguments)
        except Parsed:
            return
        except SystemExit:
            pass
    raise AssertionError(errors.getvalue() or "the program does not parse arguments")


def check_python(words: list[str], monkeypatch) -> None:
    if words[0].startswith(OTHER_REPOSITORIES) or words[0] == "-":
        return
    if words[0] == "-m":
        module, *arguments = words[1:]
        main = importlib.import_module(
            module if find_spec(module).submodule_search_locations is None else f"{module}.__main__"
        )
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        parse(lambda: main.main())
        return
    script = next(folder / words[0] for folder in (ROOT, ROOT / "src") if (folder / words[0]).exists())
    if script.name != "ros2_node.py":
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.syspath_prepend(script.parent)
        parse(lambda: runpy.run_path(str(script), run_name="__main__"))


def check_accelerate(words: list[str]) -> None:
    if "-m" in words:
        package, *rest = words[words.index("-m") + 1 :]
        assert package == "streamvggt"
        parse(importlib.import_module("streamvggt.cli").main, rest)
        return
    (script,) = (word for word in words if word.endswith(".py"))
    assert (ROOT / "src" / script).exists()
    flag, name, *overrides = words[words.index(script) + 1 :]
    assert flag == "--config-name"
    with initialize_config_dir(str(ROOT / "config"), version_base=None):
        compose(name, overrides)


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_docs_is_accepted(command, monkeypatch):
    """Flags by the parser of the program, overrides by hydra, scripts and extras by their files."""
    if "…" in command:
        pytest.skip("abbreviated in a list of commands; written out elsewhere on the page")
    words = [VALUES.get(word, word) for word in shlex.split(command.split(" > ")[0])]
    program, *rest = words
    if program == "streamvggt":
        monkeypatch.setattr(sys, "argv", words)
        parse(importlib.import_module("streamvggt.cli").main, rest)
    elif program == "python":
        check_python(rest, monkeypatch)
    elif program == "accelerate":
        check_accelerate(rest)
    elif program == "bash":
        assert any((folder / rest[0]).exists() for folder in (ROOT, ROOT / "src"))
    elif program == "pip":
        files = re.findall(r"-r (\S+)", command)
        assert all((ROOT / file).exists() or file.startswith("examples/") for file in files)
        extras = re.findall(r"\[(\w+)\]", command)
        assert all(
            re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE) for extra in extras
        )
    else:
        assert program in EXTERNAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_exists(page):
    """Blocks may contain placeholders, so that only their imports are executed."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("streamvggt"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_api_page_documents_every_public_name():
    """By the module that defines the name, and importable from `streamvggt`."""
    paths = re.findall(r"^::: (\S+)", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(path.rpartition(".")[2] for path in paths) == sorted(streamvggt.__all__)
    for module, _, name in (path.rpartition(".") for path in paths):
        assert getattr(importlib.import_module(module), name) is getattr(streamvggt, name)


def documented(doc: str, section: str) -> set[str]:
    """The names in a section of a docstring: "a, b: what they are" lists a and b."""
    lines = doc.partition(f"\n{section}:\n")[2].splitlines()
    entries = (re.match(r"    (\w[\w, ]*):", line) for line in takewhile(lambda line: line[:1] in ("", " "), lines))
    return {name for entry in entries if entry for name in entry[1].split(", ")}


def test_docstrings_describe_arguments_and_attributes_that_exist():
    for path in ROOT.glob("src/streamvggt/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not (doc := ast.get_docstring(node)):
                continue
            inside = list(ast.walk(node))
            names = {part.arg for part in inside if isinstance(part, ast.arg)}
            if isinstance(node, ast.ClassDef):
                names |= {part.id for part in inside if isinstance(part, ast.Name)}
                names |= {part.attr for part in inside if isinstance(part, ast.Attribute)}
                names |= {part.name for part in inside if isinstance(part, ast.FunctionDef)}
            unknown = (documented(doc, "Args") | documented(doc, "Attributes")) - names
            assert not unknown, f"{path}, {node.name}: {unknown}"


def test_files_and_tests_named_in_the_docs_exist():
    """Paths of the guides for contributors, and tests that a page names as evidence."""
    tests = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    code = "\n".join(tests.values())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(test_\w+)\b(?!\.py|/)", text):
            assert f"def {name}(" in code or f"{name}.py" in tests or name == "test_NAME", f"{page.name}: {name}"
        if page.name in ("CONTRIBUTING.md", "architecture.md"):
            for path in re.findall(r"`((?:[\w.]+/)*\w+\.(?:py|yaml|sh|json))`", text):
                folders = (
                    ROOT,
                    ROOT / "src",
                    ROOT / "src/streamvggt",
                    ROOT / "tests/stream/policies",
                    ROOT / "tests/datasets",
                )
                found = any((folder / path).exists() for folder in folders)
                assert found or "NAME" in path or path == "config.json", f"{page.name}: {path}"


def test_lines_of_prose_have_at_most_120_characters():
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{page.name}:{number}"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install -r requirements_docs.txt")
def test_the_site_builds_without_a_warning(tmp_path):
    """Broken links, missing anchors and docstrings that do not match their signature are warnings of mkdocs."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site/docs/command-line/index.html").read_text(encoding="utf-8")
    assert "--loop-closure" in page and "<!-- help" not in page
    assert "cam_from_world" in (tmp_path / "site/docs/api/index.html").read_text(encoding="utf-8")

"""What an import loads, and what the package does without its extras."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from launching import ROOT

import streamvggt
from streamvggt.cli import COMMANDS
from streamvggt.cli.arguments import data
from streamvggt.cli.evaluate import PROTOCOLS
from streamvggt.extras import EXTRAS, MissingExtra, explain_missing

HEAVY = {"torch", "numpy", "cv2", "av", "PIL"}
OPTIONAL = {package for packages in EXTRAS.values() for package in packages}
DISTRIBUTIONS = {
    "rerun": "rerun-sdk",
    "hydra": "hydra-core",
    "omegaconf": "hydra-core",
    "google": "protobuf",
    "flash_attn": "flash-attn",
}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules after a statement in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_the_import_loads_no_package():
    assert not loaded_by("import streamvggt") & {"tqdm", *HEAVY, *OPTIONAL}


@pytest.mark.parametrize(
    "command",
    [
        "",
        *(name for name, command in COMMANDS.items() if not command.parses_itself),
        *(f"data {name}" for name in data.COMMANDS),
        "evaluate",
        *(f"evaluate {protocol}" for protocol in PROTOCOLS),
    ],
)
def test_the_help_of_a_command_loads_no_package(command):
    words = [*command.split(), "--help"]
    found = loaded_by(f"from streamvggt.cli import main\ntry: main({words})\nexcept SystemExit: pass")
    assert not found & {*HEAVY, *OPTIONAL}


def test_the_help_of_a_training_loads_hydra_but_not_pytorch():
    pytest.importorskip("hydra")
    found = loaded_by("from streamvggt.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass")
    assert "hydra" in found and not found & HEAVY


def test_all_public_names_and_the_command_reconstruct_need_no_extra_and_no_compiler():
    """PyTorch's compiler, which loads SymPy, takes as long to import as PyTorch."""
    imports = "from streamvggt import *\nimport torch, streamvggt.cli.reconstruct, streamvggt.export"
    found = loaded_by(f"{imports}\nload_model('tiny')(torch.zeros(1, 1, 3, 112, 112))")
    assert not found & {"scipy", "trimesh", "sympy", *OPTIONAL}


def test_every_public_name_is_there_and_typed():
    typed = re.findall(r"(\w+) as \1\b", (ROOT / "src/streamvggt/__init__.py").read_text(encoding="utf-8"))
    assert sorted(typed) == sorted([*streamvggt.__all__, "__version__"])
    for name in streamvggt.__all__:
        assert getattr(streamvggt, name).__name__ == name
    assert set(streamvggt.__all__) <= set(dir(streamvggt))
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = streamvggt.load_modle


def test_the_table_of_extras_is_that_of_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert {DISTRIBUTIONS.get(package, package) for package in packages} == set(declared[extra]), extra


@pytest.mark.parametrize(
    "extra, package, fix", [("demo", "gradio", "demo"), ("eval", "pycolmap", "eval"), ("prepare", "hydra", "train")]
)
def test_a_missing_package_names_the_extra_of_the_command_else_any_that_has_it(monkeypatch, extra, package, fix):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=re.escape(f"{package}: ")) as found, explain_missing(extra):
        __import__(package)
    assert f'pip install "streamvggt[{fix}]"' in str(found.value)


def test_a_missing_package_of_no_extra_stays_what_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "colorsys", None)
    with pytest.raises(ModuleNotFoundError) as found, explain_missing("demo"):
        __import__("colorsys")
    assert not isinstance(found.value, MissingExtra)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM handlers")
def test_an_optional_package_does_not_take_the_termination_signal():
    """pycolmap does: its handler prints a stack trace, and no temporary file is deleted. Also imported in a thread."""
    pytest.importorskip("pycolmap")
    program = """
import os, signal, sys, threading
from streamvggt.extras import require
signal.signal(signal.SIGTERM, lambda *_: sys.exit("cleaned up"))
thread = threading.Thread(target=require, args=("pycolmap", "export"))
thread.start()
thread.join()
assert "pycolmap" in sys.modules
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "cleaned up\n")


def test_pycolmap_is_imported_in_one_way():
    """`require` keeps the handler of SIGTERM."""
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^(?!if TYPE_CHECKING).*\n(import|from) pycolmap", text, re.MULTILINE), path

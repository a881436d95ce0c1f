"""Who may import whom: the table of docs/architecture.md, read from the code."""

import ast
import importlib.util
import sys
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"

# Each floor may import what is listed, and itself. Modules at the package's top count as floors of their own.
FOR_ALL = {
    "bounds",
    "bundled",
    "choices",
    "extras",
    "file_kinds",
    "files",
    "flags",
    "folder_lock",
    "names",
    "provenance",
    "transfer",
    "version",
    "words",
}
MAY_IMPORT = {
    "bounds": set(),
    "bundled": set(),
    "choices": set(),
    "extras": set(),
    "file_kinds": set(),
    "files": set(),
    "flags": set(),
    "folder_lock": {"provenance"},
    "names": set(),
    "transfer": set(),
    "version": set(),
    "words": set(),
    "image_files": {"file_kinds"},
    "natural_order": set(),
    "provenance": {"words"},
    "geometry": set(),
    "layers": {"choices"},
    "frame": set(),
    "prediction": {"geometry", "transfer"},
    "data": {"geometry", "image_files", "natural_order", *FOR_ALL},
    "model": {"layers", "prediction", *FOR_ALL},
    "losses": {"prediction", "geometry"},
    "refinement": {"geometry", *FOR_ALL},
    "export": {"prediction", "frame", "geometry", "refinement", *FOR_ALL},
    "training": {"model", "data", "losses", "prediction", "geometry", *FOR_ALL},
    "stream": {"model", "layers", "frame", "prediction", "geometry", "image_files", "natural_order", *FOR_ALL},
    "app": {"stream", "export", "prediction", "frame", "image_files", "natural_order", *FOR_ALL},
    "datasets": {"data", "geometry", "image_files", "natural_order", *FOR_ALL},
    "evaluation": {
        "refinement",
        "stream",
        "model",
        "data",
        "datasets",
        "prediction",
        "geometry",
        "image_files",
        *FOR_ALL,
    },
    "cli": {
        "stream",
        "export",
        "evaluation",
        "training",
        "app",
        "model",
        "data",
        "datasets",
        "natural_order",
        *FOR_ALL,
    },
    "__main__": {"cli"},
    "__init__": {"model", "stream", "prediction", "frame", "version"},
}
ONLY_TORCH_AND_NUMPY = {*FOR_ALL, "geometry", "layers", "frame", "prediction"}
KNOW_CONFIG = {Path("cli/data/preview.py"), Path("cli/training.py")}
"""The only modules of the package that import the library of the configurations."""
USE_SCENES = {Path("cli/data/make_fixtures.py"), Path("evaluation/synthetic.py")}
"""The only modules of the package that import the procedural world."""
SCENES_MAY_IMPORT = {"data", "geometry", *FOR_ALL}
STANDARD = set(sys.stdlib_module_names)


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the whole name"
            # `from streamvggt import x` may name a floor as well as a class.
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "streamvggt"
                else {node.module}
            )
    return found


def floor(file: Path) -> str:
    return file.relative_to(SRC / "streamvggt").parts[0].removesuffix(".py")


def test_imports_go_downwards_only():
    for file in sorted((SRC / "streamvggt").rglob("*.py")):
        here, place = floor(file), file.relative_to(SRC / "streamvggt")
        assert here in MAY_IMPORT, f"{here} is on no floor: give it one here and in docs/architecture.md"
        for name in imports(file):
            top, *rest = name.split(".")
            if top == "streamvggt":
                assert rest and rest[0] in MAY_IMPORT[here] | {here}, f"{file} imports {name}"
            elif here in ONLY_TORCH_AND_NUMPY:
                assert top in STANDARD | {"torch", "numpy", "flash_attn"}, f"{file} imports {name}"
            assert top not in ("experiments", "benchmarks", "tests"), f"{file} imports {name}: no part of the package"
            assert top != "procedural_scenes" or place in USE_SCENES, f"{file} imports {name}"
            assert top not in ("hydra", "omegaconf") or place in KNOW_CONFIG, f"{file} imports {name}"


def test_the_procedural_world_fills_views_and_uses_no_network():
    for file in sorted((SRC / "procedural_scenes").rglob("*.py")):
        for name in imports(file):
            top, *rest = name.split(".")
            assert top not in ("hydra", "experiments"), f"{file} imports {name}"
            assert top != "streamvggt" or rest[0] in SCENES_MAY_IMPORT, f"{file} imports {name}"


def assert_ordered(imported: dict[str, set[str]]) -> None:
    """Assert that no entry imports itself through others."""
    while imported:
        left = {name: below for name, below in imported.items() if below & (imported.keys() - {name})}
        assert len(left) < len(imported), f"a circle among {sorted(imported)}"
        imported = left


def test_no_floor_imports_in_a_circle():
    """The table itself has an order."""
    assert_ordered(MAY_IMPORT)


def test_no_module_imports_in_a_circle():
    """Nor by an import in a function."""
    modules = {}
    for file in sorted((SRC / "streamvggt").rglob("*.py")):
        name = ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = imports(file)
    assert_ordered(modules)


def test_the_docs_show_the_table():
    path = SRC.parent / "scripts" / "packages_figure.py"
    spec = importlib.util.spec_from_file_location("packages_figure", path)
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    text = (figure.DOCS / "architecture.md").read_text(encoding="utf-8")
    shown = {name: below for name, (_, below) in figure.read_table(text).items() if name != "helpers"}
    wanted = {name: {"helpers" if other in FOR_ALL else other for other in below} for name, below in MAY_IMPORT.items()}
    assert shown == {name: below for name, below in wanted.items() if name not in {*FOR_ALL, "__main__", "__init__"}}
    assert (figure.DOCS / "packages.svg").read_text(encoding="utf-8") == figure.packages_figure(), "draw it again"

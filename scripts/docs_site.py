"""Hooks of mkdocs: pages outside docs/, and the command line reference from `--help`.

The site has the folder layout of the repository. Relative links between docs/, benchmarks/ and README.md therefore
work in the site and on a code host.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
SITE_FILES = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "docs/*.md", "docs/*.svg", "docs/*.css",
    "examples/*.*", "benchmarks/*.md", "benchmarks/*.png", "benchmarks/*.jpg", "assets/*.*",
    "ckpt/README.md", "ckpt/*/README.md", "src/streamvggt/app/static/*.md",
)  # fmt: skip
NOT_IN_NAV = ("CITATION.cff", "benchmarks/", "assets/", "examples/", "src/", "docs/space_header.md")
HELP = re.compile(r"^<!-- help: (.+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by those of `SITE_FILES`, with paths from the root of the repository."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for pattern in SITE_FILES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            file = File(name, str(ROOT), config.site_dir, config.use_directory_urls)
            if name.startswith(NOT_IN_NAV):
                file.inclusion = file.inclusion.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each `<!-- help: PROGRAM … -->` by the output of `PROGRAM … --help`."""
    return HELP.sub(lambda match: f"```text\n{help_text(match[1].split())}```", markdown)


def help_text(words: list[str]) -> str:
    """Return the output of `--help`, 88 characters wide.

    Args:
        words: `streamvggt` and a command, as in `["streamvggt", "data", "check"]`, or the path of a script.
    """
    from streamvggt.cli import main

    program, *commands = words
    output = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="88"),
        mock.patch.object(sys, "argv", [program, *commands, "--help"]),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        if program == "streamvggt":
            main([*commands, "--help"])
        else:
            runpy.run_path(str(ROOT / program), run_name="__main__")
    if not output.getvalue():
        raise ValueError(f"help: expected a program with --help, got {' '.join(words)!r}")
    return output.getvalue()

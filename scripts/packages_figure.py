"""Draw docs/packages.svg from the table of packages in docs/architecture.md.

python scripts/packages_figure.py
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, MARGIN, GAP, HEIGHT = 1120, 12, 12, 66  # pixels; HEIGHT: of a row
COLORS = ("#eceff1", "#e8eaf6", "#e3f2fd", "#e0f2f1", "#e8f5e9", "#fffde7", "#fff3e0", "#fbe9e7", "#efebe9")
ENTRY_POINTS = {
    "src/train.py, finetune.py, eval/, demo_gradio.py": "programs that call cli and evaluation",
    "experiments/, benchmarks/": "studies and measurements",
    "procedural_scenes": "rendered scenes with ground truth; imports data, geometry and helpers",
}


def read_table(text: str) -> dict[str, tuple[str, set[str]]]:
    """Return content and imported packages by package, with all helpers as one package."""
    packages: dict[str, tuple[str, set[str]]] = {}
    listed = re.search(r"^Helpers: (.*?)\.\s", text, re.M | re.S)
    helpers = re.findall(r"`(\w+)`", listed[1])
    for names, content, imported in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", text, re.M):
        for name in re.findall(r"`(\w+)`", names):
            if name not in helpers and not name.startswith("__"):
                below = {"helpers" if other in helpers else other for other in re.findall(r"\w+", imported)}
                packages[name] = content, below
    return {**packages, "helpers": (", ".join(helpers), set())}


def rows_of(packages: Mapping[str, tuple[str, set[str]]]) -> list[list[str]]:
    """Sort the packages into rows, from top to bottom, so that each imports only packages of the rows below."""
    rows = [["helpers"]]
    left = {name: entry for name, entry in packages.items() if name != "helpers"}
    while left:
        placed = {name for row in rows for name in row}
        rows.append([name for name, (_, below) in left.items() if below <= placed])
        left = {name: entry for name, entry in left.items() if name not in rows[-1]}
    return rows[::-1]


def draw(rows: Sequence[Mapping[str, str]]) -> str:
    """Draw rows of boxes with names and contents as SVG."""
    height = len(rows) * (HEIGHT + GAP) + 2 * MARGIN + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        "<title>Packages: each package imports only packages of the rows below</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, row in enumerate(rows):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        y = MARGIN + number * (HEIGHT + GAP)
        for position, (name, content) in enumerate(row.items()):
            x = MARGIN + position * (width + GAP)
            box = f'x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="6" fill="{COLORS[number]}"'
            lines += [f'<rect {box} stroke="#78909c"/>', text_at(x + width / 2, y + 22, name, size=15, bold=True)]
            for index, line in enumerate(textwrap.wrap(content, int(width / 6.4))):
                lines.append(text_at(x + width / 2, y + 42 + 16 * index, line, size=12))
    rule = "A package imports only packages of the rows below."
    lines.append(text_at(WIDTH / 2, height - MARGIN, rule, size=12))
    return "\n".join([*lines, "</svg>", ""])


def text_at(x: float, y: float, text: str, *, size: int, bold: bool = False) -> str:
    """Return centered text."""
    weight = ' font-weight="bold"' if bold else ""
    style = f'font-size="{size}"{weight} text-anchor="middle" fill="#263238"'
    return f'<text x="{x:.0f}" y="{y}" {style}>{escape(text)}</text>'


def packages_figure() -> str:
    """Return docs/packages.svg of the present table."""
    packages = read_table((DOCS / "architecture.md").read_text(encoding="utf-8"))
    return draw([ENTRY_POINTS, *({name: packages[name][0] for name in row} for row in rows_of(packages))])


if __name__ == "__main__":
    (DOCS / "packages.svg").write_text(packages_figure(), encoding="utf-8")

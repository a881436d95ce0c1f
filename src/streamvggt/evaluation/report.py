"""HTML report: results next to published results, with settings and figures.

    python -m streamvggt.evaluation.report ../eval_results

The report is one self-contained HTML file. It uses run.json and scores.json, which every evaluation writes next to its
predictions. Depth figures also need the test set.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm import tqdm

from streamvggt.evaluation.arguments import report_parser
from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.report_figures import ResultFigure, make_figures
from streamvggt.evaluation.results import EvaluationResult, find_results
from streamvggt.files import atomic_write
from streamvggt.provenance import timestamp
from streamvggt.words import counted

FIXTURES = (
    "<h2>Results on fixtures</h2><p class=warning>Their data were written by <b>streamvggt data make-fixtures</b>: "
    "scenes "
    "of the procedural world, and not the test sets whose names they have. They show that the programs work.</p>"
)


def published() -> dict[str, Any]:
    """Return the tables of published results with their sources."""
    return json.loads(packaged_text("published.json"))


def packaged_text(name: str) -> str:
    return files("streamvggt.evaluation").joinpath(name).read_text(encoding="utf-8")


def page(results: Sequence[EvaluationResult], pictures: Mapping[Path, Sequence[ResultFigure]], root: Path) -> str:
    """Return the HTML page."""
    known = published()
    made_up = [result for result in results if result.is_of_fixtures]
    real = [result for result in results if not result.is_of_fixtures]
    shown = [table for table in known["tables"] if any(table_rows(table, real))]
    parts = [
        "<h1>StreamVGGT: evaluations</h1>",
        f"<p>Of {escape(str(root))}, {timestamp()}. Our rows are bold; the others are published numbers, and the "
        f"letters say "
        "where.</p>",
    ]
    if any(result.is_random for result in results):
        parts.append("<p class=warning>Some results are of <b>random weights</b>: their numbers mean nothing.</p>")
    for table in shown:
        parts.append(table_html(table, real))
        is_first = table is next(other for other in shown if other["protocol"] == table["protocol"])
        for result in real if is_first else ():
            if result.protocol == table["protocol"] and pictures.get(result.folder):
                title = table["datasets"].get(result.dataset, result.dataset)
                parts.append(f"<h3>{escape(title)}: {escape(result.network)}</h3><div class=pictures>")
                parts += [picture_html(picture) for picture in pictures[result.folder]]
                parts.append("</div>")
    if made_up:
        parts.append(FIXTURES)
        parts += [fixtures_html(table, made_up) for table in known["tables"] if any(table_rows(table, made_up))]
    parts.append(runs_html(results))
    parts.append("<h2>Sources</h2><dl>")
    parts += [f"<dt>{escape(mark)}</dt><dd>{escape(text)}</dd>" for mark, text in known["sources"].items()]
    parts.append("</dl>")
    head = "<!doctype html>\n<html lang=en><meta charset=utf-8><title>StreamVGGT: evaluations</title>"
    style = f"<style>\n{packaged_text('report.css')}</style>"
    return "\n".join([head, style, *parts, "</html>\n"])


def fixtures_html(table: Mapping[str, Any], results: Sequence[EvaluationResult]) -> str:
    """Return the table of results on fixtures, without published rows."""
    return table_html({**table, "title": f"Fixtures: {table['title']}", "note": "", "rows": []}, results)


def table_rows(
    table: Mapping[str, Any], results: Sequence[EvaluationResult]
) -> dict[str, dict[str, tuple[Mapping, bool]]]:
    """Return the rows of a table: label → test set → scores, and whether they cover the full published set."""
    rows: dict[str, dict[str, tuple[Mapping, bool]]] = {}
    for result in results:
        if result.protocol != table["protocol"] or result.dataset not in table["datasets"]:
            continue
        for name, score in result.scores.items():
            if table["scores"] is not None and name not in table["scores"]:
                continue
            usual = table["scores"][0] if table["scores"] else table["usual"]
            label = result.network if name == usual else f"{result.network}, {name}"
            if result.dataset in rows.get(label, {}):
                label += f" [{result.folder.name}]"  # another run with the same label
            rows.setdefault(label, {})[result.dataset] = (score["numbers"], is_full_set(score))
    return rows


def is_full_set(score: Mapping[str, Any]) -> bool:
    """Whether the scores cover as many sequences and frames as the published ones."""
    sequences, frames = score.get("num_published", (None, None))
    there = score.get("num_sequences"), score.get("num_frames")
    whole = (sequences in (None, there[0])) and (frames in (None, there[1]))
    return whole and not score.get("missing_categories")


def table_html(table: Mapping[str, Any], results: Sequence[EvaluationResult]) -> str:
    rows = table_rows(table, results)
    there = {dataset for cells in rows.values() for dataset in cells}
    datasets = {
        name: title
        for name, title in table["datasets"].items()
        if name in there or any(name in row["numbers"] for row in table["rows"])
    }
    columns = table["columns"]
    head = "".join(f"<th colspan={len(columns)}>{escape(title)}</th>" for title in datasets.values())
    arrows = {"low": "↓", "high": "↑"}
    under = "".join(f"<th>{escape(column['label'])} {arrows[column['best']]}</th>" for column in columns)
    lines = [
        f"<tr><th rowspan=2 class=name>method</th><th rowspan=2></th>{head}</tr>",
        f"<tr>{under * len(datasets)}</tr>",
    ]
    for row in table["rows"]:
        cells = ""
        for name in datasets:
            values = row["numbers"].get(name, [None] * len(columns))
            cells += "".join(cell(value, column) for value, column in zip(values, columns, strict=True))
        lines.append(
            f"<tr><td class=name>{escape(row['method'])}</td><td class=source>{row['source']}</td>{cells}</tr>"
        )
    is_partial = False
    for label, by_dataset in rows.items():
        cells = ""
        for name in datasets:
            numbers, whole = by_dataset.get(name, ({}, True))
            is_partial |= not whole
            for column in columns:
                value = numbers.get(column["key"])
                if value is not None:
                    value *= column.get("times", 1)
                cells += cell(value, column, "" if whole else "†")
        lines.append(f"<tr class=ours><td class=name>{escape(label)}</td><td class=source>here</td>{cells}</tr>")
    note = escape(table["note"]) + (
        " † not the whole published test set, so not comparable with the other rows." if is_partial else ""
    )
    return (
        f"<h2>{escape(table['title'])}</h2><p>{note}</p>\n<div class=wide><table>\n"
        + "\n".join(lines)
        + "\n</table></div>"
    )


def cell(value: float | None, column: Mapping[str, Any], mark: str = "") -> str:
    return "<td></td>" if value is None else f"<td>{value:.{column['digits']}f}{mark}</td>"


def picture_html(picture: ResultFigure) -> str:
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(picture.content).decode()
    caption = escape(picture.caption)
    image = f'<img src="data:image/{kind};base64,{data}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def runs_html(results: Sequence[EvaluationResult]) -> str:
    """Return settings and scores per sequence of each result."""
    lines = ["<h2>How these were made</h2>"]
    for result in results:
        title = f"{result.protocol} · {result.dataset} · {result.network}"
        facts: dict[str, Any] = {"folder": result.folder}
        if result.run:
            facts |= {**result.settings, **result.about, "predicted": result.run.get("started")}
            facts["versions"] = ", ".join(f"{name} {number}" for name, number in result.run.get("versions", {}).items())
        rows = "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(_text(v))}</td></tr>" for k, v in facts.items())
        lines.append(f"<details><summary>{escape(title)}</summary><table class=facts>{rows}</table>")
        for name, score in result.scores.items():
            lines.append(sequences_html(name, score))
        lines.append("</details>")
    return "\n".join(lines)


def sequences_html(name: str, score: Mapping[str, Any]) -> str:
    sequences = score.get("sequences", {})
    keys = list(score["numbers"])
    values = {key: value for key, value in score.items() if key not in ("numbers", "sequences")}
    settings = ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in values.items())
    head = "".join(f"<th>{escape(key)}</th>" for key in keys)
    lines = [f"<tr><th class=name>{counted(len(sequences), 'sequence')}</th>{head}</tr>"]
    for label, numbers in {**sequences, "all": score["numbers"]}.items():
        cells = "".join(f"<td>{numbers[key]:.4f}</td>" if key in numbers else "<td></td>" for key in keys)
        lines.append(f"<tr><td class=name>{escape(label)}</td>{cells}</tr>")
    return f"<p><b>{escape(name)}</b>: {escape(settings)}</p><div class=wide><table>{''.join(lines)}</table></div>"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    parser = report_parser()
    arguments = parser.parse_args(argv)
    results = find_results(arguments.results)
    pictures = {}
    for result in tqdm(results, desc="pictures", unit="result", disable=None):
        pictures[result.folder] = make_figures(result.protocol, result.folder, result.run, arguments.pictures)
    out = arguments.out or arguments.results / "report.html"
    with atomic_write(out) as path:
        path.write_text(page(results, pictures, arguments.results), encoding="utf-8")
    print(f"{counted(len(results), 'result')} → {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))

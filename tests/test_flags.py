"""Numbers and names on command lines are judged at the door, all in one way."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamvggt.cli import main
from streamvggt.flags import image_path, real, some_path, whole, word

ROOT = Path(__file__).parents[1]
WRONG = ["0", "-1", "1" + 30 * "0", "1.5", "nan", "inf", "", "many"]


def test_what_is_in_range_is_taken():
    assert [whole()(text) for text in ("1", "7", "1000000000")] == [1, 7, 10**9]
    assert [real(0, 100)(text) for text in ("0", "99.5", "1e2")] == [0, 99.5, 100]
    assert word("tiny") == "tiny" and some_path("a/b") == Path("a/b")


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_is_reported(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=re.escape(f"expected a whole number from 1 to 9, got {text!r}")
    ):
        whole(1, 9)(text)
    if text != "1.5":
        with pytest.raises(argparse.ArgumentTypeError, match=r"expected a number from 0\.1 to 2, got"):
            real(0.1, 2)(text)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_name_is_none(text):
    for kind in (word, some_path):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a value, got an empty one"):
            kind(text)


def flags(path: Path) -> Iterator[tuple[str, str | None]]:
    """Calls that define a flag with a free value, and the type of the value."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", None) == "add_argument":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            takes_value = "choices" not in given and given.get("action", "'append'") == "'append'"
            if takes_value and given.get("nargs") != "argparse.REMAINDER":  # of another program
                yield f"{path.name}:{call.lineno}: {ast.unparse(call)}", given.get("type")


@pytest.mark.parametrize("text", ["figure", "figure.md", "a/.png", "{folder}"])
def test_an_image_to_write_has_the_suffix_of_an_image(tmp_path, text):
    (tmp_path / "folder.png").mkdir()
    assert image_path("a/b.JPG") == Path("a/b.JPG")
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected an image file \(\.png, "):
        image_path(text.format(folder=tmp_path / "folder.png"))


def test_every_flag_has_such_a_type():
    """A bare int or float takes anything, and a bare Path takes "" for the current folder."""
    for path in [ROOT / "demo_gradio.py", *(ROOT / "src").rglob("*.py")]:
        for flag, kind in flags(path):
            assert kind not in (None, "int", "float", "str", "Path"), flag


def test_numbers_and_paths_of_benchmarks_and_experiments_have_such_a_type():
    """Except for benchmarks/versions.py, which also runs on top of versions without these types."""
    paths = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "experiments").glob("*.py")]
    for path in paths:
        for flag, kind in flags(path) if path.name != "versions.py" else ():
            assert kind not in ("int", "float", "Path"), flag
            assert kind == "output_path" or path.parent.name == "experiments" or "'--out'" not in flag, flag


@pytest.mark.parametrize("words", [[""], ["photos", "--weights="], ["photos", "--host="], ["photos", "--allow-host= "]])
def test_the_viewer_rejects_empty_values(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["view", *words])
    assert stopped.value.code == 2 and "expected a value, got an empty one" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--fps", "--stride", "--max-frames", "--size", "--max-points"])
def test_a_wrong_number_stops_before_anything_is_done(flag, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reconstruct", "photos", "--out", str(tmp_path / "out"), f"{flag}=0"])
    assert stopped.value.code == 2 and f"error: argument {flag}: expected a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flag",
    [
        "--submaps",
        "--policy",
        "--heads",
        "--frames",
        "--formats",
        "--weights",
        "--out",
        "--device",
        "--conf-percentile",
    ],
)
def test_an_empty_value_is_rejected(flag, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    words = ["reconstruct", str(photos), "--out", str(tmp_path / "out"), f"{flag}="]
    try:
        status = main(words)
    except SystemExit as stopped:
        status = stopped.code
    output = capsys.readouterr().err
    assert status in (1, 2) and "error:" in output and "No images" not in output
    assert not (tmp_path / "out").exists()

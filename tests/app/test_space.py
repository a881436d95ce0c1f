"""The header of a Hugging Face Space says what is here."""

import re

from browser import ROOT


def test_the_header_of_a_space_names_our_page_and_our_gradio():
    _, header, rest = (ROOT / "docs" / "space_header.md").read_text(encoding="utf-8").split("---\n")
    fields = dict(line.split(": ", 1) for line in header.splitlines())
    assert not rest.strip()
    assert (ROOT / fields["app_file"]).exists()
    (pinned,) = re.findall(r"^gradio==(.+)$", (ROOT / "requirements_demo.txt").read_text(encoding="utf-8"), re.M)
    assert fields["sdk_version"] == pinned
    assert len(fields["short_description"]) <= 60

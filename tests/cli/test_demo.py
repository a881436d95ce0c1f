"""`streamvggt demo`: the environment variables of Gradio."""

import sys
from types import SimpleNamespace

import pytest

from streamvggt.cli import demo


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GRADIO_SERVER_PORT", "abc", "a whole number from 0 to 65535"),
        ("GRADIO_SERVER_PORT", "70000", "a whole number from 0 to 65535"),
        ("GRADIO_SERVER_PORT", "", "a whole number from 0 to 65535"),
        ("GRADIO_NUM_PORTS", "1.5", "a whole number from 0 to 65535"),
        ("GRADIO_SHARE", "yes", "true or false"),
    ],
)
def test_invalid_environment_variables_are_named(command, monkeypatch, name, value, expected):
    monkeypatch.setattr(demo, "resolve_device", None)  # the next step, which a missing check reaches
    monkeypatch.setenv(name, value)
    status, text = command("demo")
    assert status == 1 and f"{name}: expected {expected}, got {value!r}" in text


def test_the_port_in_the_environment_is_used_unless_another_is_given(command, monkeypatch):
    ports = []

    def site(*arguments, port, **options):
        ports.append(port)
        raise ValueError("not served")

    # In place of the modules that import Gradio.
    names = {"gradio_app": {"build_page": print}, "page": {"PageOptions": dict}, "site": {"Site": site}}
    for module, content in names.items():
        monkeypatch.setitem(sys.modules, f"streamvggt.app.{module}", SimpleNamespace(**content))
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    for flags in ((), ("--port", "8000"), ("--port", "0")):
        assert "not served" in command("demo", *flags)[1]
    assert ports == [7999, 8000, 0]

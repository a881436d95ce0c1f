"""Bundled weights fit videos of the procedural world only, and random weights fit nothing."""

import argparse
from pathlib import Path

import pytest

from procedural_scenes import SyntheticScenes
from procedural_scenes.__main__ import write_photos, write_video
from streamvggt.stream.weights_note import BUNDLED_WEIGHTS_NOTE, RANDOM_WEIGHTS_NOTE, weights_note

CLIP = Path(__file__).parents[2] / "assets" / "clip.mp4"


def test_what_is_rendered_fits(tmp_path):
    world = SyntheticScenes("test")
    options = argparse.Namespace(out=tmp_path / "clip.mp4", stride=2, size=(32, 48), index=0, frames=1, crf=20, laps=1)
    write_video(options, world)
    assert weights_note("tiny", options.out) == ""
    options.out = tmp_path / "photos"
    options.out.mkdir()
    write_photos(options, world)
    assert weights_note("tiny", options.out) == ""
    (options.out / "holiday.jpg").write_bytes(b"\xff\xd8\xff")
    assert weights_note("tiny", options.out) == BUNDLED_WEIGHTS_NOTE


@pytest.mark.parametrize("example", ["clip.mp4", "examples/loop.mp4", "examples/outdoor.mp4", "examples/photos"])
def test_the_bundled_examples_fit(example):
    assert weights_note("tiny", CLIP.parent / example) == ""


@pytest.mark.parametrize("source", ["{folder}", "{folder}/photo.jpg", "{folder}/*.jpg", "0", "rtsp://host/a", __file__])
def test_other_input_does_not(tmp_path, source):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert weights_note("tiny", source.format(folder=tmp_path)) == BUNDLED_WEIGHTS_NOTE


def test_other_weights_are_not_checked(tmp_path):
    assert weights_note("lch01/StreamVGGT", tmp_path) == ""
    assert weights_note("lch01/StreamVGGT") == ""


@pytest.mark.parametrize("name", ["tiny", "tiny-vggt"])
def test_bundled_weights_do_not_fit_an_unknown_input(name):
    assert weights_note(name) == BUNDLED_WEIGHTS_NOTE


def test_random_weights_fit_nothing():
    assert weights_note("random:small", CLIP) == weights_note("random:full") == RANDOM_WEIGHTS_NOTE

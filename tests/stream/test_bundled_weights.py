"""The bundled weights are told to be useless for everything but videos of the procedural world."""

import argparse
from pathlib import Path

import pytest

from procedural_scenes.__main__ import write_video
from streamvggt.stream.bundled_weights import BUNDLED_WEIGHTS_NOTE, bundled_weights_note

CLIP = Path(__file__).parents[2] / "assets" / "clip.mp4"


def test_the_bundled_clip_fits():
    assert bundled_weights_note("tiny", CLIP) is None and bundled_weights_note("tiny", str(CLIP)) is None


def test_a_rendered_clip_fits(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(
        argparse.Namespace(
            split="test", seed=0, scene_type="rooms", out=path, stride=2, size=(32, 48), index=0, frames=1
        )
    )
    assert bundled_weights_note("tiny", path) is None


@pytest.mark.parametrize("source", ["{folder}", "{folder}/photo.jpg", "{folder}/*.jpg", "0", "rtsp://host/a", __file__])
def test_other_input_does_not(tmp_path, source):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert bundled_weights_note("tiny", source.format(folder=tmp_path)) == BUNDLED_WEIGHTS_NOTE


def test_other_weights_are_not_judged(tmp_path):
    assert bundled_weights_note("lch01/StreamVGGT", tmp_path) is None

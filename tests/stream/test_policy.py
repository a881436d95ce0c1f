"""Policies by their names on a command line."""

import argparse

import pytest
from networks import tiny

from streamvggt import (
    FrameBlocks,
    KeepAll,
    KeyDiversity,
    KeyFrames,
    MotionKeyFrames,
    ProbeSaliency,
    SelfSelective,
    StreamSession,
    Trajectory,
    Window,
)
from streamvggt.app.scene import RunSettings
from streamvggt.cli import reconstruct, view
from streamvggt.evaluation.network import add_network_arguments
from streamvggt.stream.policy import DEFAULT_MEMORY, MEMORIES, NAMES, parse_policy


def test_names():
    assert parse_policy("all") == KeepAll()
    assert parse_policy("window") == parse_policy("window:") == Window(1, 8)
    assert parse_policy("window:2,5") == Window(2, 5)
    assert parse_policy("window:2,5,100") == Window(2, 5, remnants=100)
    assert parse_policy("trajectory") == Trajectory(8, 63)
    assert parse_policy("trajectory:4,9,2") == Trajectory(anchor=4, recent=9, every=2)
    assert parse_policy("keyframes:4") == KeyFrames(every=4)
    assert parse_policy("keyframes:4,10") == KeyFrames(every=4, held=10)
    assert parse_policy("motion:12.5,10,20") == MotionKeyFrames(pixels=12.5, held=10, longest=20)
    assert parse_policy("diversity:20,2") == KeyDiversity(budget=20, slack=2)
    assert parse_policy("selective:20,2,0.7") == SelfSelective(budget=20, slack=2, new_weight=0.7)
    assert parse_policy("saliency:9,2,16") == ProbeSaliency(budget=9, slack=2, num_patches=16)
    assert parse_policy("blocks:12,3") == FrameBlocks(held=12, recent=3)


def test_usage():
    assert MEMORIES.startswith("all, window:ANCHOR,RECENT[,REMNANTS], ")
    assert "motion:PIXELS[,HELD[,LONGEST]]" in MEMORIES


def test_commands_are_bounded_unless_asked_and_evaluations_are_as_published():
    assert parse_policy(DEFAULT_MEMORY).capacity is not None

    def parsed(add_arguments, *words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return parser.parse_args(words)

    def reconstructing(*words: str) -> str:
        arguments = parsed(reconstruct.add_arguments, "clip.mp4", "--out", "out", *words)
        reconstruct.fill_in(arguments)
        return arguments.memory

    assert reconstructing() == DEFAULT_MEMORY
    assert reconstructing("--windows", "60,15") == "all"  # each is bounded by itself
    assert parsed(view.add_arguments, "clip.mp4").memory == DEFAULT_MEMORY
    assert RunSettings(weights="tiny").memory == DEFAULT_MEMORY
    assert parsed(add_network_arguments).memory == "all"
    assert StreamSession(tiny()).policy == KeepAll()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_takes_the_defaults(name):
    assert parse_policy(name) == NAMES[name].policy()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "memory '' is unknown; choose one of all, window"),
        ("none", "choose one of all, window"),
        ("all:3", "write all$"),
        ("window:3", r"1 number\(s\) behind its name; write window:ANCHOR,RECENT"),
        ("window:1,x", "RECENT must be a whole number, not 'x'"),
        ("window:1,,", "RECENT must be a whole number, not ''"),
        ("window:1,2,3,4", "write window"),
        ("window:-1,2", "anchor=-1"),
        ("keyframes:0", "every=0"),
        ("trajectory:8,0", "got 8, 0 and 1"),
        ("trajectory:8", "write trajectory:ANCHOR,RECENT"),
        ("keyframes:2,1", "held=1 is too small"),
        ("blocks:3,3", "held=3, recent=3"),
        ("diversity:1", "budget=1, slack=4"),
        ("diversity:8,0", "budget=8, slack=0"),
        ("diversity:8,2,0", "must be above 0, not 0.0"),
        ("saliency:9,2,-1", "num_patches=-1"),
        ("selective:2,2,0.5,9,0.2,0.5", "anchors=9 .* do not fit"),
        ("motion:nan", "pixels=nan"),
        ("motion:fast", "PIXELS must be a number, not 'fast'"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(text, said):
    with pytest.raises(ValueError, match=said):
        parse_policy(text)

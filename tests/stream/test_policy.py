"""Policies by their names on a command line."""

import argparse
from dataclasses import fields

import pytest
from launching import ROOT
from small_models import tiny

from streamvggt import (
    FrameDiversity,
    KeepAll,
    Keyframes,
    MotionKeyframes,
    ProbeSaliency,
    SelfSelective,
    SlidingWindow,
    StreamSession,
    TokenDiversity,
    Trajectory,
)
from streamvggt.app.scene import RunSettings
from streamvggt.cli import memory_settings
from streamvggt.cli.arguments import reconstruct, view
from streamvggt.evaluation.arguments import add_network_arguments
from streamvggt.stream.policy import DEFAULT_POLICY, POLICIES, POLICY_USAGE, parse_policy


def test_names():
    assert parse_policy("all") == KeepAll()
    assert parse_policy("window") == parse_policy("window:") == SlidingWindow(1, 8)
    assert parse_policy("window:2,5") == SlidingWindow(2, 5)
    assert parse_policy("window:2,5,100") == SlidingWindow(2, 5, retained=100)
    assert parse_policy("trajectory") == Trajectory(8, 63)
    assert parse_policy("trajectory:4,9,2") == Trajectory(anchor=4, recent=9, every=2)
    assert parse_policy("keyframes:4") == Keyframes(interval=4)
    assert parse_policy("keyframes:4,10") == Keyframes(interval=4, max_frames=10)
    assert parse_policy("motion-keyframes:12.5,10,20") == MotionKeyframes(min_flow=12.5, max_frames=10, max_interval=20)
    assert parse_policy("token-diversity:20,2") == TokenDiversity(budget_frames=20, slack_frames=2)
    assert parse_policy("selective:20,2,0.7") == SelfSelective(budget_frames=20, slack_frames=2, importance_weight=0.7)
    assert parse_policy("saliency:9,2,16") == ProbeSaliency(budget_frames=9, slack_frames=2, num_patches=16)
    assert parse_policy("frame-diversity:12,3") == FrameDiversity(max_frames=12, recent=3)


def test_usage():
    assert POLICY_USAGE.startswith("all, window:ANCHOR,RECENT[,RETAINED], ")
    assert "motion-keyframes:MIN_FLOW[,MAX_FRAMES[,MAX_INTERVAL]]" in POLICY_USAGE


def test_commands_are_bounded_unless_asked_and_evaluations_are_as_published():
    assert parse_policy(DEFAULT_POLICY).capacity is not None

    def parsed(add_arguments, *words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return parser.parse_args(words)

    def reconstructing(*words: str) -> str:
        arguments = parsed(reconstruct.add_arguments, "clip.mp4", "--out", "out", *words)
        memory_settings.apply_defaults(arguments)
        return arguments.policy

    assert reconstructing() == DEFAULT_POLICY
    assert reconstructing("--submaps", "60,15") == "all"  # each is bounded by itself
    assert parsed(view.add_arguments, "clip.mp4").policy == DEFAULT_POLICY
    assert RunSettings(weights="tiny").policy == DEFAULT_POLICY
    assert parsed(add_network_arguments).policy == "all"
    assert StreamSession(tiny()).policy == KeepAll()


@pytest.mark.parametrize("name", POLICIES)
def test_the_syntax_lists_the_fields_of_the_policy(name):
    """The table repeats them, so that help texts do not import PyTorch."""
    types = {"int": int, "float": float}
    assert POLICIES[name].parameters == {field.name: types[field.type] for field in fields(POLICIES[name].policy)}
    assert list(POLICIES[name].parameters) == [field.name for field in fields(POLICIES[name].policy)]


@pytest.mark.parametrize("name", POLICIES)
def test_the_docs_list_the_arguments_and_defaults(name):
    policy = parse_policy(name)
    arguments = ", ".join(f"{field.name}={getattr(policy, field.name):g}" for field in fields(policy))
    row = f"| `{name}` | `{type(policy).__name__}({arguments})` | "
    assert row in (ROOT / "docs/streaming.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", POLICIES)
def test_a_name_alone_takes_the_defaults(name):
    assert parse_policy(name) == POLICIES[name].policy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "policy '' is unknown; choose one of all, window"),
        ("none", "choose one of all, window"),
        ("all:3", "write all$"),
        ("window:3", r"1 number\(s\) behind its name; write window:ANCHOR,RECENT"),
        ("window:1,x", "RECENT must be a whole number, not 'x'"),
        ("window:1,,", "RECENT must be a whole number, not ''"),
        ("window:1,2,3,4", "write window"),
        ("window:-1,2", "anchor=-1"),
        ("keyframes:0", "interval=0"),
        ("trajectory:8,0", "got 8, 0 and 1"),
        ("trajectory:8", "write trajectory:ANCHOR,RECENT"),
        ("keyframes:2,1", "max_frames=1 is too small"),
        ("frame-diversity:3,3", "max_frames=3, recent=3"),
        ("token-diversity:1", "budget_frames=1, slack_frames=4"),
        ("token-diversity:8,0", "budget_frames=8, slack_frames=0"),
        ("token-diversity:8,2,0", "must be above 0, not 0.0"),
        ("saliency:9,2,-1", "num_patches=-1"),
        ("selective:2,2,0.5,9,0.2,0.5", "anchors=9 .* do not fit"),
        ("motion-keyframes:nan", "min_flow=nan"),
        ("motion-keyframes:fast", "MIN_FLOW must be a number, not 'fast'"),
    ],
)
def test_what_cannot_be_understood_is_rejected_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        parse_policy(text)

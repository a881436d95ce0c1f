"""The memories that a training can be configured with."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from streamvggt.stream.policies.keyframes import Keyframes
from streamvggt.stream.policies.sliding_window import SlidingWindow

CONFIG = str(Path(__file__).parents[2] / "config")


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        (["policy=sliding_window", "trainer.policy.recent=4"], SlidingWindow(1, 4)),
        (["policy=keyframes"], Keyframes(8, 24)),
    ],
)
def test_a_policy_comes_by_its_name(words, policy):
    with initialize_config_dir(CONFIG, version_base=None):
        config = compose("train_tiny", words)
    assert instantiate(config.trainer.policy) == policy


def test_by_default_the_whole_past_is_seen():
    with initialize_config_dir(CONFIG, version_base=None):
        assert "policy" not in compose("train").trainer

"""Choices of the command line are the keys of the tables that implement them."""

from typing import get_args

from streamvggt import choices
from streamvggt.cli.arguments.data.check import POSES_ONLY
from streamvggt.cli.data.check import all_datasets
from streamvggt.datasets import list_modules
from streamvggt.export import EXPORTERS
from streamvggt.model.heads import HEADS
from streamvggt.stream.static_step import STEP_BUILDERS


def test_choices_are_implemented():
    assert get_args(choices.ExportFormat) == tuple(EXPORTERS)
    assert get_args(choices.StepMode) == ("eager", *STEP_BUILDERS)
    assert set(choices.RELEASED_HEADS) <= set(HEADS)


def test_the_help_of_data_check_names_all_data_sets():
    assert set(all_datasets()) == {*list_modules(), *POSES_ONLY}

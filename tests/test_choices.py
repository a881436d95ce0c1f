"""Choices of the command line are the keys of the tables that implement them."""

from typing import get_args

from procedural_scenes.scene import STYLES
from streamvggt import choices
from streamvggt.cli.arguments.data.check import POSES_ONLY
from streamvggt.cli.data.check import all_datasets
from streamvggt.datasets import list_modules
from streamvggt.evaluation import arguments, depth_sets, mv_recon, trajectory
from streamvggt.evaluation.depth_alignment import ALIGNMENTS
from streamvggt.export import EXPORTERS
from streamvggt.model.heads import HEADS
from streamvggt.stream.static_step import STEP_BUILDERS


def test_choices_are_implemented():
    assert get_args(choices.ExportFormat) == tuple(EXPORTERS)
    assert get_args(choices.StepMode) == ("eager", *STEP_BUILDERS)
    assert set(choices.RELEASED_HEADS) <= set(HEADS)
    assert tuple(ALIGNMENTS) == choices.DEPTH_ALIGNMENTS
    assert tuple(STYLES) == choices.SCENE_TYPES


def test_the_test_sets_of_evaluations_have_readers():
    def possible(protocol):
        (action,) = (a for a in protocol.parser()._actions if a.dest == "eval_dataset")
        return action.choices

    assert possible(arguments.MONODEPTH) == tuple(depth_sets.DEPTH_SETS)
    assert set(possible(arguments.VIDEO_DEPTH)) < set(depth_sets.DEPTH_SETS)
    assert set(arguments.VIDEO_ALIGNMENTS) <= set(choices.DEPTH_ALIGNMENTS)
    assert possible(arguments.TRAJECTORY) == tuple(trajectory.SETS)
    assert possible(arguments.MV_RECON) == tuple(mv_recon.SETS)


def test_the_help_of_data_check_names_all_data_sets():
    assert set(all_datasets()) == {*list_modules(), *POSES_ONLY}

"""Real files of data sets, for tests that run where they are: never shipped, never needed.

A folder with seven_scenes/, tum/, hypersim/metadata_camera_parameters.csv and waymo/: `$STREAMVGGT_REAL`, by default
shared/real beside the checkout.
"""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("STREAMVGGT_REAL", Path(__file__).parents[2] / "shared/real"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real files of the data sets here ($STREAMVGGT_REAL)")

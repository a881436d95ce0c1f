"""Data sets: one module each. The module describes the files of its set once, then reads, prepares and writes them.

To add a data set, add one module here and one file in config/dataset/. `streamvggt data` finds the module by its name.
Modules whose names start with an underscore are shared machinery. Conventions: docs/conventions.md.

A module contains:

    docstring                      paper, the files under ROOT (as they are read) and under RAW (as downloaded).
                                   `streamvggt data prepare NAME` prints it.
    FOLDER                         folder of the set under ROOT, the root of all data sets
    FILES = FrameFiles(…)          files of one frame in the folder of its scene, for sets that have one; `_files.py`
    class …(DatasetReader)         training reader: scenes, frames in temporal order, views with depth and camera;
                                   `streamvggt/data/dataset_reader.py`. Or one of the evaluation readers:
    class …(DepthSet)              images and ground-truth depth; `_depth_set.py`
    class …(TrajectorySet)         images and ground-truth poses; `_trajectory_set.py`
    write(out, clips)              fixture: write views in the layout of the set, one scene per clip; returns a
                                   `WrittenScene` per clip. `out` is ROOT. `_fixtures.py`
    OUTDOORS, FOV                  optional: the fixture needs clips under a sky, or a field of view over the larger
                                   side (radians)

A module whose download is converted first also contains:

    raw_scenes(raw)                names of the scenes of a download, each the path of its folder under ROOT/FOLDER
    prepare(raw, scene, folder)    write one scene into `folder`, a temporary folder that replaces the scene's folder
                                   when `prepare` returns. Raises `SkipScene` for a scene that is skipped on purpose.
    finish(raw, out)               optional: write the files that describe all prepared scenes; `out` is ROOT/FOLDER.
                                   Runs after each preparation.

`prepare` needs no progress bar, no resuming and no atomic writing: `_prepare.py` does this. `spring.py` is a complete
example in about 80 lines.
"""

from streamvggt.datasets._prepare import prepare
from streamvggt.datasets._registry import get_module, list_modules, readers, source_class, training_set

__all__ = ["get_module", "list_modules", "prepare", "readers", "source_class", "training_set"]

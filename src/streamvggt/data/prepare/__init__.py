"""Raw downloads made into the folders that the sources read, one file per data set; `_runner.py` does what is shared.

A module says

    FOLDER: str                                    the data set's folder under the root of all
    scenes(raw: Path) -> list[str]                 what can be made of a download, each by its folder under FOLDER
    prepare(raw: Path, scene: str, folder: Path)   fill the (temporary) folder of one scene
    finish(raw: Path, out: Path)                   optional: files about all scenes that are there; again after each run

and raises `_runner.Skip` for a scene that is rightly left out. It needs no progress bar, no resuming and no atomic
writing: `folder` takes its place only when `prepare` has returned, and a scene whose folder is there is done. Its
docstring says what RAW must look like: `streamvggt data prepare NAME` prints it.
"""

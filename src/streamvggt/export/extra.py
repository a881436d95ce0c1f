"""Export the outputs of further heads as arrays."""

from pathlib import Path

import numpy as np

from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft
from streamvggt.export.result import ReconstructionResult
from streamvggt.files import atomic_directory


def export_extra(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `extra/<head output>/<frame>.npy` for all outputs in `ResultFrame.extra`. The options do not apply.

    Raises:
        NothingLeft: If no frame has such an output. Nothing is written.
    """
    if not result[0].extra:
        raise NothingLeft("no head beside camera, depth, points and track was run. extra/ is not written")
    with atomic_directory(folder / "extra", marker="names.txt") as temporary:
        (temporary / "names.txt").write_text("\n".join(result[0].extra) + "\n", encoding="utf-8")
        for _, frame in result.frames("extra"):
            for name, values in frame.extra.items():
                (temporary / name).mkdir(exist_ok=True)
                np.save(temporary / name / f"{frame.name}.npy", values)
    return folder / "extra"

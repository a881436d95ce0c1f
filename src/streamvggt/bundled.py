"""Files outside the source folder: configurations, small models and the example clip.

A wheel contains them in this package. In a checkout they are next to src/ (see `force-include` in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def bundled(name: str) -> Path:
    """Return the path of a bundled file or folder.

    Args:
        name: Path in a checkout: "config", "ckpt" or "assets".
    """
    installed = PACKAGE / "bundled_files" / name
    return installed if installed.exists() else PACKAGE.parents[1] / name

"""Results of evaluations, as the report reads them from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvggt.evaluation.run_metadata import SCORES_NAME, read_run, read_scores
from streamvggt.model.random_networks import is_random

NON_DEFAULT_LABELS = {
    "use_ba": "bundle adjustment",
    "fast_eval": "fast evaluation",
    "crop": "cropped images",
    "revisit": "frames seen {} times",
    "stride": "every {}th frame",
    "kf_every": "every {}th frame",
    "image_loader": "{} images",
    "frame_sampling": "draws {}",
}
DEFAULTS = {"revisit": 1, "stride": 1, "image_loader": "crop", "frame_sampling": "global"}
"""Default settings of a protocol; other values appear in the row label. Unlisted settings are off by default."""


@dataclass(frozen=True)
class EvaluationResult:
    """A result folder of one test set.

    Attributes:
        run: Content of run.json. Unknown entries of predictions by another program are empty.
        scores: Content of scores.json by the names of the score sets.
    """

    folder: Path
    protocol: str
    dataset: str
    run: Mapping[str, Any]
    scores: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.run.get("settings", {})

    @property
    def about(self) -> Mapping[str, Any]:
        return self.run.get("about", {})

    @property
    def network(self) -> str:
        """Label of model and inference mode. Results with equal labels share a row."""
        if not self.run:
            return f"predictions of another program ({self.folder.name})"
        settings = self.settings
        words = [f"{settings['model']} ({Path(self.about['weights']).stem}, {settings['weights_fingerprint'][:8]})"]
        words.append({"stream": "streamed", "full": "whole sequences"}[settings["inference"]])
        words += [f"memory {settings['policy']}"] if settings.get("policy") not in (None, "all") else []
        words += ["released camera memory"] if settings.get("camera_cache") == "shared" else []
        words += [settings["dtype"]] if settings["dtype"] != "float32" else []
        for name, label in NON_DEFAULT_LABELS.items():
            if settings.get(name) and settings[name] != DEFAULTS.get(name):
                words.append(label.format(settings[name]))
        words += [f"size {settings['size']}"] if settings["size"] != 518 else []
        return ", ".join(words)

    @property
    def is_of_fixtures(self) -> bool:
        return any(score.get("fixtures") for score in self.scores.values())

    @property
    def is_random(self) -> bool:
        return is_random(str(self.about.get("weights", "")))


def find_results(root: Path) -> list[EvaluationResult]:
    """Return all results under a folder that have scores.

    Raises:
        FileNotFoundError: If there are none.
    """
    results = []
    for path in sorted(root.rglob(SCORES_NAME)):
        folder = path.parent
        run = read_run(folder) or {}
        # Without a record use the folder name: <protocol>/<dataset>_<model>.
        protocol = run.get("protocol", folder.parent.name)
        results.append(
            EvaluationResult(folder, protocol, run.get("dataset", folder.name.split("_")[0]), run, read_scores(folder))
        )
    if not results:
        raise FileNotFoundError(f"no {SCORES_NAME} in {root}: run an evaluation first, e.g. bash eval/monodepth/run.sh")
    return results

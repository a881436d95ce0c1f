"""The body of train.py and finetune.py: build what a configuration describes, and train it."""

import os
from contextlib import nullcontext
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from streamvggt.folder_lock import FolderLock


def train(config: DictConfig) -> None:
    """Train as configured, in an output folder that no other training uses meanwhile.

    Mistakes in the configuration or the data end the program with one line.
    """
    is_main = int(os.environ.get("RANK", "0")) == 0
    try:
        lock = FolderLock(Path(config.trainer.output_dir)) if is_main else nullcontext()
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    with lock:
        trainer = build(config)
        trainer.keep_config(OmegaConf.to_yaml(config, resolve=True))
        trainer.run()


def build(config: DictConfig):
    """The trainer of a configuration."""
    try:
        return hydra.utils.instantiate(config.trainer, _convert_="all")
    except InstantiationException as error:
        cause = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError | ValueError | ImportError):
            raise SystemExit(f"error: {cause}") from None
        raise

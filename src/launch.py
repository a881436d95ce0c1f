"""The body of train.py and finetune.py: build what a configuration describes, and train it."""

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf


def train(config: DictConfig) -> None:
    """Train as configured. Mistakes in the configuration or the data end the program with one line."""
    try:
        trainer = hydra.utils.instantiate(config.trainer, _convert_="all")
    except InstantiationException as error:
        cause = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError | ValueError | ImportError):
            raise SystemExit(f"error: {cause}") from None
        raise
    trainer.keep_config(OmegaConf.to_yaml(config, resolve=True))
    trainer.run()

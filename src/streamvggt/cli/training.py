"""Train StreamVGGT by distillation, or fine-tune VGGT, from a Hydra configuration (docs/training.md).

streamvggt train --config-name train_tiny output_dir=results/tiny
accelerate launch -m streamvggt finetune --config-name finetune data_root=/data/train
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from streamvggt.bundled import bundled
from streamvggt.extras import explained


def mistakes() -> tuple[type[BaseException], ...]:
    """Return errors in the configuration, the data or the machine, reported without a traceback.

    PyTorch is imported here, because the flags of Hydra (--help, --cfg) do not need it.
    """
    import torch

    from streamvggt.training.trainer import Diverged

    return OSError, ValueError, ImportError, MemoryError, OmegaConfBaseException, torch.OutOfMemoryError, Diverged


def run(name: str, argv: list[str]) -> int:
    """Run `streamvggt train` or `streamvggt finetune` in the current folder.

    Args:
        name: "train" or "finetune": the default configuration.
        argv: Flags and overrides of Hydra.
    """
    os.environ.setdefault("STREAMVGGT_ROOT", ".")  # base of the relative paths in the configurations
    sys.argv = [f"streamvggt {name}", *argv]
    main(name)
    return 0


def main(name: str) -> None:
    """Train with a configuration of this repository, by default `name`. Hydra reads flags and overrides in sys.argv."""
    hydra.main(version_base=None, config_path=str(bundled("config")), config_name=name)(train)()


def train(config: DictConfig) -> None:
    """Run the training of a configuration, with a lock on the output folder.

    Errors in the configuration or the data end the program with one message and exit status 1.
    """
    from streamvggt.folder_lock import FolderLock

    is_main = int(os.environ.get("RANK", "0")) == 0
    with report_errors(), FolderLock(Path(config.trainer.output_dir)) if is_main else nullcontext():
        trainer = build(config)
        trainer.log.save_config(OmegaConf.to_yaml(config, resolve=True))
        trainer.run()


def build(config: DictConfig):
    """Build the trainer of a configuration."""
    return hydra.utils.instantiate(config.trainer, _convert_="all")


@contextmanager
def report_errors() -> Iterator[None]:
    """End the program with a message instead of a traceback for user errors (`mistakes`) and Ctrl-C.

    Raises:
        SystemExit: If the block raises such an error. Status 130 after Ctrl-C, otherwise 1.
    """
    user_errors = mistakes()
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted. To resume from the last saved state, repeat the command.", file=sys.stderr)
        raise SystemExit(130) from None
    except InstantiationException as error:
        cause = get_cause(error)
        if isinstance(cause, user_errors):
            raise SystemExit(f"error: {get_message(cause)}") from None
        if isinstance(cause, TypeError):  # a missing argument, or one of the wrong type
            place = re.search(r"^full_key: (.+)$", str(error), re.M)
            raise SystemExit(f"error: {place[1] if place else 'configuration'}: {cause}") from None
        raise
    except user_errors as error:
        raise SystemExit(f"error: {get_message(error)}") from None


def get_cause(error: BaseException) -> BaseException:
    """Return the original error that Hydra wraps once per configuration level."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def get_message(error: BaseException) -> str:
    """Return the message of an error, without the traceback that PyTorch adds to errors of data-loading workers."""
    if isinstance(error, ModuleNotFoundError):
        error = explained(error, "train")
    text = str(error).strip() or type(error).__name__
    if text.startswith("Caught ") and "Traceback" in text:
        lines = text.splitlines()
        own = [number for number, line in enumerate(lines) if re.match(rf"([\w.]+\.)?{type(error).__name__}: ", line)]
        if own:
            text = "\n".join(lines[own[-1] :]).partition(": ")[2]
    return text

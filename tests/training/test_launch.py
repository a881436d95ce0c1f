"""What train.py and finetune.py say when a training cannot go on: one message and an exit status, no traceback."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from launching import SMALL, run_script
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from streamvggt.cli.training import report_errors
from streamvggt.data.decode import DataError


def output(body) -> str | int:
    with pytest.raises(SystemExit) as ended, report_errors():
        body()
    return ended.value.code


class Damaged(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int):
        raise DataError("scene/0.png is damaged: expected an image\nand a second line")


def raising(error: BaseException):
    def body():
        raise error

    return body


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_file_is_named_without_the_traceback_of_the_process_that_read_it(num_workers):
    assert output(lambda: list(DataLoader(Damaged(), num_workers=num_workers))) == (
        "error: scene/0.png is damaged: expected an image\nand a second line"
    )


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), torch.OutOfMemoryError("out of memory")])
def test_errors_of_the_machine_are_reported(error):
    assert output(raising(error)) == f"error: {error}"


def test_an_error_without_words_is_named():
    assert output(raising(MemoryError())) == "error: MemoryError"


@pytest.mark.parametrize(
    "config, words",
    [
        ({"_target_": "builtins.int", "_args_": ["x"]}, "error: invalid literal for int() with base 10: 'x'"),
        ({"_target_": "datetime.date", "years": 2}, "error: a.b: "),
    ],
)
def test_errors_of_a_configuration_are_reported_without_hydra(config, words):
    found = output(lambda: instantiate(OmegaConf.create({"a": {"b": config}})))
    assert found.startswith(words) and "\\n" not in found and "target" not in found


def test_an_interruption_has_the_usual_status(capsys):
    assert output(raising(KeyboardInterrupt())) == 130
    assert "repeat the command" in capsys.readouterr().err


def test_errors_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "more, words",
    [
        (["trainer.save_evry=3"], "save_evry"),
        (["size=0"], "size: expected a whole number from 1 to 16384, got 0"),
        (["trainer.optim.lr=1e30", "trainer.max_nonfinite_steps=1"], "1 steps in a row had no finite loss"),
    ],
)
@pytest.mark.slow
def test_a_training_that_cannot_continue_ends_with_one_message(tmp_path: Path, teacher, more, words):
    command = ["./train.py", "--config-name", "train", "model=tiny_streamvggt", "data=synthetic", *SMALL]
    command += [f"teacher_weights={teacher}", f"output_dir={tmp_path}", "trainer.optim.steps=6", *more]
    done = run_script(*command)
    assert done.returncode == 1 and words in done.stderr
    assert "Traceback" not in done.stderr and "\\n" not in done.stderr

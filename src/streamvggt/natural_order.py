"""Order file names by the numbers written in them.

sorted(paths, key=natural_key)
"""

import re
import unicodedata
from pathlib import PurePath, PurePosixPath

CHAIN = re.compile(r"([0-9]+(?:\.[0-9]+)*)")


def natural_key(path: str | PurePath) -> tuple:
    """Sort key of a path: folder by folder, text without regard to case, numbers by value, suffixes last.

    Digits on both sides of a single point are one decimal number: 470.02098 precedes 470.2. Digits with more points
    are integers one after another, as in dates and versions: 2024.1.5 precedes 2024.10.2. A point after text is no
    part of a number: clip.9 precedes clip.10.
    """
    path = PurePosixPath(path.replace("\\", "/")) if isinstance(path, str) else path
    folders = tuple(_text_key(part) for part in path.parts[:-1])
    name = stem(path)
    return folders, _text_key(name), path.name[len(name) :].lower(), str(path)


def stem(path: PurePath) -> str:
    """Name without its suffix; a suffix has a letter, else it is part of a number: "470.2" is a whole stem."""
    return path.stem if any(character.isalpha() for character in path.suffix) else path.name


def _text_key(text: str) -> tuple:
    """Text and numbers in turn; text is at even positions, so that only likes are compared."""
    text = unicodedata.normalize("NFKC", text).casefold()
    pieces = CHAIN.split(text)
    return tuple(_number_key(piece) if position % 2 else piece for position, piece in enumerate(pieces))


def _number_key(chain: str) -> tuple:
    """Exact for any number of digits: length before digits compares like the integer, and a fraction like text."""
    numbers = chain.split(".")
    if len(numbers) == 2:
        return ((*_integer_key(numbers[0]), numbers[1].rstrip("0")),)
    return tuple((*_integer_key(number), "") for number in numbers)


def _integer_key(digits: str) -> tuple[int, str]:
    digits = digits.lstrip("0")
    return len(digits), digits

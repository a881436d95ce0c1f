"""Read and write files of saved streams, with checksums and validation before loading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from streamvggt.files import atomic_write, check_seal

FORMAT_VERSION = 6


def save_state(path: str | os.PathLike, identity: dict[str, str], state: dict[str, Any]) -> None:
    """Write the state of a stream atomically, with the identity that a restoring session must match.

    Raises:
        OSError: If the file cannot be written.
        RuntimeError: If the file cannot be written, for example because the disk is full.
    """
    with atomic_write(Path(path), sealed=True) as unfinished:
        torch.save({"format": FORMAT_VERSION, "identity": identity, "state": state}, unfinished)


@contextmanager
def loaded_state(path: str | os.PathLike, identity: dict[str, str], like: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Load a state that `save_state` wrote, to restore it within the block.

    Args:
        path: The file.
        identity: Identity of the restoring session.
        like: State of such a session before its first frame. The saved state must have the same entries.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is no saved stream, has another identity, or the block cannot restore it.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no saved stream at {path}")
    check_seal(Path(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of zip archives and pickles raise anything
        raise ValueError(f"{path} is not a saved stream") from error
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or version != FORMAT_VERSION:
        raise ValueError(f"{path} is not a saved stream of this version")
    theirs = content.get("identity")
    if not isinstance(theirs, dict) or not isinstance(content.get("state"), dict):
        raise ValueError(f"{path}: expected the entries identity and state, got others. It is not a saved stream.")
    for what in {**identity, **theirs}:
        saved, mine = (of.get(what, "none") for of in (theirs, identity))
        if saved != mine:
            raise ValueError(f"{path} is a stream with {what} {saved}, but this session has {mine}")
    try:
        check_like(content["state"], like, "state")
        yield content["state"]
    except Exception as error:
        raise ValueError(f"{path} does not match this stream: {str(error) or type(error).__name__}") from error


def check_like(found: object, like: object, name: str) -> None:
    """Compare entries and types with those of an empty state. Empty parts of `like` match any content.

    Raises:
        ValueError: If an entry is missing, unexpected, or of another type.
    """
    if like is None or (found is None and not isinstance(like, dict | list)):
        return
    if type(found) is not type(like):
        raise ValueError(f"{name}: expected {type(like).__name__}, got {type(found).__name__}")
    if isinstance(like, dict) and like:
        if found.keys() != like.keys():
            raise ValueError(f"{name}: expected the entries {', '.join(like)}, got {', '.join(map(str, found))}")
        for key, value in like.items():
            check_like(found[key], value, f"{name}.{key}")
    elif isinstance(like, list) and like:
        for number, value in enumerate(found):
            check_like(value, like[0], f"{name}.{number}")

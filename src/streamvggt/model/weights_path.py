"""Find the weights file of a name: a path, a bundled network or a Hugging Face id."""

from __future__ import annotations

import re
from pathlib import Path

from streamvggt.bundled import bundled
from streamvggt.model.checkpoints import BY_ID, MODEL_IDS, KnownCheckpoint, find_known
from streamvggt.model.random_networks import RANDOM_CONFIGS
from streamvggt.model.weights_file import CONFIG_NAME, INDEX_SUFFIX, SUFFIXES, WEIGHTS_NAME

HUB_TIMEOUT = 10.0
"""Timeout in seconds of Hub requests for files that are not cached."""

BUNDLED_MODELS = {"tiny": "tiny-streamvggt", "tiny-vggt": "tiny-vggt"}
"""Bundled tiny models: name → folder in ckpt/, which is next to src/."""
BUNDLED_DIR = bundled("ckpt")


def resolve_path(name: str) -> tuple[Path, KnownCheckpoint | None]:
    """Return the weights file for `name` and its entry in the table of published checkpoints.

    Raises:
        FileNotFoundError: If there are no weights with this name.
    """
    if name in BUNDLED_MODELS:
        path = BUNDLED_DIR / BUNDLED_MODELS[name] / WEIGHTS_NAME
        if not path.exists():
            raise FileNotFoundError(f"no weights of {name!r} in {path.parent}, which is part of the repository")
        return path, None
    path = Path(name).expanduser()
    if path.is_dir():
        files = [path / name for name in (WEIGHTS_NAME, WEIGHTS_NAME + INDEX_SUFFIX) if (path / name).exists()][:1]
        files = files or sorted(path.glob(f"*{INDEX_SUFFIX}"))
        files = files or [file for suffix in SUFFIXES for file in sorted(path.glob(f"*{suffix}"))]
        if len(files) != 1:
            what = f"several: {', '.join(file.name for file in files)}; name one" if files else "none"
            raise FileNotFoundError(f"one file of weights ({WEIGHTS_NAME}) was expected in {path}; there are {what}")
        return files[0], find_known(files[0].name)
    if path.exists():
        return path, find_known(path.name)
    if name in BY_ID or _is_hub_id(name):
        return _download(name), BY_ID.get(name)
    raise FileNotFoundError(
        f"no weights at {name!r}: expected a file ({', '.join(SUFFIXES)}), a folder with "
        f"{WEIGHTS_NAME}, a Hugging Face id ({', '.join(MODEL_IDS)}), or "
        f"{' or '.join([*BUNDLED_MODELS, *RANDOM_CONFIGS])}"
    )


def _is_hub_id(name: str) -> bool:
    """Return whether a name that is not a local file can be a Hugging Face id. Ids can contain dots."""
    path = Path(name)
    looks_like = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) is not None
    return looks_like and path.suffix.lower() not in SUFFIXES and not path.parent.exists()


def _download(name: str) -> Path:
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    known = BY_ID.get(name)
    repository, filename = (known.repository, known.file) if known else (name, WEIGHTS_NAME)
    try:
        if not isinstance(hub.try_to_load_from_cache(repository, filename), str):
            # hf_hub_download retries failed requests many times. This request fails fast.
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, filename), timeout=HUB_TIMEOUT)
        if known is None:
            try:
                hub.hf_hub_download(name, CONFIG_NAME)  # cached next to the weights
            except LocalEntryNotFoundError:  # the Hub is not reachable
                raise
            except EntryNotFoundError:
                pass
        return Path(hub.hf_hub_download(repository, filename))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: expected a file, a folder or a public id of the Hugging Face Hub, got none of that name. "
            "Check the name; for a private repository log in with `hf auth login`."
        ) from error
    except Exception as error:  # the HTTP library, and so the error class, depends on the version of huggingface_hub
        raise FileNotFoundError(
            f"{filename} of {name} cannot be downloaded from Hugging Face ({type(error).__name__}): check the name and "
            "the network, or download it elsewhere and give the file's path (see ckpt/README.md)"
        ) from error

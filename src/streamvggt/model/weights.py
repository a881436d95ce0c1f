"""Load and save networks: files, folders and the Hugging Face Hub.

A checkpoint contains tensors with the names of the released networks (1,797 tensors for the full network). No code in
a file is executed: files are safetensors, or loaded with `torch.load(weights_only=True)`. The network configuration
comes from the config that this repository writes next to or into its files, otherwise from the tensor shapes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors.torch import save_file
from torch import Tensor

from streamvggt.files import atomic_write
from streamvggt.layers.attention import check_kernel
from streamvggt.layers.stem import LEVELS
from streamvggt.layers.vision_transformer import VisionTransformer, start_from_sines
from streamvggt.model.building import build_converted
from streamvggt.model.checkpoints import BY_ID, MODEL_IDS, KnownCheckpoint, find_known
from streamvggt.model.config import RELEASED_HEADS
from streamvggt.model.device import exact_convolutions, to_channels_last_layout
from streamvggt.model.heads import HEADS
from streamvggt.model.vggt import VGGT, StreamVGGT
from streamvggt.model.weights_file import (
    CONFIG_MODEL_TYPE,
    CONFIG_NAME,
    INDEX_SUFFIX,
    SUFFIXES,
    WEIGHTS_NAME,
    Checkpoint,
    open_checkpoint,
    some,
)

logger = logging.getLogger(__name__)

HUB_TIMEOUT = 10.0
"""Timeout in seconds of Hub requests for files that are not cached."""

BUNDLED_MODELS = {"tiny": "tiny-streamvggt", "tiny-vggt": "tiny-vggt"}
"""Bundled tiny models: name → folder in ckpt/, which is next to src/."""
BUNDLED_DIR = Path(__file__).parents[3] / "ckpt"

RANDOM_CONFIGS: dict[str, dict[str, Any]] = {
    "random:small": {
        "image_size": 224,
        "embed_dim": 192,
        "depth": 4,
        "num_heads": 3,
        "encoder_depth": 4,
        "encoder_num_heads": 3,
        "camera_trunk_depth": 2,
        "camera_num_heads": 6,
        "dpt_layers": (0, 1, 2, 3),
        "dpt_features": 32,
        "dpt_channels": (24, 48, 96, 96),
        "track_features": 64,
        "track_levels": 5,
        "track_dim": 96,
        "track_depth": 2,
        "track_virtual": 16,
    },
    "random:full": {},
}

AUXILIARY_PREFIX = "auxiliary."
"""Prefix of the auxiliary parameters in a training checkpoint."""

FLOAT32_PREFIXES = ("track_head.tracker.",)
"""Parts that stay float32 in half-precision networks: the tracker embeds pixels as angles of up to 1000 radians."""


def load_model(
    name_or_path: str | os.PathLike,
    *,
    causal: bool | None = None,
    heads: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    activation_checkpointing: bool = False,
    **config,
) -> VGGT:
    """Load a network for inference and check its weights strictly.

    Tensors are converted one at a time, so memory contains one copy of the weights.

    Args:
        name_or_path: One of:

            - A .safetensors, .pt, .pth, .ckpt or .bin file: a state dict, or a training checkpoint with an entry
              "model" or "state_dict".
            - The .index.json of a sharded file.
            - A folder with config.json and model.safetensors, sharded or not.
            - A Hugging Face id, for example "lch01/StreamVGGT".
            - "tiny" or "tiny-vggt": the bundled tiny student or teacher.
            - "random:small" or "random:full": random weights with a fixed seed, for speed measurements.
        causal: True (StreamVGGT) or False (VGGT). None: from the config or the table of published checkpoints,
            otherwise True.
        heads: Heads to build and load. None: heads of the config, otherwise all heads with tensors in the file.
        device: Device of the weights.
        dtype: Number format of the weights. The tracker stays float32. float32 on CUDA disables TF32 convolutions in
            this process.
        attention: Attention kernel: "sdpa", "math" or "flash".
        activation_checkpointing: Recompute block activations in the backward pass to save memory.
        config: Fields of `VGGTConfig` that tensor shapes do not determine, for example camera_num_heads=8.

    Returns:
        The network in evaluation mode.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file belongs to another network, contains code, or has missing, extra or wrong-shaped
            tensors.
    """
    check_kernel(attention, torch.device(device), dtype)
    options = {"attention": attention, "activation_checkpointing": activation_checkpointing}
    name = os.fspath(name_or_path)
    if torch.device(device).type == "cuda" and dtype == torch.float32:
        exact_convolutions()

    def placed(tensor_name: str, tensor: Tensor, copy: bool = False) -> Tensor:
        wanted = torch.float32 if tensor_name.startswith(FLOAT32_PREFIXES) else dtype
        return to_channels_last_layout(tensor, torch.device(device), wanted, copy=copy)

    if name.startswith("random:"):
        sizes = {"causal": True if causal is None else causal, "heads": heads or RELEASED_HEADS, **config}
        return build_converted(lambda: _init_random_model(name, {**sizes, **options}), placed).eval()
    path, known = _resolve_path(name)
    checkpoint = open_checkpoint(path)
    found = checkpoint.config or infer_config(checkpoint.shapes, checkpoint.source, config)
    published = {"causal": known.causal, **known.options} if known else {"causal": True}
    found = {**published, **found, **config}
    if causal is not None:
        found["causal"] = causal
    if heads is not None:
        found["heads"] = heads
    elif "heads" not in found:
        found["heads"] = _heads_in(checkpoint)
    with torch.device("meta"):
        model = _build_model({**found, **options}, checkpoint.source)
    _check_tensors(model, checkpoint)
    # Copy memory-mapped tensors, so that the network does not depend on the file.
    loaded = {name: placed(name, checkpoint.read(name), copy=True) for name in model.state_dict()}
    model.load_state_dict(loaded, assign=True)
    return model.eval()


def init_model(
    *,
    seed: int = 0,
    encoder_weights: str | os.PathLike | None = None,
    xfeat_weights: str | os.PathLike | None = None,
    sharpness: float = 1.0,
    **arguments,
) -> VGGT:
    """Initialize a network for training from scratch.

    Args:
        seed: Seed of the weights. The global random state is unchanged.
        encoder_weights: Checkpoint of the patch encoder, for example DINOv2. None: random weights.
        xfeat_weights: Published XFeat checkpoint, requires `xfeat=True`. None: random weights.
        sharpness: Factor on the normalized queries of the global blocks. With 1, attention at initialization is too
            uniform to select one patch among hundreds.
        arguments: Arguments of `VGGT`.

    Raises:
        ValueError: If an argument is invalid, or a checkpoint does not match the network.
    """
    model = _init_seeded({"causal": False, **arguments}, "init_model", seed)
    if isinstance(model.aggregator.patch_embed, VisionTransformer):
        start_from_sines(model.aggregator.patch_embed)
    with torch.no_grad():
        for block in model.aggregator.global_blocks:
            block.attn.q_norm.weight.mul_(sharpness)
    if encoder_weights is not None:
        load_encoder(model, encoder_weights)
    if xfeat_weights is not None:
        if not model.config.xfeat:
            raise ValueError("xfeat_weights: expected a network with xfeat=True, got one without")
        checkpoint = open_checkpoint(Path(xfeat_weights))
        tensors = {name: checkpoint.stored(name) for name in checkpoint.shapes}  # including integer batch counters
        model.aggregator.patch_embed.patch_embed.xfeat.load_published(tensors)
    return model


def save_model(model: VGGT, folder: str | os.PathLike, state: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json and model.safetensors to `folder`, each atomically.

    Args:
        model: Network to save.
        folder: Output folder, created if missing.
        state: State dict, for models that are sharded among processes. None: `model.state_dict()`.
    """
    folder = Path(folder)
    config = json.dumps({"model_type": CONFIG_MODEL_TYPE, **model.config.as_dict()}, indent=2)
    state = model.state_dict() if state is None else state
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_write(folder / WEIGHTS_NAME) as path:
        # Store the config in the file as well, so that the file can be loaded without config.json.
        save_file(tensors, path, metadata={"format": "pt", "config": config})
        sort_metadata(path)
    with atomic_write(folder / CONFIG_NAME) as path:
        path.write_text(config + "\n", encoding="utf-8")


def sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name, so that equal weights give bit-exact equal files."""
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "the same entries take the same room"
        file.seek(8)
        file.write(text.ljust(length))


def fingerprint(model: VGGT) -> str:
    """Return a hash of the names, shapes and values of all weights, 16 hexadecimal digits.

    The hash is cached until the weights change. Changes through `.data` or NumPy are not detected.
    """
    tensors = model.state_dict()
    versions = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors.values())
    if model not in _MODEL_HASHES or _MODEL_HASHES[model][0] != versions:
        _MODEL_HASHES[model] = versions, _hash_tensors(tensors, tensors.__getitem__)
    return _MODEL_HASHES[model][1]


def file_fingerprint(name_or_path: str | os.PathLike) -> str:
    """Return the `fingerprint` of all tensors in a file, independent of the loaded heads and dtype.

    Args:
        name_or_path: Weights as in `load_model`.
    """
    name = os.fspath(name_or_path)
    if name.startswith("random:"):
        return fingerprint(_init_random_model(name, {"causal": True}))
    checkpoint = open_checkpoint(_resolve_path(name)[0])
    stamps = tuple((file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.files)
    if stamps not in _FILE_HASHES:
        _FILE_HASHES[stamps] = _hash_tensors(checkpoint.shapes, checkpoint.read)
    return _FILE_HASHES[stamps]


_MODEL_HASHES: WeakKeyDictionary[VGGT, tuple[tuple, str]] = WeakKeyDictionary()
_FILE_HASHES: dict[tuple, str] = {}


def _hash_tensors(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().flatten().numpy())
    return digest.hexdigest()[:16]


def infer_config(
    shapes: Mapping[str, tuple[int, ...]], source: str = "the file", known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Infer the network configuration from tensor shapes.

    Shapes do not determine the attention heads of encoder, camera trunk and tracker, the iterations of camera head and
    tracker, the tracker's window radius, and `dpt_layers`. These fields get the values of the released networks. If
    the network does not have the released size, a warning lists the assumed values. A scale token identifies
    LingBot-Map, which has 8 scale frames.

    Args:
        shapes: Shape per tensor name.
        source: Name of the file for messages.
        known: Fields given by the caller, excluded from the assumptions.

    Returns:
        Fields of `VGGTConfig`.

    Raises:
        ValueError: If the tensors do not belong to this network.
    """
    needed = (
        "aggregator.camera_token",
        "aggregator.patch_embed.pos_embed",
        "aggregator.patch_embed.patch_embed.proj.weight",
        "aggregator.global_blocks.0.attn.q_norm.weight",
        "aggregator.global_blocks.0.mlp.fc1.weight",
    )
    missing = [name for name in needed if name not in shapes]
    if any(name.startswith("aggregator.inter_frame_blocks.") for name in shapes):
        raise ValueError(
            f"{source}: expected VGGT or StreamVGGT, got VGGT-Omega. Use it as a teacher: docs/training.md."
        )
    if missing:
        raise ValueError(
            f"{source} does not hold a VGGT network: among its {len(shapes)} tensors ({some(shapes)}) "
            f"there is no {missing[0]!r}"
        )

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})

    embed_dim = shapes["aggregator.camera_token"][-1]
    depth = count("aggregator.global_blocks.")
    stem = "aggregator.patch_embed.patch_embed.proj"
    stem_width = shapes.get(f"{stem}.downs.0.weight", (0,))[0]
    patch_size = 2**LEVELS * shapes[f"{stem}.proj.weight"][-1] if stem_width else shapes[f"{stem}.weight"][-1]
    found: dict[str, Any] = {
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "image_size": math.isqrt(shapes["aggregator.patch_embed.pos_embed"][1] - 1) * patch_size,
        "depth": depth,
        "num_heads": embed_dim // shapes["aggregator.global_blocks.0.attn.q_norm.weight"][0],
        "mlp_ratio": shapes["aggregator.global_blocks.0.mlp.fc1.weight"][0] / embed_dim,
        "encoder_depth": count("aggregator.patch_embed.blocks."),
    }
    if "aggregator.scale_token" in shapes:  # LingBot-Map: its options come together
        found |= {"scale_frames": 8, "global_rotation": "time", "pose": "world_from_camera"}
    found["stem_width"] = stem_width
    found["xfeat"] = "aggregator.patch_embed.patch_embed.describe.weight" in shapes
    assumed: dict[str, Any] = {"encoder_num_heads": max(embed_dim // 64, 1)}
    if count("camera_head.trunk."):
        found["camera_trunk_depth"] = count("camera_head.trunk.")
        assumed["camera_num_heads"] = 16
        assumed["camera_iterations"] = 4
    for head in ("depth_head", "point_head", "track_head.feature_extractor"):
        if f"{head}.scratch.layer1_rn.weight" in shapes:
            if head != "track_head.feature_extractor":
                found["dpt_features"] = shapes[f"{head}.scratch.layer1_rn.weight"][0]
            found["dpt_channels"] = tuple(shapes[f"{head}.projects.{level}.weight"][0] for level in range(4))
            # The released network has 24 layers and reads 4, 11, 17 and 23, which are not evenly spaced.
            even = tuple(depth * quarter // 4 - 1 for quarter in range(1, 5))
            assumed["dpt_layers"] = (4, 11, 17, 23) if depth == 24 else even
    if "track_head.tracker.corr_mlp.fc1.weight" in shapes:
        tracker = "track_head.tracker."
        found["track_features"] = shapes[tracker + "fmap_norm.weight"][0]
        found["track_dim"], windows = shapes[tracker + "corr_mlp.fc1.weight"]
        found["track_depth"] = count(tracker + "updateformer.time_blocks.")
        found["track_virtual"] = shapes[tracker + "updateformer.virual_tracks"][1]
        assumed["track_radius"] = 4
        found["track_levels"] = windows // (2 * (known or {}).get("track_radius", 4) + 1) ** 2
        assumed["track_num_heads"] = 8
        assumed["track_iterations"] = 4
    assumed = {name: value for name, value in assumed.items() if name not in (known or {})}
    if assumed and (embed_dim, depth) != (1024, 24):
        said = ", ".join(f"{name}={value}" for name, value in assumed.items())
        warnings.warn(
            f"{source} has no config and its shapes do not tell {', '.join(assumed)}; taken as {said}. "
            "Give load_model the right values, or keep the config.json that save_pretrained writes",
            stacklevel=3,
        )
    return {**assumed, **found}


def _build_model(arguments: dict[str, Any], source: str) -> VGGT:
    arguments = dict(arguments)
    causal = arguments.pop("causal")
    try:
        return StreamVGGT(**arguments) if causal else VGGT(causal=causal, **arguments)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _init_random_model(name: str, arguments: dict[str, Any]) -> VGGT:
    if name not in RANDOM_CONFIGS:
        raise ValueError(f"there are no weights {name!r}; random ones are {', '.join(RANDOM_CONFIGS)}")
    return _init_seeded({**RANDOM_CONFIGS[name], **arguments}, name, seed=0)


def _init_seeded(arguments: dict[str, Any], source: str, seed: int) -> VGGT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build_model(arguments, source)


def _heads_in(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the heads that have tensors in a file without a config; a log line names the absent ones."""
    present = tuple(
        head
        for head in (*RELEASED_HEADS, *(HEADS.keys() - set(RELEASED_HEADS)))
        if any(name.startswith(HEADS[head].prefix) for name in checkpoint.shapes)
    )
    absent = [head for head in RELEASED_HEADS if head not in present]
    if present and absent:
        logger.warning(
            "Loading %s with heads %s. No %s in it.", checkpoint.source, ", ".join(present), ", ".join(absent)
        )
    return present or RELEASED_HEADS


def _resolve_path(name: str) -> tuple[Path, KnownCheckpoint | None]:
    """Return the weights file for `name` and its entry in the table of published checkpoints.

    Raises:
        FileNotFoundError: If there are no weights with this name.
    """
    if name in BUNDLED_MODELS:
        path = BUNDLED_DIR / BUNDLED_MODELS[name] / WEIGHTS_NAME
        if not path.exists():
            raise FileNotFoundError(f"{name!r} comes with the project's repository, in {path.parent}; it is not there")
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
            f"{filename} of {name} could not be had from Hugging Face ({type(error).__name__}): check the name and the "
            "network, or download it elsewhere and give the file's path (see ckpt/README.md)"
        ) from error


def load_encoder(model: VGGT, path: str | os.PathLike) -> None:
    """Load the patch encoder from its checkpoint, for example dinov2_vitl14_reg4_pretrain.pth (DINOv2 with registers).

    Raises:
        ValueError: If the file has another architecture or size. The message lists the tensors that do not match.
    """
    encoder = model.aggregator.patch_embed
    checkpoint = open_checkpoint(Path(path))
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    wrong = [name for name in {*expected, *checkpoint.shapes} if expected.get(name) != checkpoint.shapes.get(name)]
    if wrong:
        raise ValueError(f"{path} is no DINOv2 encoder of this size; {len(wrong)} do not fit: {some(sorted(wrong))}")
    encoder.load_state_dict({name: checkpoint.read(name) for name in expected})


def _check_tensors(model: VGGT, checkpoint: Checkpoint) -> None:
    """Compare the tensors of the network and the file.

    Raises:
        ValueError: If tensors are missing, extra or wrong-shaped. The message lists them.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unread = (AUXILIARY_PREFIX, *(entry.prefix for head, entry in HEADS.items() if head not in model.heads))
    there = {name: shape for name, shape in checkpoint.shapes.items() if not name.startswith(unread)}
    missing = [name for name in expected if name not in there]
    extra = [name for name in there if name not in expected]
    wrong = [name for name in expected if name in there and there[name] != expected[name]]
    if not (missing or extra or wrong):
        return
    lines = [f"{checkpoint.source} does not fit the network:"]
    if missing:
        lines.append(f"  {len(missing)} missing: {some(missing)}")
    if extra:
        lines.append(f"  {len(extra)} extra: {some(extra)}")
    if wrong:
        shapes = [f"{name} is {there[name]}, expected {expected[name]}" for name in wrong]
        lines.append(f"  {len(wrong)} of wrong shape: {some(shapes)}")
    absent = [
        head for head in model.heads if not any(name.startswith(HEADS[head].prefix) for name in checkpoint.shapes)
    ]
    if absent:
        present = tuple(head for head in model.heads if head not in absent)
        lines.append(f"  The file has no {', '.join(absent)} head: load it with heads={present}")
    raise ValueError("\n".join(lines))

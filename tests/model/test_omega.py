"""VGGT-Omega: the published outputs, names and sizes; frames and sequences; files that do not fit."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omega import GOLDEN, TINY, published_tensors, write_omega
from small_models import golden_input, images

from streamvggt import load_model
from streamvggt.geometry.pointmap import project
from streamvggt.model.omega.network import VGGTOmega
from streamvggt.model.omega.rotation import CenteredRotation, rotary_periods
from streamvggt.model.omega.weights import is_omega, load_omega, published_shapes

GOLDENS = Path(__file__).parent.parent / "goldens"
UNTOLD = ("register_blocks", "dpt_layers")
pytestmark = pytest.mark.filterwarnings("ignore:.*shapes do not determine")


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory) -> VGGTOmega:
    path = write_omega(tmp_path_factory.mktemp("omega") / "small.pt", **GOLDEN)
    return load_omega(path, **{name: GOLDEN[name] for name in UNTOLD})


def tiny(folder: Path, **sizes) -> VGGTOmega:
    """A loaded network in float64, so that only a wrong line makes a difference."""
    sizes = {**TINY, **sizes}
    told = {name: sizes[name] for name in (*UNTOLD, "camera_num_heads") if name in sizes}
    return load_omega(write_omega(folder / "tiny.pt", **sizes), **told).double()


def test_the_published_outputs(golden_model):
    golden = np.load(GOLDENS / "omega_small.npz")
    pictures, _ = golden_input(0, 1, 3, 64, 96)
    with torch.no_grad():
        three, one = golden_model(pictures), golden_model(pictures[:, :1])
        special = golden_model.aggregator(pictures, {7})[7][:, :, :17]
    for name in ("pose_enc", "depth", "depth_conf"):
        np.testing.assert_allclose(getattr(three, name), golden[f"three/{name}"], atol=2e-5, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(special, golden["three/special_tokens"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(one.pose_enc, golden["one/pose_enc"], atol=2e-5, rtol=0)


def test_names_shapes_and_bytes_of_the_published_file():
    with torch.device("meta"):
        shapes = published_shapes(VGGTOmega())
    block = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.qkv.bias_mask"]
    block += ["attn.proj.weight", "attn.proj.bias", "ls1.gamma", "norm2.weight", "norm2.bias"]
    block += ["mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias", "ls2.gamma"]
    normalized = [f"attn.{which}_norm.{what}" for which in "qk" for what in ("weight", "bias")]
    expected = {f"aggregator.patch_embed.blocks.{number}.{name}" for number in range(24) for name in block}
    for blocks in ("frame_blocks", "inter_frame_blocks"):
        expected |= {f"aggregator.{blocks}.{number}.{name}" for number in range(24) for name in block + normalized}
    expected |= {f"camera_head.trunk.{number}.{name}" for number in range(4) for name in block}
    encoder = ["cls_token", "storage_tokens", "mask_token", "rope_embed.periods"]
    encoder += ["norm.weight", "norm.bias", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    expected |= {f"aggregator.patch_embed.{name}" for name in encoder}
    expected |= {f"aggregator.{name}" for name in ("camera_token", "register_token", "rope_embed.periods")}
    layers = {"camera_head": ["token_norm", "trunk_norm", "camera_branch.0", "camera_branch.2"]}
    layers["dense_head"] = ["norm", "proj", "proj_conf", *(f"projects.{level}" for level in range(4))]
    layers["dense_head"] += [f"resize_layers.{level}" for level in (0, 1, 3)]
    for level in range(1, 5):
        expected.add(f"dense_head.scratch.layer{level}_rn.weight")
        parts = ["out_conv", "resConfUnit2.conv1", "resConfUnit2.conv2"]
        parts += ["resConfUnit1.conv1", "resConfUnit1.conv2"] if level < 4 else []
        layers["dense_head"] += [f"scratch.refinenet{level}.{part}" for part in parts]
    for head, names in layers.items():
        expected |= {f"{head}.{name}.{what}" for name in names for what in ("weight", "bias")}
    assert shapes.keys() == expected
    assert len(shapes) == 1411
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_144_059_977  # 4.58 GB in float32
    assert shapes["aggregator.register_token"] == (1, 2, 16, 1024)
    assert shapes["aggregator.rope_embed.periods"] == (16,)
    assert shapes["dense_head.proj.weight"] == (16, 256, 1, 1)
    assert shapes["camera_head.trunk.3.attn.qkv.bias_mask"] == (6144,)


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ({}, (32, 48)),
        ({}, (64, 32)),
        ({"patch_size": 8, "num_heads": 4, "register_blocks": (), "num_registers": 5}, (24, 40)),
        ({"embed_dim": 48, "num_heads": 3, "register_blocks": (0, 1, 2, 3), "camera_num_heads": 4}, (48, 16)),
        ({"mlp_ratio": 2.0, "num_storage": 1, "dpt_layers": (3, 1, 2, 0), "depth": 5}, (16, 16)),
    ],
)
def test_sequences_in_a_batch_do_not_touch_each_other(tmp_path, sizes, size):
    model = tiny(tmp_path, **sizes)
    pictures = images(2, 3, *size)
    with torch.no_grad():
        both = model(pictures)
        assert both.points.shape == (2, 3, *size, 3)
        for number in range(2):
            alone = model(pictures[number : number + 1])
            for name, tensor in both.select_stream(number)._tensors().items():
                torch.testing.assert_close(tensor, getattr(alone, name), atol=1e-11, rtol=1e-11, msg=name)


def test_the_order_of_later_frames_is_only_their_order(tmp_path):
    model = tiny(tmp_path)
    pictures = images(1, 4, 32, 48)
    with torch.no_grad():
        plain, turned = model(pictures), model(pictures[:, [0, 3, 1, 2]])
    for name, tensor in plain._tensors().items():
        torch.testing.assert_close(tensor[:, [0, 3, 1, 2]], getattr(turned, name), atol=1e-10, rtol=1e-10, msg=name)


def test_register_blocks_leave_patches_alone(tmp_path):
    """A network of register blocks only lets a frame's patches know of other frames by its special tokens."""
    model = tiny(tmp_path, register_blocks=(0, 1, 2, 3))
    seen = []
    for block in model.aggregator.global_blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    with torch.no_grad():
        tokens = model.aggregator(images(1, 3, 32, 48), {0})[0]
    assert seen == [3 * 17] * 4
    within, after = tokens.chunk(2, -1)
    assert torch.equal(within[:, :, 17:], after[:, :, 17:])
    assert not torch.isclose(within[:, :, :17], after[:, :, :17]).any(-1).all()


def test_points_lie_on_the_rays_of_their_pixels(tmp_path):
    with torch.no_grad():
        message = tiny(tmp_path)(images(1, 2, 32, 48))
    pixels, depth = project(message.points.flatten(2, 3), message.cameras())
    torch.testing.assert_close(depth.reshape(message.depth.shape), message.depth, atol=1e-9, rtol=1e-9)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    expected = torch.stack([x, y], -1).flatten(0, 1).double().expand(pixels.shape)
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)
    assert torch.equal(message.points_conf, message.depth_conf)
    assert (message.depth_conf > 1).all() and (message.pose_enc[..., 7:] >= 0.01).all()


def test_attention_depends_on_where_patches_lie_to_each_other():
    """Turned queries and keys of one vector: their products are equal for equal steps between patches."""
    rotation = CenteredRotation((3, 6), 2, 16, dtype=torch.float64)
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query, key = (rotation(vector.expand(1, 1, 20, 16))[0, 0] for vector in vectors)
    special, patch_tokens = query[:2], query[2:].unflatten(0, (3, 6))
    assert torch.equal(special, vectors[0].expand(2, 16))
    product = torch.einsum("rcd,ijd->rcij", patch_tokens, key[2:].unflatten(0, (3, 6)))
    torch.testing.assert_close(product[0, 1, 1, 4], product[1, 2, 2, 5], atol=1e-5, rtol=0)
    assert abs(product[0, 1, 1, 4] - product[0, 1, 1, 5]) > 1e-3
    torch.testing.assert_close(rotary_periods(16), torch.tensor([1.0, 100**0.25, 10.0, 100**0.75]))


def test_key_biases_are_masked(tmp_path):
    tensors = published_tensors(**TINY)
    torch.save(tensors, tmp_path / "plain.pt")
    for name in list(tensors):
        if name.endswith(".qkv.bias"):
            tensors[name] = tensors[name] + 5 * (1 - tensors[f"{name}_mask"])  # keys' biases say something else
    torch.save(tensors, tmp_path / "other.pt")
    plain, other = (
        load_omega(tmp_path / f"{name}.pt", register_blocks=(2,)).state_dict() for name in ("plain", "other")
    )
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    assert not any(name.endswith(("bias_mask", "periods")) for name in plain)
    bias = plain["aggregator.patch_embed.blocks.0.attn.qkv.bias"]
    assert (bias[32:64] == 0).all() and (bias[:32] != 0).all()


def test_sizes_come_from_the_file(tmp_path):
    path = write_omega(tmp_path / "tiny.pt", **TINY)
    with pytest.warns(UserWarning, match="Assumed camera_num_heads=16, register_blocks=\\(2,\\), dpt_layers"):
        model = load_omega(path)
    assert vars(model.config) == vars(VGGTOmega(**TINY).config)
    half = load_omega(path, dtype=torch.bfloat16)
    assert half.aggregator.camera_token.dtype == torch.bfloat16
    assert half.camera_head.token_norm.weight.dtype == half.depth_head.proj.weight.dtype == torch.float32
    message = half(images(1, 2, 32, 48, dtype=torch.float32))
    assert message.depth.dtype == message.pose_enc.dtype == torch.float32 and message.depth.isfinite().all()


def test_the_text_head_is_skipped_and_reported(tmp_path):
    text = {"text_alignment_head.norm.weight": torch.ones(3), "text_alignment_head.proj.weight": torch.ones(3, 3)}
    torch.save({**published_tensors(**TINY), **text}, tmp_path / "text.pt")
    with pytest.warns(UserWarning, match=r"Skipped the text head \(2 tensors text_alignment_head\.\*\)"):
        load_omega(tmp_path / "text.pt")


def without(name):
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("aggregator.camera_token"), "does not contain a VGGT-Omega .* aggregator.camera_token is missing"),
        (without("dense_head.proj_conf.bias"), "1 missing: dense_head.proj_conf.bias"),
        (without("camera_head.trunk.1.attn.qkv.bias_mask"), "1 missing: camera_head.trunk.1.attn.qkv.bias_mask"),
        (without("aggregator.rope_embed.periods"), "1 missing: aggregator.rope_embed.periods"),
        (lambda t: t.update({"point_head.norm.bias": torch.ones(3)}), "1 extra: point_head.norm.bias"),
        (lambda t: t.update({"dense_head.norm.bias": torch.ones(3)}), r"norm.bias is \(3,\), expected \(64,\)"),
        (lambda t: t["aggregator.rope_embed.periods"].mul_(2), "periods from 1 to 31.6228, got 2 to 63.2456"),
        (lambda t: t["camera_head.trunk.0.attn.qkv.bias_mask"].fill_(torch.nan), "bias_mask: expected only 0 and 1"),
        (lambda t: t.update({"aggregator.camera_token": torch.ones(1, 2, 1, 0)}), "camera_token is of shape"),
    ],
)
def test_files_that_do_not_fit(tmp_path, damage, message):
    tensors = published_tensors(**TINY)
    damage(tensors)
    torch.save(tensors, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=message):
        load_omega(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depht": 4}, "no size depht"),
        ({"embed_dim": 64}, r"embed_dim=64 \(the file: 32\)"),
        ({"register_blocks": (4,)}, "register_blocks: expected different layers from 0 to 3"),
        ({"register_blocks": 2}, "register_blocks: expected a list of whole numbers, got 2"),
        ({"dpt_layers": (0, 1, 2)}, "dpt_layers: expected four numbers"),
        ({"camera_num_heads": 3}, "camera_num_heads: expected a number that makes 64/camera_num_heads whole"),
        ({"camera_num_heads": 0}, "camera_num_heads: expected a number above 0, got 0"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        load_omega(write_omega(tmp_path / "tiny.pt", **TINY), **sizes)


def test_neither_is_taken_for_the_other(tmp_path, teacher):
    path = write_omega(tmp_path / "omega.pt", **TINY)
    assert is_omega(path) and not is_omega(teacher) and not is_omega("random:small")
    with pytest.raises(ValueError, match="expected VGGT or StreamVGGT, got VGGT-Omega"):
        load_model(path)
    with pytest.raises(ValueError, match="does not contain a VGGT-Omega network"):
        load_omega(teacher)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(1, 2, 3, 30, 32), "multiples of 16, got 30×32"),
        (torch.zeros(2, 3, 32, 32), "expected floating point"),
        (torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), "expected floating point"),
        (torch.zeros(1, 0, 3, 32, 32), "expected floating point"),
    ],
)
def test_images_that_do_not_fit(pictures, message):
    with pytest.raises(ValueError, match=message):
        VGGTOmega(**TINY)(pictures)

"""XFeat's descriptors as part of the patch embedding."""

import pytest
import torch
from small_models import TINY
from torch import nn

from streamvggt.layers.xfeat import XFeat, XFeatEmbed, fine_maps
from streamvggt.model.saving import save_model
from streamvggt.model.weights import init_model, load_model


def published(state_of: XFeat) -> tuple[dict, dict]:
    """A checkpoint in the published layout, with random batch statistics, and its layers by our names."""
    torch.manual_seed(0)
    state, layers = {}, {}
    for name, layer in state_of.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=False
        )
        if name in ("skip1", "block_fusion.2"):
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, 1)
            prefix = "skip1.1" if name == "skip1" else name
            state |= {f"{prefix}.weight": conv.weight, f"{prefix}.bias": conv.bias}
            layers[name] = conv
        else:
            norm = nn.BatchNorm2d(layer.out_channels, affine=False).eval()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            state[f"{name}.layer.0.weight"] = conv.weight
            state[f"{name}.layer.1.running_mean"] = norm.running_mean
            state[f"{name}.layer.1.running_var"] = norm.running_var
            layers[name] = nn.Sequential(conv, norm)
    return {name: tensor.detach() for name, tensor in state.items()}, layers


def test_folded_normalization_computes_the_same():
    xfeat = XFeat()
    state, layers = published(xfeat)
    xfeat.load_published(state)
    for name, layer in layers.items():
        x = torch.randn(1, xfeat.get_submodule(name).in_channels, 8, 8)
        torch.testing.assert_close(xfeat.get_submodule(name)(x), layer(x), atol=1e-5, rtol=1e-5)
    del state["block3.1.layer.0.weight"]
    with pytest.raises(ValueError, match=r"block3\.1\.layer\.0\.weight"):
        xfeat.load_published(state)


def test_descriptors_are_unit_vectors_that_ignore_contrast():
    xfeat = XFeat().eval()
    images = torch.rand(2, 3, 32, 48)
    descriptors, maps = xfeat(images)
    assert descriptors.shape == (2, 64, 4, 6) and [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (24, 8, 12)]
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2, 4, 6))
    torch.testing.assert_close(xfeat(0.5 * images + 0.2)[0], descriptors, atol=1e-3, rtol=0)


@pytest.mark.parametrize("stem_width", [0, 4])
@pytest.mark.parametrize("patch_size", [8, 16])
def test_packed_maps_come_out_as_they_went_in(patch_size, stem_width):
    embed = XFeatEmbed(patch_size, 12, stem_width)
    images = torch.rand(2, 3, 32, 48)
    tokens, packed = embed(images)
    grid = (32 // patch_size, 48 // patch_size)
    assert tokens.shape == (2, 12, *grid)
    flat = torch.cat([part.flatten(2).mT for part in packed], -1)
    for found, true in zip(fine_maps(flat, XFeat.fine_channels, patch_size, grid), embed.xfeat(images)[1], strict=True):
        assert torch.equal(found, true)
    with pytest.raises(ValueError, match="multiple of 8"):
        XFeatEmbed(14, 12)


@pytest.mark.parametrize("stem_width", [0, 4])
def test_a_network_with_it_streams_saves_and_loads(tmp_path, stem_width):
    sizes = {"patch_size": 8, "xfeat": True, "stem_width": stem_width, "heads": ("camera", "depth"), "causal": True}
    model = init_model(**{**TINY, **sizes}).double()
    images = torch.rand(1, 3, 3, 32, 48, dtype=torch.float64)
    whole, memory = model(images), model.new_memory()
    steps = [model.step(images[:, i : i + 1], memory=memory) for i in range(3)]
    torch.testing.assert_close(torch.cat([step.depth for step in steps], 1), whole.depth)
    some = model(images, dense_frames=[0, 2])
    torch.testing.assert_close(some.depth, whole.depth[:, [0, 2]])
    assert some.pose_enc.shape[1] == 3
    save_model(model.float(), tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    torch.testing.assert_close(again(images.float()).depth, model(images.float()).depth)
    (tmp_path / "config.json").unlink()


def test_the_published_file_holds_counters_of_batches_too(tmp_path):
    sizes = {**TINY, "patch_size": 8, "xfeat": True}
    model = init_model(**sizes)
    state, _ = published(model.aggregator.patch_embed.patch_embed.xfeat)
    torch.save({**state, "block1.0.layer.1.num_batches_tracked": torch.tensor(7)}, tmp_path / "xfeat.pt")
    found = init_model(**sizes, xfeat_weights=tmp_path / "xfeat.pt").aggregator.patch_embed.patch_embed.xfeat
    assert torch.equal(found.skip1.weight, state["skip1.1.weight"])


def test_xfeat_weights_need_a_network_with_xfeat(tmp_path):
    with pytest.raises(ValueError, match="xfeat=True"):
        init_model(**TINY, xfeat_weights=tmp_path / "xfeat.pt")

"""Another patch encoder, added by an entry in the table: configuration, training, stream and reload."""

import itertools
import math

import pytest
import torch
from planes import Planes
from torch import nn

from streamvggt import StreamSession, load_model
from streamvggt.layers.block import Block
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.model.config import VGGTConfig
from streamvggt.model.encoders import ENCODERS, EncoderEntry
from streamvggt.model.weights import init_model
from streamvggt.training.optim import OptimConfig
from streamvggt.training.supervision import GroundTruth
from streamvggt.training.trainer import Trainer


class ConvStemEncoder(nn.Module):
    """Convolutions of stride 2 down to the patches, then a transformer block."""

    def __init__(self, patch_size: int, dim: int, num_heads: int):
        super().__init__()
        widths = [3, *(dim >> level for level in reversed(range(int(math.log2(patch_size)))))]
        self.stem = nn.Sequential(*(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths)))
        self.block = Block(dim, num_heads)

    def forward(self, images):
        return self.block(self.stem(images).flatten(2).mT)


def build(config, **_):
    return ConvStemEncoder(config.patch_size, config.embed_dim, config.encoder_num_heads)


class Sized:
    """Planes in images of two by three patches."""

    def __init__(self, patch_size=14):
        self.patch_size = patch_size

    def for_patches(self, patch_size):
        return Sized(patch_size)

    def __getitem__(self, index):
        return Planes(1, 3, 2 * self.patch_size, 3 * self.patch_size)[0]


@pytest.mark.parametrize("patch_size", [16, 8])
def test_from_configuration_to_stream(monkeypatch, fresh, tmp_path, patch_size):
    monkeypatch.setitem(ENCODERS, "conv-stem", EncoderEntry(build, patch_size))
    model = fresh(encoder="conv-stem")
    assert model.patch_size == model.config.patch_size == patch_size
    trainer = Trainer(
        model=model,
        supervision=GroundTruth(),
        loss=MultiTaskLoss(track=None),
        data=Sized(),
        optim=OptimConfig(lr=2e-3, steps=6, warmup_steps=1),
        output_dir=tmp_path,
    )
    before = {name: value.clone() for name, value in model.aggregator.patch_embed.named_parameters()}
    losses = [float(step["loss"]) for step in trainer.steps(6)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(value, before[name]) for name, value in model.aggregator.patch_embed.named_parameters())
    trainer.save_weights("final")
    loaded = load_model(tmp_path / "final")
    assert loaded.config == model.config
    frames = trainer.data[0].images
    heads = ("camera", "depth", "points")
    with torch.no_grad():
        whole = loaded(frames, heads=heads)
    session = StreamSession(loaded, heads=heads)
    last = [session.push(frame) for frame in frames[0]][-1]
    torch.testing.assert_close(last.depth[:, 0], whole.depth[:, 2], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=f"multiples of {patch_size}"):
        session.push(torch.rand(3, 2 * patch_size + 2, patch_size))


def test_an_encoder_without_position_embedding_is_initialized(monkeypatch):
    monkeypatch.setitem(ENCODERS, "conv-stem", EncoderEntry(build, 16))
    sizes = {"embed_dim": 16, "num_heads": 1, "encoder_num_heads": 1, "depth": 1, "dpt_layers": (0,) * 4}
    assert (
        init_model(encoder="conv-stem", heads=["depth"], dpt_channels=(8,) * 4, dpt_features=8, **sizes).patch_size
        == 16
    )


def test_an_unknown_encoder_is_named():
    with pytest.raises(ValueError, match=r"encoder: expected dinov2, got 'dinov9'"):
        VGGTConfig(encoder="dinov9")

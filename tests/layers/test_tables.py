"""Tables are made once, and stay as long as somebody who has recorded their addresses."""

import torch
from small_models import images, tiny

from streamvggt.layers.rope import RoPE2D, cos_sin_tables
from streamvggt.layers.tables import record_tables


def test_made_once_and_forgotten_when_there_are_too_many():
    cos_sin_tables.cache_clear()
    first = RoPE2D((2, 3), 5, 8).cos
    assert RoPE2D((2, 3), 5, 8).cos.data_ptr() == first.data_ptr()
    assert RoPE2D((2, 3), 5, 8, dtype=torch.float64).cos.dtype == torch.float64
    for width in range(40):
        RoPE2D((2, 10 + width), 5, 8)
    again = RoPE2D((2, 3), 5, 8).cos
    assert again.data_ptr() != first.data_ptr() and torch.equal(again, first)


def test_made_in_inference_mode_they_serve_training():
    cos_sin_tables.cache_clear()
    model = tiny(heads=("depth",))
    frames = images(1, 1)
    with torch.inference_mode():
        model(frames)
    model(frames).depth.sum().backward()
    assert model.aggregator.camera_token.grad is not None


def test_torch_compile_treats_them_as_constants():
    """The mark is private to PyTorch. Its public setter imports the compiler, so the mark is set by hand."""
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(marked) and vars(marked).items() <= vars(cos_sin_tables).items()


def test_all_that_a_step_asks_for_can_be_kept():
    model = tiny(heads=("depth",))
    frames = images(1, 1)
    with torch.no_grad():
        model(frames)
        with record_tables() as tables:
            model(frames)
        model(frames)
    # One of the rotary positions; two for each of four levels and the whole map.
    assert len(tables) == 1 + 2 * 5

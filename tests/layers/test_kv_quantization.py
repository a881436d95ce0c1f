"""A byte each: half the memory, an error that is bounded, and tokens that can be moved."""

import pytest
import torch

from streamvggt.layers.kv_cache import KVCache
from streamvggt.layers.kv_quantization import get_quantizer


def keys(frame: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frame)
    return torch.randn(2, 3, 5, 64, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_no_entry_is_further_off_than_half_a_step(dtype):
    storage = get_quantizer("int8")
    x = keys(0, dtype) * torch.logspace(-4, 2, 5)[:, None].to(dtype)
    x[0, 0, 0] = 0
    back = storage.decode(storage.encode(x))
    assert back.dtype == dtype
    step = x.abs().amax(-1, keepdim=True).double() / storage.QMAX
    rounding = torch.finfo(dtype).eps * x.abs().double()
    smallest = 127 * torch.finfo(dtype).smallest_normal  # factors are no smaller than a normal number
    assert ((back.double() - x.double()).abs() <= step * (0.5 + torch.finfo(dtype).eps) + rounding + smallest).all()
    assert not back[0, 0, 0].any()


def test_the_largest_entry_fits_however_its_factor_is_rounded():
    storage = get_quantizer("int8")
    x = torch.arange(128, 256).to(torch.bfloat16)[None, None, :, None].expand(1, 1, -1, 64)  # all there are, to scale
    for largest in (x, -x):
        assert ((storage.decode(storage.encode(largest)) - largest).abs() <= 2).all()


def test_it_takes_half_the_memory_of_bfloat16():
    sizes = {}
    for name in ("auto", "int8"):
        cache = KVCache(capacity=4, dtype=name)
        for frame in range(4):
            cache.append(frame, keys(frame), -keys(frame))
        sizes[name] = cache.num_bytes
        assert cache.num_bytes == sum(plane.nbytes for planes in cache.buffers() for plane in planes)
    assert sizes["int8"] / sizes["auto"] == (64 + 2) / 128


def test_what_was_stored_is_not_rounded_again():
    """However often slots are dropped, filled, moved, pruned, enlarged, saved and restored."""
    cache = KVCache(num_retained_frames=2, tokens_per_retained=2, dtype="int8")
    once = {}
    for frame in range(12):
        cache.append(frame, keys(frame), -keys(frame))
        once[frame] = cache.frame_keys(frame).clone()
        if frame % 3 == 2:
            cache.evict([frame - 1])
            cache.keys_values()
    other = KVCache(num_retained_frames=2, tokens_per_retained=2, dtype="int8")
    other.load_state_dict(cache.state_dict(), torch.device("cpu"))
    for held in (cache, other):
        found = [frame for frame in held.frames if frame is not None]
        assert found and all(torch.equal(held.frame_keys(frame), once[frame]) for frame in found)
    assert torch.equal(cache.keys_values()[0], -other.keys_values()[1])
    pruned = KVCache(dtype="int8")
    pruned.append(0, keys(0), keys(0))
    pruned.select_tokens(torch.tensor([0, 3]).expand(2, 3, -1))
    assert torch.equal(pruned.keys_values()[0], once[0][:, :, [0, 3]])


def test_unknown_storage_is_reported():
    with pytest.raises(ValueError, match="kv_cache_dtype='fp4' is unknown; choose one of auto, int8"):
        KVCache(dtype="fp4")


def test_zeros_stay_zeros():
    """The conversion of 0/0 to int8 differs between devices, so the factor is above 0."""
    quantizer = get_quantizer("int8")
    zeros = torch.zeros(1, 2, 3, 4)
    planes = quantizer.encode(zeros)
    assert (planes[1] > 0).all() and torch.equal(quantizer.decode(planes), zeros)

"""What is true of a prediction whoever made it."""

import numpy as np
import torch
from small_models import images, tiny

from streamvggt.geometry.pointmap import unproject
from streamvggt.geometry.similarity import Sim3
from streamvggt.transfer import packed, unpacked


def test_in_another_world_everything_has_moved_alike():
    with torch.no_grad():
        prediction = tiny()(images(1, 2))
    world = Sim3.exp(torch.tensor([1.0, -2, 0.5, 0.3, 2.2, -0.4, 0.7], dtype=torch.float64))
    moved = prediction.transform(world)

    torch.testing.assert_close(moved.points, world.apply(prediction.points.flatten(2, 3)).view_as(moved.points))
    seen = unproject(prediction.depth[..., 0], prediction.cameras())
    again = unproject(moved.depth[..., 0], moved.cameras())
    torch.testing.assert_close(again, world.apply(seen.flatten(2, 3)).view_as(again))
    torch.testing.assert_close(moved.pose_enc, moved.pose_enc_list[-1], rtol=0, atol=0)
    assert torch.equal(moved.pose_enc[..., 7:], prediction.pose_enc[..., 7:])
    assert torch.equal(moved.depth_conf, prediction.depth_conf)
    for name in ("pose_enc", "depth", "points"):
        assert getattr(moved, name).dtype == getattr(prediction, name).dtype


def test_without_float64_everything_moves_to_rounding(monkeypatch):
    """MPS has no float64: neither the world is uploaded as such, nor are encodings converted."""
    with torch.no_grad():
        prediction = tiny()(images(1, 2)).to(torch.float32)
    world = Sim3.exp(torch.tensor([1.0, -2, 0.5, 0.3, 2.2, -0.4, 0.7], dtype=torch.float64))
    exact = prediction.transform(world)
    dtypes = []
    monkeypatch.setattr("streamvggt.prediction.widest_float", lambda device: torch.float32)
    monkeypatch.setattr("streamvggt.prediction.uploaded", lambda x, device: dtypes.append(x.dtype) or x)
    monkeypatch.setattr(torch.Tensor, "double", None)
    moved = prediction.transform(world)
    assert dtypes == [torch.float32]
    for name in ("pose_enc", "depth", "points"):
        torch.testing.assert_close(getattr(moved, name), getattr(exact, name), rtol=1e-4, atol=1e-5)


def test_a_download_is_the_prediction_without_the_lists():
    with torch.no_grad():
        prediction = tiny()(images(1, 2))
    found = prediction.start_download()()
    assert found.pose_enc_list == () and found.image_size == prediction.image_size
    for name, value in prediction.numpy().items():
        np.testing.assert_array_equal(found.numpy()[name], value)


def test_tensors_survive_the_one_transfer():
    tensors = {"a": torch.rand(2, 3), "b": torch.tensor(5.0), "c": torch.rand(4, 1, 2).half(), "d": torch.rand(0, 3)}
    found = unpacked(packed(tensors), {name: tensor.shape for name, tensor in tensors.items()})
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.float())

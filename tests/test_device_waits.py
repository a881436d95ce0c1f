"""What streams and training steps ask of the device: an unlisted wait, or two devices in one operation, fails.

The meta device stands for the GPU, see `meta_device`. `docs/streaming.md` lists the same waits for users.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from meta_device import MetaDevice, MixedDevices
from omegaconf import OmegaConf
from planes import Planes
from small_models import SHALLOW, TINY

from streamvggt import transfer
from streamvggt.frame import Frame
from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.distill import DistillLoss, DistillMapTerm
from streamvggt.losses.multitask import MultiTaskLoss, SupervisedMapTerm
from streamvggt.losses.pointmap_reference import PointmapTestPublished
from streamvggt.losses.track import TrackTerm
from streamvggt.model.shapes_only import shapes_only
from streamvggt.model.vggt import VGGT, StreamVGGT
from streamvggt.stream.policies.frame_diversity import FrameDiversity
from streamvggt.stream.policies.keyframes import Keyframes, MotionKeyframes
from streamvggt.stream.policies.probe_saliency import ProbeSaliency
from streamvggt.stream.policies.self_selective import SelfSelective
from streamvggt.stream.policies.sliding_window import KeepAll, SlidingWindow
from streamvggt.stream.policies.token_diversity import TokenDiversity
from streamvggt.stream.pool import SessionPool
from streamvggt.stream.preprocess import frame_from_array
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.training.auxiliary import GeometryLosses
from streamvggt.training.supervision import GroundTruth, Teacher

CONFIG = Path(__file__).parents[1] / "config"
SIZES = {**TINY, **SHALLOW, "track_iterations": 1}
WAITS = {  # of a frame once the memory is full, by file
    KeepAll(): set(),
    SlidingWindow(1, 1): set(),
    SlidingWindow(1, 1, 1): set(),
    Keyframes(1, 2): set(),
    TokenDiversity(2, 1): set(),
    SelfSelective(2, 1, anchors=1): set(),
    ProbeSaliency(2, 1, 4): set(),
    MotionKeyframes(5, 2, 6): {"stream/policies/keyframes.py"},
    FrameDiversity(2, 1): {"stream/policies/frame_diversity.py"},
}


def on_device(network=StreamVGGT, dtype=torch.float32, **options):
    with shapes_only():
        return network(**{**SIZES, **options}).to(dtype)


def image() -> torch.Tensor:
    return torch.rand(3, 28, 42)


@pytest.mark.parametrize("policy", WAITS, ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize(
    "options", [{}, {"kv_cache_dtype": "int8", "camera_cache": "shared", "dtype": torch.bfloat16}], ids=str
)
def test_a_frame_waits_for_nothing_but_what_its_policy_reads(policy, options):
    options = dict(options)
    network = on_device(dtype=options.pop("dtype", torch.float32), heads=("camera", "depth")).eval()
    with MetaDevice() as seen:
        session = StreamSession(network, policy=policy, **options)
        for _ in range(5):
            seen.clear()
            prediction = session.push(image())
    assert {value.device.type for value in prediction._tensors().values()} == {"meta"}
    assert sum(seen.uploads.values()) == 1  # the image
    assert seen.waiting_files == WAITS[policy], dict(seen.waits)


@pytest.fixture
def uploads(monkeypatch) -> list[tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each tensor that is copied to the device."""
    copied = []

    def upload(tensor, device):
        if tensor.device.type == "cpu":
            copied.append((tensor.dtype, tuple(tensor.shape)))
        return transfer.uploaded(tensor, device)

    for module in ("session", "pool"):
        monkeypatch.setattr(f"streamvggt.stream.{module}.uploaded", upload)
    return copied


def frame_of_8_bits() -> Frame:
    return frame_from_array(np.zeros((28, 42, 3), np.uint8), size=42)


@pytest.mark.parametrize("open_stream", [StreamSession, SubmapSession])
def test_a_frame_of_8_bits_is_uploaded_as_such(open_stream, uploads):
    network = on_device(heads=("camera", "depth")).eval()
    with MetaDevice() as seen:
        session = open_stream(network, policy=SlidingWindow(1, 1))
        for _ in range(3):
            seen.clear()
            session.push(frame_of_8_bits())
    assert uploads == [(torch.uint8, (3, 28, 42))] * 3
    assert sum(seen.uploads.values()) == 1
    assert sum(seen.waits.values()) == (open_stream is SubmapSession)  # what a submap reads of a frame


def test_tracked_points_wait_for_nothing():
    with MetaDevice() as seen:
        session = StreamSession(on_device().eval(), policy=SlidingWindow(1, 3))
        session.push(image(), query_points=torch.rand(5, 2) * 20)
        seen.clear()
        prediction = session.push(image())
    assert not seen.waits, dict(seen.waits)
    assert prediction.tracks.device.type == "meta"


def test_a_pool_waits_for_nothing():
    with MetaDevice() as seen:
        pool = SessionPool(on_device(heads=("camera", "depth")).eval())
        streams = [pool.open(policy=SlidingWindow(1, 1)) for _ in range(3)]
        for _ in range(4):
            seen.clear()
            futures = [stream.push(image()) for stream in streams]
            assert pool.step() == 3
    assert futures[0].result().depth.device.type == "meta"
    assert sum(seen.uploads.values()) == 1  # all images at once
    assert not seen.waits, dict(seen.waits)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_a_pool_uploads_frames_of_8_bits_as_such(num_streams, uploads):
    with MetaDevice() as seen:
        pool = SessionPool(on_device(heads=("camera", "depth")).eval())
        streams = [pool.open(policy=SlidingWindow(1, 1)) for _ in range(num_streams)]
        for _ in range(3):
            seen.clear()
            futures = [stream.push(frame_of_8_bits()) for stream in streams]
            assert pool.step() == num_streams
    assert futures[0].result().depth.device.type == "meta"
    assert uploads == [(torch.uint8, (num_streams, 1, 3, 28, 42))] * 3
    assert not seen.waits, dict(seen.waits)


def test_submaps_wait_once_per_submap_and_frame():
    """The host needs what a submap says of a frame, to judge and to join: one copy; moving a result is one upload."""
    network = on_device(heads=("camera", "depth", "points")).eval()
    with MetaDevice() as seen:
        session = SubmapSession(network, submaps=SubmapOptions(6, 2), policy=SlidingWindow(1, 1))
        waits, uploads = [], []
        for _ in range(10):
            seen.clear()
            prediction = session.push(image())
            waits.append(dict(seen.waits))
            uploads.append(sum(seen.uploads.values()))
    assert session.statistics().num_submaps == 3
    assert prediction.points.device.type == "meta"
    in_overlap = [False, False, False, False, True, True, False, False, True, True]
    for frame, (waited, uploaded) in enumerate(zip(waits, uploads, strict=True)):
        assert all(line.startswith("stream/submaps/observation.py") for line in waited), (frame, waited)
        assert sum(waited.values()) == 1 + in_overlap[frame], (frame, waited)
        assert uploaded == (1 if frame < 6 else 2), frame  # the image; the submap's place in the world


def criteria():
    for name in ("distill", "distill_reference", "multitask", "pointmap_reference"):
        yield name, instantiate(OmegaConf.load(CONFIG / "loss" / f"{name}.yaml"), _convert_="all")
    by_conf = {"weight_gradient_by_conf": True}
    yield (
        "distill otherwise",
        DistillLoss(
            depth=DistillMapTerm(
                1.0,
                normalization="least_squares",
                scope="view",
                gradient="slope",
                weight_by_teacher_conf=True,
                **by_conf,
            ),
            points=DistillMapTerm(1.0, normalization="per_map", gradient="normal", **by_conf),
        ),
    )
    yield (
        "multitask otherwise",
        MultiTaskLoss(
            camera=CameraTerm(5.0, pair_rotation=1.0, pair_translation=1.0, pair_direction=1.0),
            depth=SupervisedMapTerm(1.0, gradient="slope", log=True, error_quantile=0.9, **by_conf),
            points=SupervisedMapTerm(1.0, gradient="normal", error_quantile=None, **by_conf),
            track=TrackTerm(0.05, distance="l1", weight_by_teacher_conf=False, visible_only=True, iteration_decay=0.8),
        ),
    )


@pytest.mark.parametrize("name, criterion", [*criteria()], ids=lambda value: value if isinstance(value, str) else "")
def test_losses_wait_for_nothing(name, criterion):
    """Forward and backward: a wait in between leaves the device without work."""
    network = on_device()
    is_taught = name.startswith("distill")
    supervision = Teacher(on_device(VGGT)) if is_taught else GroundTruth()
    batch = Planes(num_frames=3, num_tracks=7)[0].to("meta")
    dense_frames = [0, 2] if name == "multitask" else None
    with MetaDevice() as seen:
        queries = torch.empty(1, 7, 2, device="meta") if "track" in criterion.heads else None
        prediction = network(batch.images, heads=criterion.heads, query_points=queries, dense_frames=dense_frames)
        result = criterion(prediction, supervision(batch, criterion.heads, queries, None))
        result.total.backward()
    assert set(result.terms) == set(criterion.heads)
    assert not seen.waits, dict(seen.waits)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients and {gradient.device.type for gradient in gradients} == {"meta"}


def test_the_reference_test_criterion_waits_for_nothing():
    network = on_device()
    batch = Planes(num_frames=2)[0].to("meta")
    criterion = PointmapTestPublished()
    with MetaDevice() as seen, torch.no_grad():
        criterion(network(batch.images, heads=criterion.heads), GroundTruth()(batch, criterion.heads, None, None))
    assert not seen.waits, dict(seen.waits)


def test_losses_inside_the_network_wait_for_nothing():
    network, auxiliary = on_device(), GeometryLosses(layers=(0, 1))
    with torch.device("meta"):
        auxiliary.attach(network)
    batch = Planes(num_sequences=2, num_frames=3)[0].to("meta")
    with MetaDevice() as seen:
        with auxiliary.record(network) as recorded:
            network(batch.images, heads=("camera",))
        sum(auxiliary(batch, recorded, network).values()).backward()
    assert not seen.waits, dict(seen.waits)


def test_two_devices_in_one_operation_are_noticed():
    with MetaDevice(), pytest.raises(MixedDevices):
        torch.rand(2, 3) @ torch.empty(3, 2, device="meta")

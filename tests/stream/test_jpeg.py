"""Copies of JPEG files have the same pixels and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from streamvggt.export import ResultWriter
from streamvggt.prediction import Prediction
from streamvggt.stream.frames import load_frames
from streamvggt.stream.jpeg import without_metadata

SECRET = b"48.8584 N, 2.2945 E"


def photo(**options) -> bytes:
    """A JPEG file with the secret in every place that Pillow writes."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 99, 3), np.uint8)
    exif = Image.Exif()
    exif[270] = SECRET.decode()  # image description
    file = io.BytesIO()
    secrets = {"exif": exif, "comment": SECRET, "xmp": SECRET, "icc_profile": SECRET}
    Image.fromarray(pixels).save(file, "JPEG", **{**secrets, **options})
    return file.getvalue() + SECRET  # as videos are appended to motion photos


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"restart_marker_rows": 1}, {"keep_rgb": True}],
    ids=str,
)
def test_the_copy_has_the_pixels_alone(options):
    content = photo(**options)
    assert content.count(SECRET) >= 5
    copy = without_metadata(content)
    np.testing.assert_array_equal(pixels_of(copy), pixels_of(content))
    assert SECRET not in copy and not Image.open(io.BytesIO(copy)).getexif()
    assert without_metadata(copy) == copy


def test_every_cut_and_other_files_are_refused():
    content = without_metadata(photo())
    for length in range(len(content) - 1):
        assert without_metadata(content[:length]) is None
    assert without_metadata(b"\x89PNG" + content) is None
    assert without_metadata(content.replace(b"\xff\xc0", b"\xff\xc3")) is None  # lossless


def test_results_store_the_file_of_the_camera(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    turned = Image.Exif()
    turned[274] = 6
    (source / "a.jpg").write_bytes(photo())
    (source / "b.jpg").write_bytes(photo(exif=turned))
    Image.open(io.BytesIO(photo())).convert("L").save(source / "c.jpg")
    Image.open(io.BytesIO(photo())).save(source / "d.png")
    writer = ResultWriter(tmp_path / "out")
    for frame in load_frames(source, size=56):
        height, width = frame.image.shape[1:]
        pose = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1], np.float32)[None, None]
        writer.add(frame, Prediction((height, width), pose_enc=torch.from_numpy(pose)))
        stored = (tmp_path / "out" / "images" / f"{frame.name}.jpg").read_bytes()
        assert (stored == without_metadata(photo())) == (frame.name == "a") and SECRET not in stored
        shown = np.asarray(Image.open(io.BytesIO(stored)), int)
        assert shown.shape == frame.original.shape  # upright and RGB
        assert np.abs(shown - frame.original).mean() < (1 if frame.name == "a" else 40)

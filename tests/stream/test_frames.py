"""Photos, videos and cameras arrive as the frames they show: right pixels, right order, right times, and a way back."""

import struct
import threading
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from streamvggt.stream.frames import frame_from_array, load_frames, preprocess_image
from streamvggt.stream.video import VideoSource
from streamvggt.transfer import unit_range

small = partial(load_frames, size=56)


def gray(level: int, width: int = 56, height: int = 28) -> Image.Image:
    return Image.new("RGB", (width, height), (level,) * 3)


def level(frame) -> int:
    return round(frame.original.mean())


def write_video(
    path: Path,
    *,
    num_frames: int = 12,
    rate: int = 10,
    milliseconds: list[int] | None = None,
    codec: str = "mpeg4",
    rotation: float | None = None,
) -> Path:
    """Frame k is noise about a gray of 16k + 20, its upper left quarter is brighter; `milliseconds` sets its times."""
    noise = np.random.default_rng(0)
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = 64, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(num_frames):
            pixels = np.full((32, 64, 3), 16 * number + 20) + noise.integers(-15, 16, (32, 64, 1))
            pixels[:16, :32] += 30
            picture = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            if milliseconds is not None:
                picture.pts, picture.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def number_in(frame) -> int:
    return round((frame.original[24:].mean() - 20) / 16)


def same(frames, others) -> bool:
    frames, others = list(frames), list(others)
    return len(frames) == len(others) and all(
        (a.index, a.name, a.time, a.content) == (b.index, b.name, b.time, b.content)
        and torch.equal(a.image, b.image)
        and np.array_equal(a.original_from_image, b.original_from_image)
        for a, b in zip(frames, others, strict=True)
    )


# Which files


def test_folder_is_read_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        gray(number).save(tmp_path / f"frame_{number}.PNG")
    gray(0).save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")

    frames = small(tmp_path)

    assert frames.kind == "images" and frames.num_frames == 3
    assert [(f.index, f.name, level(f), f.time) for f in frames] == [
        (0, "frame_1", 1, None),
        (1, "frame_2", 2, None),
        (2, "frame_10", 10, None),
    ]
    assert [f.name for f in frames] == ["frame_1", "frame_2", "frame_10"]  # a second time
    assert [f.name for f in small(str(tmp_path / "*_1*.PNG"))] == ["frame_1", "frame_10"]
    assert [f.name for f in small(tmp_path / "frame_2.PNG")] == ["frame_2"]
    assert frames.skipped == []


def test_list_keeps_its_order(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in (3, 1, 2)]
    for number, path in enumerate(paths):
        gray(number).save(path)
    assert [level(f) for f in small(paths)] == [0, 1, 2]


def test_names_are_unique(tmp_path):
    for name in ("a.bmp", "a.png", "a_2.png", "b.png"):
        gray(9).save(tmp_path / name)
    names = [f.name for f in small(tmp_path)]
    assert len(set(names)) == 4 and names[0] == "a" and {"a_2", "a_3", "b"} < set(names)


@pytest.mark.parametrize(
    ("stride", "max_frames", "expected"), [(1, None, [0, 1, 2, 3, 4]), (2, None, [0, 2, 4]), (3, 1, [0])]
)
def test_stride_and_max_frames_of_images(tmp_path, stride, max_frames, expected):
    for number in range(5):
        gray(number).save(tmp_path / f"{number}.png")
    frames = small(tmp_path, stride=stride, max_frames=max_frames)
    assert frames.num_frames == len(expected)
    assert [f.index for f in frames] == expected == [level(f) for f in frames]


def test_broken_images_are_skipped_and_explained(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("1.png", "4.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "2.jpg").write_text("no image at all", encoding="utf-8")
    Image.fromarray(noise).save(tmp_path / "3.jpg")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:1500])

    frames = small(tmp_path)

    assert [(f.index, f.name) for f in frames] == [(0, "1"), (3, "4")]
    assert [name for name, _ in frames.skipped] == ["2.jpg", "3.jpg"]
    assert frames.skipped[0][1] == "not an image (its content is text)" and "truncated" in frames.skipped[1][1]
    assert len(list(frames)) == 2 and len(frames.skipped) == 2  # not counted twice
    with pytest.raises(ValueError, match=r"2\.jpg: not an image"):
        list(small(tmp_path, strict=True))
    with pytest.raises(ValueError, match="none of 2 images"):
        list(small([tmp_path / "2.jpg", tmp_path / "3.jpg"]))


def test_huge_image_is_skipped(tmp_path, monkeypatch):
    gray(1).save(tmp_path / "1.png")
    gray(2, 400, 400).save(tmp_path / "2.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 56 * 56)
    frames = small(tmp_path)
    assert [f.name for f in frames] == ["1"]
    assert "too many pixels" in frames.skipped[0][1]


# Pixels


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 255, 0, 0
    upright[16:, 32:] = 0, 0, 255
    undo = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.swapaxes(0, 1),
        lambda a: np.rot90(a, 1),  # shown after a quarter turn clockwise
        lambda a: a[::-1, ::-1].swapaxes(0, 1),
        lambda a: np.rot90(a, -1),
    ][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(undo(upright)))
    image.save(tmp_path / f"a.{kind}", exif=exif)
    gray(128, 64, 16).save(tmp_path / "b.png")

    frame = next(iter(small(tmp_path)))

    assert frame.original.shape == upright.shape
    assert np.abs(frame.original.astype(int) - upright).mean() < 3  # JPEG
    assert frame.image.shape == (3, 28, 56)  # of the upright size: as wide as high it would be 56 high


def test_transparency_is_white(tmp_path):
    rgba = np.zeros((28, 56, 4), np.uint8)
    rgba[..., 0], rgba[:, 28:, 3] = 200, 255  # red, the left half transparent
    image = Image.fromarray(rgba)
    palette = Image.new("P", (56, 28), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.paste(1, (28, 0, 56, 28))
    palette.save(tmp_path / "palette.png", transparency=0)
    image.save(tmp_path / "rgba.png")
    image.convert("LA").save(tmp_path / "la.png")
    half = rgba.copy()
    half[..., 3] = 51  # one fifth
    Image.fromarray(half).save(tmp_path / "z_half.png")

    la, palette, rgba, half = small(tmp_path)

    for frame in (palette, rgba):
        assert (frame.original[:, :28] == 255).all() and (frame.original[:, 28:] == (200, 0, 0)).all()
        assert (frame.image[:, :, :14] == 1).all()
    assert (la.original[:, :28] == 255).all() and (la.original[:, 28:] == round(200 * 0.299)).all()
    assert np.abs(half.original.astype(int) - (244, 204, 204)).max() <= 1


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_pixels_of_alpha_0_are_not_valid(mode):
    alpha = np.full((61, 99), 255, np.uint8)
    alpha[:20], alpha[20:40, :40] = 0, 1
    image = gray(90, 99, 61)
    image.putalpha(Image.fromarray(alpha))

    frame = preprocess_image(image, size=56, mode=mode)

    top, left, bottom, right = frame.content
    expected = torch.zeros(frame.image.shape[1:], dtype=torch.bool)
    for y in range(top, bottom):
        for x in range(left, right):
            x0, y0, _ = np.rint(frame.original_from_image @ (x, y, 1)).astype(int)
            expected[y, x] = bool(alpha[y0, x0])
    assert frame.valid.dtype == torch.bool and torch.equal(frame.valid, expected)
    image.putalpha(1)
    assert preprocess_image(image, size=56, mode=mode).valid is None
    assert preprocess_image(gray(90), size=56).valid is None


@pytest.mark.parametrize("size", [(1, 60_000), (3, 20_000), (60_000, 1)])
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_memory_of_a_thin_image_is_bounded_by_the_output(size, mode, monkeypatch):
    sizes = []
    really_resize = Image.Image.resize

    def resize(self, size, *arguments, **options):
        sizes.append(size)
        return really_resize(self, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    frame = preprocess_image(Image.new("RGB", size, "white"), size=518, mode=mode)
    assert frame.image.shape[1] <= 518 and frame.image.shape[2] == 518 and (frame.image == 1).all()
    assert sizes and all(width <= 518 and height <= 518 for width, height in sizes)


def test_depth_maps_among_the_photos_of_a_folder_are_left_out(tmp_path):
    depth = Image.fromarray(np.full((28, 56), 1500, np.uint16))
    for number in range(2):
        gray(100).save(tmp_path / f"frame-{number}.color.png")
        depth.save(tmp_path / f"frame-{number}.depth.png")
    frames = small(tmp_path)
    assert [frame.name for frame in frames] == ["frame-0.color", "frame-1.color"]
    assert [Path(name).name for name, _ in frames.skipped] == ["frame-0.depth.png", "frame-1.depth.png"]
    assert "probably a depth map" in frames.skipped[0][1]
    with pytest.raises(ValueError, match=r"frame-0\.depth\.png: a 16-bit grayscale image"):
        small(tmp_path, strict=True)
    assert len(list(small(sorted(tmp_path.iterdir())))) == 4  # a list is taken as it is
    (tmp_path / "frame-0.color.png").unlink()  # more 16-bit images than others: photos of a monochrome camera
    assert len(list(small(tmp_path))) == 3


def test_unusual_pixels_become_rgb(tmp_path):
    wide = np.linspace(0, 65535, 56 * 28).reshape(28, 56)
    Image.fromarray(wide.astype(np.uint16)).save(tmp_path / "a16.png")
    Image.fromarray(wide.astype(np.uint16)).save(tmp_path / "b16.tif")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "c32.tif")
    Image.new("L", (56, 28), 77).save(tmp_path / "d.png")
    Image.new("1", (56, 28), 1).save(tmp_path / "e.png")
    Image.new("CMYK", (56, 28), (0, 255, 255, 0)).save(tmp_path / "f.tif")
    palette = Image.new("P", (56, 28), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "g.png")
    Image.new("F", (56, 28), 0.5).save(tmp_path / "h.tif")

    frames = small(sorted(tmp_path.iterdir()))
    a16, b16, c32, one, bit, cmyk, indexed = frames

    for frame in (a16, b16, c32):
        assert np.abs(frame.original - (wide / 257)[..., None]).max() <= 1
    assert (one.original == 77).all() and (bit.original == 255).all()
    assert (cmyk.original == (255, 0, 0)).all() and (indexed.original == (10, 20, 30)).all()
    assert frames.skipped[0][0] == "h.tif" and "floating-point" in frames.skipped[0][1]


def test_the_pixels_of_a_frame_are_its_image():
    content = np.random.default_rng(0).integers(0, 256, (37, 59, 3), np.uint8)
    frame = frame_from_array(content, size=56, mode="pad")
    assert frame.pixels.dtype == torch.uint8
    assert torch.equal(unit_range(frame.pixels), frame.image)
    assert replace(frame, image=frame.image / 2).pixels is None


def test_image_is_the_original_where_nothing_is_resized():
    pixels = np.random.default_rng(0).integers(0, 255, (28, 56, 3), dtype=np.uint8)
    frame = frame_from_array(pixels, size=56)
    assert frame.image.dtype == torch.float32
    assert np.array_equal(frame.image.numpy(), pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    assert np.array_equal(frame.original_from_image, np.eye(3))


# Sizes and the way back

# Sizes of common data sets: width, height of the photo; height, width the network gets in the published "crop" mode.
PUBLISHED = [
    (1024, 436, 224, 518),
    (640, 480, 392, 518),
    (1242, 375, 154, 518),
    (1241, 376, 154, 518),
    (1226, 370, 154, 518),
    (1224, 370, 154, 518),
    (1238, 374, 154, 518),
    (1296, 968, 392, 518),
    (480, 640, 518, 518),
    (1920, 1080, 294, 518),
    (375, 1242, 518, 518),
]


@pytest.mark.parametrize(("width", "height", "out_height", "out_width"), PUBLISHED)
def test_crop_has_the_published_size(width, height, out_height, out_width):
    frame = preprocess_image(gray(9, width, height))
    assert frame.image.shape == (3, out_height, out_width)
    assert frame.content == (0, 0, out_height, out_width)


@pytest.mark.parametrize(
    ("width", "height", "content"),
    [(640, 480, (63, 0, 455, 518)), (480, 640, (0, 63, 518, 455)), (1920, 1080, (112, 0, 406, 518))],
)
def test_pad_fills_a_square_with_white(width, height, content):
    frame = preprocess_image(gray(0, width, height), mode="pad")
    top, left, bottom, right = content
    assert frame.image.shape == (3, 518, 518) and frame.content == content
    assert (frame.image[:, top:bottom, left:right] == 0).all()
    assert frame.image.sum() == 3 * (518 * 518 - (bottom - top) * (right - left))


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_a_thin_strip_is_one_patch_high(mode):
    frame = preprocess_image(gray(0, 1000, 3), mode=mode)
    top, _, bottom, _ = frame.content
    assert bottom - top == 14


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize(
    ("width", "height", "x", "y"), [(900, 601, 123, 456), (601, 900, 321, 300), (300, 1000, 150, 470)]
)
def test_pixels_map_back_to_the_original(tmp_path, mode, width, height, x, y):
    pixels = np.full((height, width, 3), 51, np.uint8)
    pixels[y - 6 : y + 7, x - 6 : x + 7] = 204  # centered on (x, y); the resize overshoots, with room on both sides
    Image.fromarray(pixels).save(tmp_path / "1.png")
    gray(0, 500, 500).save(tmp_path / "2.png")  # of another shape: the first is padded in some of the cases

    frame, square = load_frames(tmp_path, mode=mode)

    assert frame.image.shape == square.image.shape
    top, left, bottom, right = frame.content
    dot = frame.image[0, top:bottom, left:right].double() - 0.2
    xs, ys = torch.arange(left, right).double(), torch.arange(top, bottom).double()
    centroid = [(dot.sum(0) @ xs) / dot.sum(), (dot.sum(1) @ ys) / dot.sum(), 1.0]
    # Pixel corners taken for centers would show as 0.07 or more; what remains is the rounding to 8 bit.
    assert np.abs(frame.original_from_image @ centroid - (x, y, 1)).max() < 0.03


def test_images_of_different_size_share_a_canvas(tmp_path):
    gray(0, 100, 50).save(tmp_path / "1.png")
    gray(0, 100, 80).save(tmp_path / "2.png")
    (tmp_path / "3.jpg").write_text("broken", encoding="utf-8")
    wide, high = load_frames(tmp_path, size=140)
    assert wide.image.shape == high.image.shape == (3, 112, 140)
    assert wide.content == (21, 0, 91, 140) and high.content == (0, 0, 112, 140)
    assert (wide.image[:, 21:91] == 0).all() and (wide.image[:, :21] == 1).all() and (wide.image[:, 91:] == 1).all()


# Beginning later


@pytest.mark.parametrize("choice", [{}, {"stride": 2}, {"stride": 2, "max_frames": 3}])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 99])
def test_images_resume_as_if_never_stopped(tmp_path, choice, start):
    for number in range(7):
        gray(number, 56, 28 + 14 * (number == 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_text("broken", encoding="utf-8")
    frames = small(tmp_path, **choice)
    rest = [f for f in frames if f.index >= start]
    later = frames.from_index(start)
    assert same(later, rest)
    assert later.num_frames == len(rest) + len(later.skipped)
    assert len(frames.skipped) == 1


@pytest.mark.parametrize("choice", [{}, {"fps": 4}, {"stride": 3}, {"stride": 2, "max_frames": 4}])
@pytest.mark.parametrize("start", [0, 1, 5, 6, 99])
def test_video_resumes_as_if_never_stopped(tmp_path, choice, start):
    frames = small(write_video(tmp_path / "a.mp4"), **choice)
    assert frames.num_frames == len(list(frames))
    rest = [f for f in frames if f.index >= start]
    assert same(frames.from_index(start), rest)
    assert frames.from_index(start).num_frames == len(rest)


# Videos


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264")],
)
def test_video_frames_have_their_numbers_and_times(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    frames = small(write_video(tmp_path / name, codec=codec))
    assert frames.kind == "video" and frames.num_frames == 12
    for number, frame in enumerate(frames):
        assert (frame.index, frame.name, number_in(frame)) == (number, f"frame_{number:06d}", number)
        assert frame.time == pytest.approx(number / 10, abs=1e-9)
    assert number == 11 and frames.skipped == []


def test_times_are_made_up_where_the_video_has_none(tmp_path):
    path = tmp_path / "a.m4v"  # a bare stream of pictures
    with av.open(str(write_video(tmp_path / "a.mp4"))) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
        path.write_bytes(container.streams.video[0].codec_context.extradata + b"".join(packets))
    frames = list(small(path))
    assert [number_in(f) for f in frames] == list(range(12))
    steps = np.diff([f.time for f in frames])
    assert frames[0].time == 0 and steps.min() > 0 and np.ptp(steps) < 1e-9


def test_times_go_forward(tmp_path):
    if "libx264" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libx264")
    # AVI knows no order of display: FFmpeg's times of H.264 in it run 1, 3, 2, 4 …
    times = [f.time for f in small(write_video(tmp_path / "a.avi", codec="libx264"))]
    assert len(times) == 12 and np.diff(times).min() > 0


def test_fps_uses_the_times_of_the_frames(tmp_path):
    # from the first frame:  0   40   90  100  110  350  500  590  610   650
    milliseconds = [500, 540, 590, 600, 610, 850, 1000, 1090, 1110, 1150]
    frames = small(write_video(tmp_path / "a.mkv", num_frames=10, milliseconds=milliseconds), fps=10)
    chosen = [(f.index, number_in(f), round(f.time * 1000)) for f in frames]
    assert chosen == [(0, 0, 0), (3, 3, 100), (5, 5, 350), (6, 6, 500), (8, 8, 610)]


def test_fps_of_the_video_itself_takes_every_frame(tmp_path):
    # Matroska stores 33, 67, 100 ms … of a film at 30 frames per second: some frames seem to come before their tick.
    path = write_video(tmp_path / "a.mkv", rate=30)
    assert [f.index for f in small(path, fps=30)] == list(range(12))
    assert [f.index for f in small(path, fps=15)] == list(range(0, 12, 2))
    assert [f.index for f in small(path, fps=60)] == list(range(12))


def test_stride_and_max_frames_of_video(tmp_path):
    frames = small(write_video(tmp_path / "a.mp4"), stride=5, max_frames=2)
    assert frames.num_frames == 2
    assert [number_in(f) for f in frames] == [0, 5]


@pytest.mark.parametrize(("matrix", "corner"), [("90", "top right"), ("-90", "bottom left"), ("mirror", "top right")])
def test_video_is_turned_upright(tmp_path, matrix, corner):
    path = write_video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    one = 1 << 16  # the display matrix of MP4 stands 40 bytes into the track header
    values = {
        "90": (0, one, 0, -one, 0, 0, 0, 0, 1 << 30),
        "-90": (0, -one, 0, one, 0, 0, 0, 0, 1 << 30),
        "mirror": (-one, 0, 0, 0, one, 0, 0, 0, 1 << 30),
    }
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *values[matrix])
    path.write_bytes(data)

    original = next(iter(small(path))).original.mean(-1)

    height, width = original.shape
    assert (height, width) == ((32, 64) if matrix == "mirror" else (64, 32))
    quarters = {
        "top left": original[: height // 2, : width // 2],
        "top right": original[: height // 2, width // 2 :],
        "bottom left": original[height // 2 :, : width // 2],
        "bottom right": original[height // 2 :, width // 2 :],
    }
    assert max(quarters, key=lambda name: quarters[name].mean()) == corner


def test_encoded_rotation_is_counterclockwise(tmp_path):
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    original = next(iter(small(write_video(tmp_path / "a.mp4", rotation=90)))).original.mean(-1)
    assert original.shape == (64, 32)
    assert original[32:, :16].mean() > original[:32, :16].mean() + 20  # the upper left quarter is now lower left


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.mp4", "libx264"), ("a.avi", "mjpeg")]
)
def test_a_cut_video_gives_its_readable_frames_with_a_warning(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write_video(tmp_path / name, codec=codec)
    whole = list(small(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])

    frames = small(path)
    left = list(frames)

    assert 0 < len(left) < 12 and same(left, whole[: len(left)])
    ((skipped_name, reason),) = frames.skipped
    assert skipped_name == name and "cut short" in reason
    if name == "a.mp4":
        assert f"{12 - len(left)} of 12 frames" in reason
    with pytest.raises(ValueError, match="cut short"):
        list(small(path, strict=True))


def test_damaged_image_is_skipped(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    whole = list(small(path))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux() if packet.size][6]
    data = bytearray(path.read_bytes())
    data[packet.pos + packet.size // 2 : packet.pos + packet.size - 8] = bytes(packet.size - packet.size // 2 - 8)
    path.write_bytes(data)

    frames = small(path)
    left = list(frames)

    assert same(left[:6], whole[:6]) and [f.time for f in left] == [f.time for f in whole if f.index != 6]
    assert frames.skipped == [("a.mp4", "damaged or cut short: 1 of 12 frames could not be decoded")]


def test_video_without_a_single_frame_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(ValueError, match="not a single frame"):
        list(small(path))


def test_frames_of_another_size_are_laid_on_the_canvas_of_the_first(webcam):
    webcam([np.zeros((48, 96, 3), np.uint8), np.zeros((96, 48, 3), np.uint8), np.zeros((24, 96, 3), np.uint8)])
    wide, high, flat = small(0)
    assert [frame.image.shape for frame in (wide, high, flat)] == [(3, 28, 56)] * 3
    assert [frame.content for frame in (wide, high, flat)] == [(0, 0, 28, 56), (0, 0, 28, 56), (7, 0, 21, 56)]
    assert [frame.original.shape[:2] for frame in (wide, high, flat)] == [(48, 96), (96, 48), (24, 96)]


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.flv"])
def test_a_video_that_starts_late_is_whole(tmp_path, name):
    codec = "flv1" if name == "a.flv" else "mpeg4"
    path = write_video(tmp_path / name, milliseconds=[5000 + 100 * k for k in range(12)], codec=codec)
    frames = small(path, strict=True)
    assert [f.time for f in frames] == pytest.approx([k / 10 for k in range(12)], abs=2e-3)
    assert frames.skipped == []


@pytest.mark.parametrize(("aspect", "size"), [((4, 3), (32, 85)), ((1, 2), (64, 64)), ((1, 1000), (32, 64))])
def test_pixels_that_are_not_square_are_stretched(tmp_path, monkeypatch, aspect, size):
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(VideoSource, "_pixel_aspect", property(lambda self: Fraction(*aspect), lambda *_: None), False)
    assert next(iter(small(path))).original.shape[:2] == size


def test_abandoned_video_is_closed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    opened = []
    really_open = av.open

    def open_and_remember(*args, **kwargs):
        opened.append(really_open(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(av, "open", open_and_remember)
    frames = iter(small(path))
    next(frames)
    frames.close()
    assert len(opened) == 2  # at the door, and for the frames
    for container in opened:
        with pytest.raises(AssertionError, match="not open"):
            next(container.demux())


# Addresses and cameras


@pytest.fixture
def address(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_video_over_http(tmp_path, address):
    path = write_video(tmp_path / "a.mp4")
    frames = small(f"{address}/a.mp4", stride=2)
    assert frames.kind == "video" and frames.num_frames == 6
    assert same(frames, small(path, stride=2))
    assert same(small(f"{address.replace('http', 'HTTP')}/a.mp4", stride=2), frames)


def test_what_http_cannot_give_is_reported(tmp_path, address):
    (tmp_path / "page.html").write_text("<html>hello</html>", encoding="utf-8")
    with pytest.raises(ConnectionError, match=r"missing\.mp4: .*404"):
        load_frames(f"{address}/missing.mp4")
    with pytest.raises(ValueError, match=r"page\.html is neither"):
        load_frames(f"{address}/page.html")
    with pytest.raises(ConnectionError, match="refused") as error:
        load_frames("rtsp://me:secret@127.0.0.1:9/stream")
    assert "secret" not in str(error.value)


@pytest.fixture
def webcam(monkeypatch):
    """Plugs in a camera that takes a picture every 0.1 s."""
    clock = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 10)
    cameras = []

    def plug_in(pictures):
        class Camera:
            def __init__(self, number):
                self.is_released, self.pictures = False, iter(pictures)
                self.is_there = number == 0
                cameras.append(self)

            def isOpened(self):
                return self.is_there

            def read(self):
                picture = next(self.pictures, None)
                return picture is not None, picture

            def release(self):
                self.is_released = True

        monkeypatch.setattr(cv2, "VideoCapture", Camera)
        return cameras

    return plug_in


def test_webcam(webcam):
    pictures = [np.full((32, 64, 3), (10 * number, 0, 200), np.uint8) for number in range(8)]  # BGR
    cameras = webcam(pictures)

    frames = list(small("0"))

    assert [(f.index, f.name) for f in frames] == [(number, f"frame_{number:06d}") for number in range(8)]
    assert (frames[3].original == (200, 0, 30)).all()
    assert [f.time for f in frames] == pytest.approx([number / 10 for number in range(8)])
    assert [f.index for f in small(0, fps=4)] == [0, 3, 5]  # 0, 0.3, 0.5 s for the ticks 0, 0.25, 0.5
    limited = small(0, stride=2, max_frames=2)
    assert limited.kind == "live" and limited.num_frames == 2 and small(0).num_frames is None
    assert [f.index for f in limited] == [0, 2]
    assert all(camera.is_released for camera in cameras)


def test_missing_webcam(webcam):
    webcam([])
    with pytest.raises(ConnectionError, match="No webcam 7"):
        load_frames(7)
    with pytest.raises(ConnectionError, match="gave no picture"):
        list(load_frames(0))
    with pytest.raises(ValueError, match="live"):
        load_frames(0).from_index(3)


# At the door


def test_brackets_of_a_folder_are_plain_characters(tmp_path):
    folder = tmp_path / "clip [1]"
    folder.mkdir()
    for number in (1, 2):
        gray(number).save(folder / f"{number}.jpg")
    assert [f.name for f in small(str(folder / "*.jpg"))] == ["1", "2"]
    assert [f.name for f in small(str(folder / "[2].jpg"))] == ["2"]


def test_a_recursive_pattern_follows_links_and_ends_at_loops(tmp_path):
    for number, folder in enumerate(
        (tmp_path, tmp_path / "a" / "b", tmp_path / ".hidden", tmp_path.with_name("other"))
    ):
        folder.mkdir(parents=True, exist_ok=True)
        gray(number).save(folder / f"{number}.png")
    (tmp_path / "linked").symlink_to(tmp_path.with_name("other"))
    for number in range(3):
        (tmp_path / "a" / f"up{number}").symlink_to("..")
    for pattern in ("**/*.png", "**", "**/**/*.png"):
        assert sorted(frame.name for frame in small(str(tmp_path / pattern))) == ["0", "1", "3"]
    assert [frame.name for frame in small(str(tmp_path / "*/**/1.png"))] == ["1"]


def test_file_address_is_a_path(tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    gray(1).save(folder / "1.jpg")
    assert [f.name for f in small(folder.as_uri())] == ["1"]
    assert [f.name for f in small((folder / "1.jpg").as_uri())] == ["1"]


@pytest.mark.parametrize(
    "content", [b"a.jpg\nb.jpg\n", b"%PDF-1.7\n" + bytes(500), b"#EXTM3U\n", b"ffconcat version 1.0\n"]
)
@pytest.mark.parametrize("name", ["list.txt", "list.mp4", "list.jpg"])
def test_only_containers_go_to_ffmpeg(tmp_path, monkeypatch, content, name):
    monkeypatch.setattr(av, "open", None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is neither a video nor an image"):
        load_frames(tmp_path / name)


def test_text_from_an_address_is_no_video(tmp_path, address):
    (tmp_path / "list.txt").write_text("a.jpg\n" * 100, encoding="utf-8")
    with pytest.raises(ValueError, match="neither a video"):
        list(small(f"{address}/list.txt"))


@pytest.mark.parametrize("number", ["9" * 30, 100, -1])
def test_a_number_beyond_all_webcams(number):
    with pytest.raises(ValueError, match="expected a number from 0 to 99"):
        load_frames(number)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder, image, video"):
        load_frames(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="matches"):
        load_frames(str(tmp_path / "*.jpg"))
    with pytest.raises(FileNotFoundError, match=r"1 of 1 .* a\.png"):
        load_frames([tmp_path / "a.png"])
    with pytest.raises(ValueError, match="empty"):
        load_frames([])


def test_nothing_to_read(tmp_path):
    (tmp_path / "text.mp4").write_text("no video\n" * 100, encoding="utf-8")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "photo.heic").touch()
    for name, message in [("text.mp4", "neither a video"), ("empty.mp4", "neither a video"), ("photo.heic", "empty")]:
        with pytest.raises(ValueError, match=message):
            load_frames(tmp_path / name)
    with pytest.raises(ValueError, match=r"list must hold image files.*text\.mp4"):
        load_frames([tmp_path / "text.mp4"])
    with pytest.raises(ValueError, match=r"No image .* matches .*text\.mp4"):
        load_frames(str(tmp_path / "t*"))


def test_a_folder_without_images_is_described(tmp_path):
    with pytest.raises(ValueError, match=r"No images \(.*jpg.*\) in folder"):
        load_frames(tmp_path)
    (tmp_path / "a.npz").touch()
    with pytest.raises(ValueError, match=r"1 \.npz"):
        load_frames(tmp_path)
    (tmp_path / "walk.mp4").touch()
    with pytest.raises(ValueError, match=r"videos, .*walk\.mp4"):
        load_frames(tmp_path)
    (tmp_path / "rgb").mkdir()
    gray(1).save(tmp_path / "rgb" / "1.png")
    with pytest.raises(ValueError, match=r"subfolders .* rgb"):
        load_frames(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"size": 520}, "multiple of the patch size 14; got 520, the nearest is 518"),
        ({"size": 0}, "the nearest is 14"),
        ({"mode": "stretch"}, "mode must be one of"),
        ({"fps": 0}, "fps must be"),
        ({"fps": float("nan")}, "fps must be"),
        ({"fps": 2, "stride": 2}, "only one"),
        ({"fps": 2}, "Use stride"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    gray(1).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=message):
        load_frames(tmp_path, **arguments)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((28, 56)),
        np.zeros((28, 56, 3), np.float32),
        np.zeros((28, 56), np.uint8),
        np.zeros((3, 28, 56), np.uint8),
        np.zeros((0, 56, 3), np.uint8),
        torch.zeros(28, 56, 3, dtype=torch.uint8),
    ],
)
def test_array_of_another_kind_is_an_error(array):
    with pytest.raises(ValueError, match="an image must"):
        frame_from_array(array, size=56)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("size", [(640, 361), (300, 500), (100, 50), (2, 900)])
def test_the_fast_resize_differs_by_rounding_alone(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    exact, fast = (frame_from_array(pixels, size=140, mode=mode, fast_resize=fast) for fast in (False, True))
    assert fast.content == exact.content and fast.image.dtype == exact.image.dtype
    difference = (fast.image - exact.image).abs() * 255
    assert difference.max() < 1.01 and (difference > 0.5).float().mean() < 0.02

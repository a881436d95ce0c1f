"""Images are known by their content, every picture of the scene counts, and pixels have their usual brightness."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from streamvggt.file_kinds import unreadable_image
from streamvggt.image_files import MAX_SIDE, exif_rgb, get_pages, image_format, open_image
from streamvggt.stream.frames import load_frames

RAMP = np.linspace(0, 1, 28 * 56 * 3).reshape(28, 56, 3)


def grays(*levels: int, size: tuple[int, int] = (56, 28)) -> list[Image.Image]:
    return [Image.new("RGB", size, (level,) * 3) for level in levels]


def get_frames(path, **options):
    frames = load_frames(path, size=56, **options)
    return list(frames), frames


def levels(frames) -> list[int]:
    return [10 * round(frame.original.mean() / 10) for frame in frames]


@pytest.mark.parametrize("suffix", [".heic", ".HIF", ".heis", ".jpg", ".dat", ""])
def test_heic_is_read_whatever_its_suffix(tmp_path, suffix):
    grays(100)[0].save(tmp_path / "0.jpg")
    grays(200)[0].save(tmp_path / f"1{suffix}", "HEIF")
    frames, source = get_frames(tmp_path, strict=True)
    assert levels(frames) == [100, 200] and source.skipped == []
    assert levels(get_frames(tmp_path / f"1{suffix}")[0]) == [200]


def quarters() -> Image.Image:
    """Red and green above blue and black."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32, 0] = pixels[:16, 32:, 1] = pixels[16:, :32, 2] = 255
    return Image.fromarray(pixels)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as Pillow turns a PNG with that orientation."""
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif_with(orientation))
    return ImageOps.exif_transpose(Image.open(file))


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def check_upright(path, truth: Image.Image) -> None:
    with open_image(path) as image:
        assert get_pages(image) == {0: truth.size}
        upright = exif_rgb(image)
    assert upright.size == truth.size
    assert np.abs(np.asarray(upright).astype(int) - np.asarray(truth)).mean() < 12


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "avif", "heic"])
def test_images_are_turned_once(tmp_path, kind):
    """HEIC and AVIF as phones write them: turned by the container (irot, imir), and the same said by EXIF."""
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.{kind}"
        quarters().save(path, exif=exif_with(orientation).tobytes())
        if kind == "heic" and orientation != 1:
            assert b"irot" in path.read_bytes() or b"imir" in path.read_bytes()
        check_upright(path, turned(quarters(), orientation))


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_alone_does_not_turn_heic(tmp_path, orientation):
    """The container decides (ISO/IEC 23008-12), as in viewers."""
    quarters().save(tmp_path / "a.heic", exif=exif_with(orientation))
    assert b"irot" not in (tmp_path / "a.heic").read_bytes()
    check_upright(tmp_path / "a.heic", quarters())


@pytest.mark.parametrize("name", ["a.CR2", "a.dng", "a.jxl", "a.psd", "a.exr"])
def test_an_image_that_is_not_read_is_named(tmp_path, name):
    grays(100)[0].save(tmp_path / "b.jpg")
    (tmp_path / name).write_bytes(b"II*\0" + bytes(100))
    frames, source = get_frames(tmp_path)
    assert levels(frames) == [100] and [skipped for skipped, _ in source.skipped] == [name]
    with pytest.raises(ValueError, match=name):
        load_frames(tmp_path, strict=True)
    with pytest.raises(ValueError, match=f"{name}: .*convert"):
        load_frames(tmp_path / name)


def test_a_thumbnail_of_a_raw_image_is_no_photo(tmp_path):
    grays(100)[0].save(tmp_path / "a.tif", tiffinfo={50706: b"\x01\x04\x00\x00"})
    grays(100)[0].save(tmp_path / "b.png")
    frames, source = get_frames(tmp_path)
    assert [frame.name for frame in frames] == ["b"] and "RAW" in source.skipped[0][1]


def test_images_of_a_file_that_cannot_be_reached_are_reported(tmp_path):
    """Pillow does not find the last picture of the MPO files that it writes."""
    first, *others = grays(50, 100, 150, 200)
    first.save(tmp_path / "b.mpo", save_all=True, append_images=others)
    frames, source = get_frames(tmp_path)
    assert levels(frames) == [50, 100, 150]
    assert [name for name, _ in source.skipped] == ["b.mpo, picture 4"]


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif", "tif", "heic"])
def test_all_images_of_a_file_are_frames(tmp_path, kind):
    first, *others = grays(50, 100, 150, 200)
    options = {"duration": 100} if kind in ("gif", "webp", "png", "avif") else {}
    first.save(tmp_path / f"b.{kind}", save_all=True, append_images=others, **options)
    grays(20)[0].save(tmp_path / "b_0001.png")

    frames, source = get_frames(tmp_path)

    assert sorted(levels(frames)) == [20, 50, 100, 150, 200] and source.num_frames == 5
    assert len({frame.name for frame in frames}) == 5 and "b_0001" in [f.name for f in frames if levels([f]) == [20]]
    rest = list(source.from_index(3))
    assert [(f.index, f.name) for f in rest] == [(f.index, f.name) for f in frames[3:]]
    assert levels(get_frames(tmp_path / f"b.{kind}", stride=2)[0]) == [50, 150]
    assert levels(get_frames(tmp_path / f"b.{kind}", max_frames=2)[0]) == [50, 100]


def test_thumbnails_masks_and_previews_are_no_frames(tmp_path):
    main, small = grays(50)[0], grays(100, size=(28, 14))[0]
    main.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[small])
    thumbnail = small.copy()
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    main.save(tmp_path / "b.tif", save_all=True, append_images=[thumbnail])
    assert levels(get_frames(tmp_path)[0]) == [50, 50]


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_images_have_their_usual_brightness(tmp_path, bits, kind):
    values = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"color.{kind}"), values[..., ::-1])
    cv2.imwrite(str(tmp_path / f"gray.{kind}"), values[..., 0])
    cv2.imwrite(
        str(tmp_path / f"sheer.{kind}"), np.dstack([values[..., ::-1], np.full((28, 56), 2**bits - 1, np.uint16)])
    )
    frames, _ = get_frames(sorted(tmp_path.iterdir()))
    color, gray, sheer = (frame.original.astype(int) for frame in frames)
    assert np.abs(color - 255 * RAMP).max() <= 1 and np.abs(sheer - 255 * RAMP).max() <= 1
    assert np.abs(gray - 255 * RAMP[..., :1]).max() <= 1


def test_a_dark_image_among_bright_ones_stays_dark(tmp_path):
    for number, brightest in enumerate((4000, 16000, 900)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.rint(RAMP[..., 0] * brightest).astype(np.uint16))
    frames, source = get_frames(tmp_path)
    assert [frame.original.max() for frame in frames] == [62, 249, 14]
    assert [frame.original.max() for frame in source.from_index(2)] == [14]


def test_postscript_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    buffer = io.BytesIO()
    grays(100)[0].save(buffer, "EPS")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    grays(100)[0].save(tmp_path / "b.jpg")
    assert image_format(tmp_path / "a.jpg") is None
    assert unreadable_image(tmp_path / "b.jpg") is None
    _, source = get_frames(tmp_path)
    assert source.skipped == [("a.jpg", "not an image (it is a PostScript file, which cannot be read)")]


def test_an_image_too_wide_for_a_result_is_skipped(tmp_path):
    Image.new("L", (100_000, 2)).save(tmp_path / "a.png")
    grays(100)[0].save(tmp_path / "b.png")
    frames, source = get_frames(tmp_path)
    assert [frame.name for frame in frames] == ["b"]
    assert f"expected sides up to {MAX_SIDE} pixels, got 100000×2" in source.skipped[0][1]


def test_names_of_any_bytes_and_length_become_names_of_outputs(tmp_path):
    grays(10)[0].save(tmp_path / f"{'a' * 240}.png")
    try:
        grays(20)[0].save(str(tmp_path).encode() + b"/b\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    names = [frame.name for frame in get_frames(tmp_path)[0]]
    assert names == ["a" * 200, "b_"]


def test_an_error_without_words_is_named(tmp_path, monkeypatch):
    grays(10)[0].save(tmp_path / "a.png")

    def fail(*_, **__):
        raise OSError

    monkeypatch.setattr("streamvggt.stream.images.preprocess_image", fail)
    with pytest.raises(ValueError, match=r"\(OSError\)"):
        get_frames(tmp_path)


def test_after_a_damaged_image_of_an_animation_no_more_are_decoded(tmp_path):
    """Pillow would decode the next picture on top of one whose size it had refused."""
    grays(20)[0].save(tmp_path / "a.png")
    first, *others = grays(50, 100, 150)
    first.save(tmp_path / "b.gif", save_all=True, append_images=others, duration=100)
    content = bytearray((tmp_path / "b.gif").read_bytes())
    second = content.index(b"\x2c", content.index(b"\x2c") + 1)  # image separators
    content[second + 5 : second + 9] = b"\xff\xff\xff\xff"  # width and height of the second picture
    (tmp_path / "b.gif").write_bytes(content)
    frames, source = get_frames(tmp_path)
    assert levels(frames) == [20, 50]
    assert [name for name, _ in source.skipped] == ["b.gif, picture 2", "b.gif, picture 3"]
    assert all("too many pixels" in reason for _, reason in source.skipped)


@pytest.mark.parametrize("name", ["a.ppm", "a.pgm", "a.pbm", "a.mjpg", "a.MJPEG", "b.pnm"])
def test_images_joined_end_to_end_are_reported(tmp_path, name):
    mode = {".pgm": "L", ".pbm": "1"}.get(name[1:], "RGB")
    file = io.BytesIO()
    grays(100)[0].convert(mode).save(file, "JPEG" if "J" in name.upper() else "PPM")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / name).write_bytes(file.getvalue())
    (tmp_path / "several").mkdir()
    (tmp_path / "several" / name).write_bytes(3 * file.getvalue())
    assert get_frames(tmp_path / "one", strict=True)[1].skipped == []
    for source in (tmp_path / "several", tmp_path / "several" / name):
        frames, found = get_frames(source)
        assert len(frames) == 1 and [skipped for skipped, _ in found.skipped] == [name]
        assert "only the first is read" in found.skipped[0][1]
        with pytest.raises(ValueError, match="only the first"):
            load_frames(source, strict=True)


def test_a_link_to_nothing_and_a_pipe_are_reported(tmp_path):
    grays(100)[0].save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "c.png")
    (tmp_path / "d.png").mkdir()
    frames, source = get_frames(tmp_path)
    assert levels(frames) == [100] and [name for name, _ in source.skipped] == ["b.png", "c.png"]
    with pytest.raises(ValueError, match=r"b\.png: a link to a missing file"):
        load_frames(tmp_path, strict=True)


def test_sound_is_not_taken_for_text(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(600))
    with pytest.raises(ValueError, match="its format is not supported"):
        load_frames(tmp_path / "a.wav")

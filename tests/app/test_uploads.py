"""What comes in is what it says it is, or stays out; reasons are in words."""

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from browser import ROOT
from PIL import Image

from streamvggt.app.uploads import UploadLimits, take_uploads, unpack
from streamvggt.stream.frames import load_frames

CLIP = ROOT / "assets" / "clip.mp4"


def zip_of(path: Path, files: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def jpeg(color: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


def test_photos_are_in_natural_order_of_their_names(photos, tmp_path):
    renamed = photos[0].with_suffix(".txt")
    photos[0].rename(renamed)
    upload = take_uploads([photos[2], renamed, photos[1]], tmp_path / "in")
    assert upload.kind == "images"
    names = [path.name for path in sorted(upload.path.iterdir())]
    assert names == ["0000_IMG_1.jpg", "0001_IMG_2.png", "0002_IMG_10.webp"]
    assert len(list(load_frames(upload.path, size=56))) == 3


def test_a_video_is_detected_by_its_content(tmp_path):
    disguised = tmp_path / "my holiday; rm -rf.jpg"
    disguised.write_bytes(CLIP.read_bytes())
    upload = take_uploads([disguised], tmp_path / "in")
    assert (upload.kind, upload.path.name) == ("video", "my_holiday_rm_-rf.mp4")


def test_only_the_photos_of_a_zip_are_unpacked(tmp_path):
    files = {"trip/b10.jpg": jpeg(), "trip/b9.jpg": jpeg(), "trip/notes.txt": b"hello", "__MACOSX/trip/._b9.jpg": b"x"}
    upload = take_uploads([zip_of(tmp_path / "a.zip", files)], tmp_path / "in")
    assert [path.name for path in sorted(upload.path.iterdir())] == ["0000_b9.jpg", "0001_b10.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "in"]


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"just some words, not a film", "holiday.mp4", "its content is text"),
        (b"", "empty.jpg", "it is empty"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(500), "IMG_1.HEIC", "damaged HEIC"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "list.mp4", "its content is text"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "concat.mkv", "its content is text"),
        (b"\x7fELF\xff\xfe" + bytes(500), "program", "its format is not supported"),
        (b"\x1a\x45\xdf\xa3" + b"\x80\xff" * 300, "cut.mkv", "damaged or cut short"),
    ],
)
def test_other_files_are_rejected_with_the_reason(tmp_path, content, name, why):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        take_uploads([path], tmp_path / "in")


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:/evil.jpg"])
def test_paths_outside_of_a_zip_are_rejected(tmp_path, name):
    archive = zip_of(tmp_path / "a.zip", {"ok.jpg": jpeg(), name: jpeg()})
    with pytest.raises(ValueError, match="unsafe path"):
        take_uploads([archive], tmp_path / "in" / "deep")
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_a_zip_are_rejected(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="unsafe path"):
        take_uploads([tmp_path / "a.zip"], tmp_path / "in")


def test_a_zip_with_a_large_declared_size_is_rejected(tmp_path):
    bomb = zip_of(tmp_path / "bomb.zip", {"zeros.jpg": bytes(30_000_000)})
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ValueError, match="unpacks to too much"):
        take_uploads([bomb], tmp_path / "in", UploadLimits(total_bytes=20_000_000))


def test_a_zip_that_unpacks_to_more_than_declared_is_rejected(tmp_path):
    """Both headers say 10 bytes; the data would go on for 3 MB."""
    bomb = zip_of(tmp_path / "bomb.zip", {"zeros.jpg": bytes(3_000_000)})
    content = bomb.read_bytes()
    assert content.count(struct.pack("<I", 3_000_000)) == 2
    bomb.write_bytes(content.replace(struct.pack("<I", 3_000_000), struct.pack("<I", 10)))
    with pytest.raises(ValueError, match=r"damaged|no photos"):
        unpack(bomb, tmp_path / "out", UploadLimits(total_bytes=1_000_000), [])
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1_000_000


def test_a_photo_of_too_many_pixels_is_rejected_by_its_header(tmp_path):
    """A PNG that announces 60,000 × 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(ValueError, match="too many pixels"):
        take_uploads([path], tmp_path / "in")


def test_photos_of_phones_are_accepted(tmp_path):
    Image.new("L", (8192, 6144)).save(tmp_path / "large.png")
    Image.new("RGB", (32, 24)).save(tmp_path / "IMG_1.HEIC")
    upload = take_uploads([tmp_path / "large.png", tmp_path / "IMG_1.HEIC"], tmp_path / "in")
    assert [path.name for path in sorted(upload.path.iterdir())] == ["0000_IMG_1.heic", "0001_large.png"]


def test_photos_are_ordered_by_the_times_in_their_names(tmp_path):
    files = {f"rgb/{time}.jpg": jpeg() for time in ("470.2", "470.02098", "469.98765")}
    upload = take_uploads([zip_of(tmp_path / "a.zip", files)], tmp_path / "in")
    assert [p.name for p in sorted(upload.path.iterdir())] == [
        "0000_469_98765.jpg",
        "0001_470_02098.jpg",
        "0002_470_2.jpg",
    ]


def test_unreadable_images_of_a_zip_are_named(tmp_path):
    files = {"a.jpg": jpeg(), "b.CR2": b"II*\0" + bytes(99), "c.png": b"no image", "notes.txt": b"hello"}
    upload = take_uploads([zip_of(tmp_path / "a.zip", files)], tmp_path / "in")
    assert len(list(upload.path.iterdir())) == 1
    assert [text.split(":")[0] for text in upload.left_out] == ["b.CR2", "c.png"]


def test_limits_of_size_and_number(photos, tmp_path):
    with pytest.raises(ValueError, match="3 photos are too many: at most 2"):
        take_uploads(photos, tmp_path / "a", UploadLimits(num_photos=2))
    with pytest.raises(ValueError, match="too much: all files together may have 0 MB"):
        take_uploads(photos, tmp_path / "b", UploadLimits(total_bytes=100))
    with pytest.raises(ValueError, match="too many pixels"):
        take_uploads([CLIP], tmp_path / "c", UploadLimits(pixels=1000))
    with pytest.raises(ValueError, match="Nothing was uploaded"):
        take_uploads([], tmp_path / "d")


def test_photos_and_videos_together_are_rejected(photos, tmp_path):
    for number, mixed in enumerate(([photos[0], CLIP], [CLIP, CLIP])):
        with pytest.raises(ValueError, match="photos or one video"):
            take_uploads(mixed, tmp_path / f"in{number}")


def test_a_zip_of_absurdly_many_entries_is_rejected_before_it_is_listed(tmp_path, monkeypatch):
    archive = tmp_path / "many.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for number in range(3000):
            content.writestr(f"{number}.jpg", b"")
    few = archive.read_bytes()
    end = few.rindex(b"PK\x05\x06")
    (tmp_path / "lies.zip").write_bytes(few[: end + 8] + struct.pack("<HH", 1, 1) + few[end + 12 :])
    (tmp_path / "names.zip").write_bytes(few[: end + 12] + struct.pack("<I", 3_000_000) + few[end + 16 :])
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: pytest.fail("it was listed"))
    with pytest.raises(ValueError, match=r"many.zip: expected at most 2000 entries, got 3000"):
        unpack(archive, tmp_path / "out", UploadLimits(), [])
    with pytest.raises(ValueError, match=r"names.zip: expected at most"):
        unpack(tmp_path / "names.zip", tmp_path / "out", UploadLimits(), [])
    with pytest.raises(ValueError, match=r"lies.zip: expected at most 100 entries"):
        unpack(tmp_path / "lies.zip", tmp_path / "out", UploadLimits(num_photos=25), [])

"""Files of data sets: read exactly, or refused by name."""

import math
import os
import re

import cv2
import numpy as np
import pytest

from streamvggt.data.decode import (
    DataError,
    decoding,
    read_exr,
    read_image,
    read_json,
    read_lines,
    read_npy,
    read_npz,
    read_png16,
    read_table,
    write_exr,
)

RANDOM = np.random.default_rng(0)


def picture() -> np.ndarray:
    return cv2.resize(RANDOM.integers(0, 255, (6, 8, 3), np.uint8), (80, 60))


def test_color_goes_by_content_and_is_rgb(tmp_path):
    pixels = picture()
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1])
    assert np.array_equal(read_image(tmp_path / "a.jpg"), pixels)


def test_numbers_survive_exactly(tmp_path):
    depth = RANDOM.random((7, 9), np.float32) * 1e4
    depth[0, 0], depth[1, 1] = np.nan, np.inf
    write_exr(tmp_path / "a.exr", depth)
    assert np.array_equal(read_exr(tmp_path / "a.exr"), depth, equal_nan=True)
    sixteen = RANDOM.integers(0, 2**16, (7, 9), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), sixteen)
    assert np.array_equal(read_png16(tmp_path / "a.png"), sixteen)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_cut_off_anywhere_is_rejected(tmp_path, suffix):
    content = cv2.imencode(suffix, picture())[1].tobytes()
    path = tmp_path / f"a{suffix}"
    for length in (0, 1, 10, len(content) // 3, len(content) - 200, len(content) - 13, len(content)):
        path.write_bytes(content[:length])
        if length == len(content):
            read_image(path)
        else:
            with pytest.raises(DataError, match=re.escape(str(path))):
                read_image(path)


@pytest.mark.parametrize(
    ("reader", "suffix"),
    [
        (read_image, "jpg"),
        (read_png16, "png"),
        (read_exr, "exr"),
        (read_npy, "npy"),
        (read_npz, "npz"),
        (read_json, "j"),
    ],
)
def test_what_is_missing_or_no_such_file_is_named(tmp_path, reader, suffix):
    path = tmp_path / f"a.{suffix}"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        reader(path)
    path.write_bytes(b"hello, this is no such file")
    with pytest.raises(DataError, match=re.escape(str(path))):
        reader(path)


def test_a_color_image_is_no_depth(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    with pytest.raises(DataError, match=r"16-bit image of one channel was expected, it is uint8"):
        read_png16(tmp_path / "a.png")


def test_a_cut_off_exr_or_archive_is_named(tmp_path):
    write_exr(tmp_path / "a.exr", RANDOM.random((60, 80), np.float32))
    np.savez(tmp_path / "a.npz", a=np.arange(100))
    for name, reader in (("a.exr", read_exr), ("a.npz", read_npz)):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(DataError, match=re.escape(str(path))):
            reader(path)


def test_an_archive_lacks_a_key(tmp_path):
    np.savez(tmp_path / "a.npz", pose=np.eye(4), other=1)
    with pytest.raises(DataError, match="no intrinsics in it, only pose, other"):
        read_npz(tmp_path / "a.npz", "pose", "intrinsics")


def test_objects_are_read_and_code_is_not_run(tmp_path):
    collection = {0: [(1, 0.5), (np.int64(2), np.float32(0.25))], 1: []}
    np.savez(tmp_path / "a.npz", collection=np.array(collection), names=np.array(["a", "b"]))
    read = read_npz(tmp_path / "a.npz")
    assert read["collection"].item() == collection
    assert read["names"].tolist() == ["a", "b"]

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "evil.npz", collection=np.array({0: Evil()}))
    with pytest.raises(DataError, match=r"evil\.npz.*asks for posix\.mkdir"):
        read_npz(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "got 0 of 3"),
        ("1 2\n3 4\n", "got 2 of 2"),
        ("1 2 3\n", "got 1 of 3"),
        ("1 2 3\n4 5\n", "got something else"),
        ("a b c\n1 2 3\n", "got something else"),
        ("\x00\x01", "got something else"),
    ],
)
def test_a_table_of_other_numbers_is_named(tmp_path, content, got):
    (tmp_path / "poses.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"poses.txt: expected 2 lines of 3 numbers, {got}"):
        read_table(tmp_path / "poses.txt", 3, rows=2)


def test_a_table_may_have_titles_and_unknown_numbers(tmp_path):
    (tmp_path / "poses.txt").write_text("x y\n1 nan\n-inf 2\n", encoding="utf-8")
    assert read_table(tmp_path / "poses.txt", 2, skip=1)[1].tolist() == [-math.inf, 2]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({}, "no 'K'"),
        ([], "something else"),
        (None, "something else"),
        ({"K": "x"}, "something else"),
        ({"K": 3}, "some"),
    ],
)
def test_content_of_another_structure_names_the_file(content, got):
    message = rf"cameras\.json: expected nine numbers K, got {got}.*Download"
    with pytest.raises(DataError, match=message), decoding("cameras.json", "nine numbers K"):
        np.array(content["K"], float).reshape(3, 3)


def test_errors_of_files_read_inside_pass_unchanged(tmp_path):
    for error in (DataError("other.png: damaged"), FileNotFoundError("other.png")):
        with pytest.raises(type(error), match=r"^other\.png"), decoding(tmp_path, "frames"):
            raise error


def test_text_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_bytes("# Büro\n1 2\n".encode())
    assert read_lines(path) == ["1 2"]
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(DataError, match=r"poses\.txt: expected UTF-8"):
        read_lines(path)


def test_the_byte_order_mark_of_editors_is_no_text(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text("1 2\n", encoding="utf-8-sig")
    assert read_lines(path) == ["1 2"] and read_table(path, 2).tolist() == [[1, 2]]

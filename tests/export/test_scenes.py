"""PLY and GLB: read back by trimesh, the points lie on the surfaces and the cameras stand where they stood."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from streamvggt.export import EXPORTERS, ExportOptions, NothingLeft, ReconstructionResult, ResultWriter, merged_points
from streamvggt.export.glb import unit_frustum
from streamvggt.export.gltf import Shape, glb_bytes

ALL = ExportOptions(conf_percentile=0, drop_edges=False)
FLIP = np.array([1, -1, -1])


def opened(glb: bytes) -> tuple[dict, bytes]:
    """The JSON and the binary part of a GLB file, whose lengths must fit."""
    magic, version, length, text_length, text_kind = struct.unpack_from("<4sIII4s", glb)
    assert (magic, version, length, text_kind) == (b"glTF", 2, len(glb), b"JSON")
    text, rest = glb[20 : 20 + text_length], glb[20 + text_length :]
    content_length, content_kind = struct.unpack_from("<I4s", rest)
    assert content_kind == b"BIN\0" and len(rest) == 8 + content_length
    assert text_length % 4 == 0 and content_length % 4 == 0
    return json.loads(text), rest[8:]


def accessor(tree: dict, content: bytes, number: int) -> np.ndarray:
    output = tree["accessors"][number]
    view = tree["bufferViews"][output["bufferView"]]
    dtype = {5126: "<f4", 5125: "<u4"}[output["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3}[output["type"]]
    part = content[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    return np.frombuffer(part, dtype).reshape(output["count"], width)


def srgb(light: np.ndarray) -> np.ndarray:
    """Photo colors of light in [0, 1], as the standard defines them; uint8."""
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).round().astype(int)


def test_ply_holds_the_cloud(scene, result):
    path = EXPORTERS["ply"](result, result.folder, ExportOptions())
    assert path == result.folder / "points.ply"
    assert b"format binary_little_endian 1.0" in path.read_bytes()[:200]
    cloud, read = merged_points(result, ExportOptions()), trimesh.load(path)
    np.testing.assert_array_equal(read.vertices.astype(np.float32), cloud.points)
    np.testing.assert_array_equal(read.colors[:, :3], cloud.colors)
    assert scene.distance(read.vertices).max() < 1e-5


def test_glb_holds_cloud_and_cameras_in_gltf_axes(scene, result):
    path = EXPORTERS["glb"](result, result.folder, ALL)
    assert path == result.folder / "scene.glb"
    geometry = trimesh.load(path, process=False).geometry
    points = geometry["points"]
    cloud = merged_points(result, ALL)
    np.testing.assert_allclose(points.vertices * FLIP, cloud.points, atol=1e-6)
    assert scene.distance(points.vertices * FLIP).max() < 1e-5

    wires = geometry["cameras"].vertices.reshape(len(result), -1, 3) * FLIP  # one frustum per frame
    for wire, pose in zip(wires, scene.poses, strict=True):
        in_camera = wire @ pose[:, :3].T + pose[:, 3]
        deepest = in_camera[:, 2].max()
        np.testing.assert_allclose(
            in_camera[:, 2].min(), 0, atol=0.03 * deepest
        )  # the apex is the camera, it looks at z
        assert 0 < deepest < 0.5
        # As wide and high as the view of the original, from border to border of its pixels, but for the bars' width.
        low, high = in_camera[:, :2].min(0) / deepest, in_camera[:, :2].max(0) / deepest
        np.testing.assert_allclose(low, [(7.5 - 28) / 60, (5.5 - 21) / 55], atol=0.012)
        np.testing.assert_allclose(high, [(47.5 - 28) / 60, (35.5 - 21) / 55], atol=0.012)
        np.testing.assert_allclose((low + high) / 2, [-0.5 / 60, -0.5 / 55], atol=1e-3)  # the bars are symmetric


def test_frusta_change_color_along_time(result):
    path = EXPORTERS["glb"](result, result.folder, ALL)
    tree, content = opened(path.read_bytes())
    (mesh,) = (mesh for mesh in tree["meshes"] if mesh["name"] == "cameras")
    colors = accessor(tree, content, mesh["primitives"][0]["attributes"]["COLOR_0"]).reshape(len(result), -1, 3)
    assert (colors == colors[:, :1]).all() and len(np.unique(colors[:, 0], axis=0)) == len(result)
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert len(unit_frustum().split()) == 8  # bars


def test_glb_colors_are_those_of_the_cloud(result):
    tree, content = opened(EXPORTERS["glb"](result, result.folder, ALL).read_bytes())
    (mesh,) = (mesh for mesh in tree["meshes"] if mesh["name"] == "points")
    (primitive,) = mesh["primitives"]
    cloud, attributes = merged_points(result, ALL), primitive["attributes"]
    assert primitive["mode"] == 0 and "indices" not in primitive
    np.testing.assert_array_equal(accessor(tree, content, attributes["POSITION"]) * FLIP, cloud.points)
    light = accessor(tree, content, attributes["COLOR_0"])
    np.testing.assert_array_equal(srgb(light), cloud.colors)
    read = trimesh.load(result.folder / "scene.glb", process=False).geometry["points"].colors[:, :3]
    np.testing.assert_allclose(read, 255 * light, atol=0.51)  # a reader that keeps 8 bits


def test_glb_keeps_all_levels_of_dark_colors_apart():
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    tree, content = opened(glb_bytes([Shape("gray", np.zeros((256, 3), np.float32), levels)]))
    light = accessor(tree, content, 1)[:, 0]
    np.testing.assert_array_equal(srgb(light), np.arange(256))


def test_glb_has_a_target_for_each_buffer_view(result):
    """The rules of glTF that validators check and viewers rely on."""
    tree, content = opened(EXPORTERS["glb"](result, result.folder, ALL).read_bytes())
    assert tree["buffers"] == [{"byteLength": len(content)}]
    indices = {p["indices"] for mesh in tree["meshes"] for p in mesh["primitives"] if "indices" in p}
    for number, output in enumerate(tree["accessors"]):
        view = tree["bufferViews"][output["bufferView"]]
        assert view["target"] == (34963 if number in indices else 34962)
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(content)
        values = accessor(tree, content, number)
        assert values.strides[0] % 4 == 0
        if "min" in output:
            assert output["min"] == values.min(0).tolist() and output["max"] == values.max(0).tolist()
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            position = tree["accessors"][primitive["attributes"]["POSITION"]]
            assert "min" in position and "max" in position
            if "indices" in primitive:
                assert accessor(tree, content, primitive["indices"]).max() < position["count"]


def test_one_frame_and_no_point_is_still_a_scene(scene, tmp_path):
    scene.predictions[0].depth[:] = 0
    ResultWriter(tmp_path).add(scene.frames[0], scene.predictions[0])
    result = ReconstructionResult(tmp_path)
    with pytest.raises(NothingLeft, match=r"no points are left.*only the cameras") as caught:
        EXPORTERS["glb"](result, tmp_path, ALL)
    assert caught.value.path == tmp_path / "scene.glb"
    assert list(trimesh.load(tmp_path / "scene.glb").geometry) == ["cameras"]
    with pytest.raises(NothingLeft, match="no points are left") as caught:
        EXPORTERS["ply"](result, tmp_path, ALL)
    assert caught.value.path is None and not (tmp_path / "points.ply").exists()


def test_the_cloud_is_merged_once_for_several_exports(result, monkeypatch):
    EXPORTERS["ply"](result, result.folder, ALL)
    monkeypatch.setattr(ReconstructionResult, "frames", None)
    EXPORTERS["glb"](result, result.folder, ALL)


def test_chosen_frames_are_the_cameras_drawn(result):
    path = EXPORTERS["glb"](result, result.folder, replace(ALL, frames=(2, 4, None)))
    vertices = trimesh.load(path, process=False).geometry["cameras"].vertices
    assert len(vertices) == 2 * len(unit_frustum().vertices)

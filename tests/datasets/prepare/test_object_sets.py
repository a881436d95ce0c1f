"""CO3Dv2 and WildRGB-D from their downloads."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.consistency import agreement
from streamvggt.data.decode import DataError
from streamvggt.data.encode import depth_array, millimeters, world_from_cam, write_image, write_png
from streamvggt.data.transforms import crop, crop_and_resize, crop_around_principal_point, resize
from streamvggt.datasets import co3d, co3d_annotations, prepare, wildrgbd
from streamvggt.datasets._fixtures import near_mask
from streamvggt.datasets._selected import draw
from streamvggt.datasets.co3d import CO3D
from streamvggt.datasets.wildrgbd import WildRGBD
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import project


def off_center_clip(num_frames, height=60, width=80):
    """With the principal point away from the middle, and the object's mask as ids."""
    (clip,) = world_clips(1, num_frames, height + 5, width + 6)
    clip = [crop(view, 6, 0, (width, height)) for view in clip]
    return [replace(view, instance_ids=near_mask(view)) for view in clip]


def check(view, truth, depth_step):
    """The view is the truth brought to its size; its unit is the truth's."""
    torch.testing.assert_close(view.intrinsics, truth.intrinsics, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(view.cam_from_world, truth.cam_from_world, rtol=0, atol=1e-4)
    assert view.image.shape == truth.image.shape
    assert (view.image - truth.image).abs().mean() < 0.03
    assert torch.equal(view.valid, truth.valid)
    assert ((view.depth - truth.depth).abs() <= depth_step)[view.valid].all()


# WildRGB-D


def write_wildrgbd(raw, clip, category="apple", scene="scene_001", numbers=None):
    folder = raw / category / "scenes" / scene
    numbers = range(len(clip)) if numbers is None else numbers
    rows = []
    for number, view in zip(numbers, clip, strict=True):
        write_image(folder / f"rgb/{number:05d}.png", view)
        write_png(folder / f"depth/{number:05d}.png", millimeters(view))
        write_png(folder / f"masks/{number:05d}.png", view.instance_ids.numpy().astype(np.uint8))
        rows.append([number, *world_from_cam(view).ravel()])
    np.savetxt(folder / "cam_poses.txt", rows)
    (fx, _, cx), (_, fy, cy), _ = clip[0].intrinsics.tolist()
    height, width = clip[0].depth.shape
    # As the download has it: K column by column.
    camera = {"w": width, "h": height, "K": [fx, 0, 0, 0, fy, 0, cx, cy, 1]}
    (folder / "metadata").write_text(json.dumps(camera), encoding="utf-8")
    return folder


def write_wildrgbd_lists(raw, camera_eval, nvs=None, category="apple"):
    for name, lists in (("camera_eval_list", camera_eval), ("nvs_list", nvs or camera_eval)):
        (raw / category / f"{name}.json").write_text(json.dumps(lists), encoding="utf-8")


def test_wildrgbd_becomes_the_world(tmp_path):
    raw, clip = tmp_path / "raw", off_center_clip(4)
    write_wildrgbd(raw, clip, numbers=[0, 3, 4, 9])
    write_wildrgbd(raw, clip[:1], scene="scene_002")
    lists = {"train": ["scenes/scene_001", "scenes/scene_009"], "val": ["scenes/scene_002"]}
    write_wildrgbd_lists(raw, lists)
    report = prepare("wildrgbd", raw, tmp_path)
    assert report.prepared == ["apple/scenes/scene_001", "apple/scenes/scene_002"] and not report.failed
    source = WildRGBD(tmp_path / WildRGBD.folder)
    assert source.scenes == ["apple/scenes/scene_001"]
    assert WildRGBD(source.root, "test").scenes == ["apple/scenes/scene_002"]
    frames = source.frames("apple/scenes/scene_001")
    assert frames == ["00000", "00003", "00004", "00009"]
    for frame, truth in zip(frames, clip, strict=True):
        truth = crop_and_resize(truth, (512, 384))
        check(source.read("apple/scenes/scene_001", frame), truth, 0.00051)
        mask = source.foreground("apple/scenes/scene_001", frame)
        assert torch.equal(mask, truth.instance_ids > 0)


def test_wildrgbd_keeps_upright_videos_upright_and_no_more_frames_than_asked_for(tmp_path, monkeypatch):
    assert wildrgbd.NUM_FRAMES == 100
    monkeypatch.setattr(wildrgbd, "NUM_FRAMES", 4)
    raw, clip = tmp_path / "raw", off_center_clip(1, height=40, width=30)
    write_wildrgbd(raw, clip * 7, scene="scene_001")
    write_wildrgbd_lists(raw, {"train": ["scene_001"], "val": []})
    prepare("wildrgbd", raw, tmp_path)
    source = WildRGBD(tmp_path / WildRGBD.folder)
    frames = source.frames("apple/scenes/scene_001")
    assert frames == ["00000", "00002", "00004", "00006"]
    assert source.read("apple/scenes/scene_001", "00000").image.shape == (3, 512, 384)


def test_wildrgbd_says_what_is_wrong(tmp_path):
    raw, clip = tmp_path / "raw", off_center_clip(1)
    folder = write_wildrgbd(raw, clip)
    write_wildrgbd_lists(raw, {"train": ["scene_001"], "val": []})
    camera = json.loads((folder / "metadata").read_text(encoding="utf-8"))
    (folder / "metadata").write_text(json.dumps(camera | {"w": 640}), encoding="utf-8")
    report = prepare("wildrgbd", raw, tmp_path)
    assert "00000.png has (60, 80) pixels, metadata says (60, 640)" in report.failed["apple/scenes/scene_001"]
    (raw / "apple/camera_eval_list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"camera_eval_list.json: expected \{.train.: \[scene"):
        wildrgbd.raw_scenes(raw)


def test_wildrgbd_trains_on_what_both_published_lists_train_on(tmp_path, monkeypatch):
    monkeypatch.setattr(wildrgbd, "NUM_SCENES", {"train": 3, "test": 2})
    names = [f"scene_{number:03d}" for number in range(12)]
    for name in names:
        (tmp_path / "apple/scenes" / name).mkdir(parents=True)
    camera_eval = {"train": names[:9], "val": names[9:]}
    nvs = {"train": [f"scenes/{name}" for name in names[3:]], "val": names[:3]}
    write_wildrgbd_lists(tmp_path, camera_eval, nvs)
    chosen = wildrgbd._chosen(tmp_path)
    assert chosen == wildrgbd._chosen(tmp_path), "the same each time"
    taken = {split: {Path(scene).name for scene in scenes} for split, scenes in chosen.items()}
    assert len(taken["train"]) == 3 and taken["train"] < set(names[3:9])
    assert len(taken["test"]) == 2 and taken["test"] < set(names) - set(names[3:9])
    assert taken["train"] != set(names[3:6]), "drawn, not the first"


# CO3D


def viewpoint(view, form):
    """A view's camera as PyTorch3D would have it."""
    height, width = view.depth.shape
    half = np.array([width, height]) / 2
    unit = half if form == "ndc_norm_image_bounds" else np.full(2, half.min())
    K, pose = view.intrinsics.double().numpy(), view.cam_from_world.double().numpy()
    left_up = np.array([-1, -1, 1])
    return {
        "R": (left_up[:, None] * pose[:, :3]).T.tolist(),
        "T": (left_up * pose[:, 3]).tolist(),
        "focal_length": (np.diag(K)[:2] / unit).tolist(),
        "principal_point": ((half - 0.5 - K[:2, 2]) / unit).tolist(),
        "intrinsics_format": form,
    }


def jgz(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(value).encode()))


def write_co3d(raw, clips, category="apple", quality=0.9, scale=0.5):
    """Sequences named by the keys; forms of cameras alternate."""
    frames, sequences = [], []
    for sequence, clip in clips.items():
        sequences.append({"sequence_name": sequence, "category": category, "viewpoint_quality_score": quality})
        for number, view in enumerate(clip):
            folder, name = f"{category}/{sequence}", f"frame{number + 1:06d}"
            paths = {
                "image": f"{folder}/images/{name}.jpg",
                "depth": f"{folder}/depths/{name}.jpg.geometric.png",
                "mask": f"{folder}/masks/{name}.png",
                "depth_mask": f"{folder}/depth_masks/{name}.png",
            }
            write_image(raw / paths["image"], view)
            half = (depth_array(view) / scale).astype(np.float16)
            half[~view.valid.numpy()] = np.nan
            depth_mask = np.full(half.shape, 255, np.uint8)
            depth_mask[:2] = 0
            write_png(raw / paths["depth"], half.view(np.uint16))
            write_png(raw / paths["depth_mask"], depth_mask)
            write_png(raw / paths["mask"], view.instance_ids.numpy().astype(np.uint8))
            form = ("ndc_isotropic", "ndc_norm_image_bounds")[number % 2]
            frames.append(
                {
                    "sequence_name": sequence,
                    "frame_number": number + 20,  # need not be the number in the name
                    "image": {"path": paths["image"], "size": list(half.shape)},
                    "depth": {"path": paths["depth"], "scale_adjustment": scale, "mask_path": paths["depth_mask"]},
                    "mask": {"path": paths["mask"], "mass": 1.0},
                    "viewpoint": viewpoint(view, form),
                }
            )
    jgz(raw / category / "frame_annotations.jgz", frames)
    jgz(raw / category / "sequence_annotations.jgz", sequences)
    return frames


def write_lists(raw, train, test, frames, category="apple", kind="train"):
    lists = {
        split: [
            [f["sequence_name"], f["frame_number"], f["image"]["path"]] for f in frames if f["sequence_name"] in names
        ]
        for split, names in (("train", train), ("test", test))
    }
    path = raw / category / f"set_lists/set_lists_fewview_{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lists | {"val": []}), encoding="utf-8")


def test_co3d_becomes_the_world(tmp_path, monkeypatch):
    monkeypatch.setattr(co3d, "SHORT_SIDE", 38)
    monkeypatch.setattr(co3d, "LONG_SIDE", 51)
    raw, clip = tmp_path / "raw", off_center_clip(4)
    frames = write_co3d(raw, {"1_a": clip, "2_b": clip[:2], "3_unlisted": clip[:1]})
    write_lists(raw, ["1_a"], ["1_a", "2_b"], frames[::-1])
    report = prepare("co3d", raw, tmp_path)
    assert report.prepared == ["apple/1_a", "apple/2_b"] and not report.failed
    source = CO3D(tmp_path / CO3D.folder)
    assert source.scenes == ["apple/1_a"], "what is trained on"
    assert CO3D(source.root, "test").scenes == ["apple/2_b"], "is not tested with"
    names = source.frames("apple/1_a")
    assert names == [f"frame{number:06d}" for number in range(1, 5)]
    views = [source.read("apple/1_a", name) for name in names]
    smaller = []
    for name, truth, view in zip(names, clip, views, strict=True):
        valid = truth.valid.clone()
        valid[:2] = False  # the depth mask
        whole = crop_around_principal_point(replace(truth, valid=valid, depth=truth.depth * valid))
        height, width = whole.depth.shape
        scale = max(38 / height, 51 / width)
        smaller.append(resize(whole, (round(scale * width), round(scale * height))))
        # Half precision has 11 bits.
        check(view, smaller[-1], smaller[-1].depth / 2**11 + smaller[-1].depth.max() / 2**16)
        assert torch.equal(source.foreground("apple/1_a", name), smaller[-1].instance_ids > 0)
    assert agreement(views[0], views[1]).consistent_ratio >= agreement(smaller[0], smaller[1]).consistent_ratio - 0.05


def test_co3d_cameras_are_what_pytorch3d_documents():
    """By hand: x to the left, y upwards, 1 at the borders of the largest square; borders are half a pixel outside."""
    view = {
        "R": np.eye(3).tolist(),
        "T": [0, 0, 1],
        "focal_length": [1, 2],
        "principal_point": [0.1, 0],
        "intrinsics_format": "ndc_isotropic",
    }
    point = torch.tensor([[1.0, 0.5, 1.0]])  # one to the left, half up, two ahead of the camera
    expected = {  # 200×100 pixels; (0.6, 0.5) from the middle in units of 50, or of 100 and 50
        "ndc_isotropic": [100 - 0.6 * 50 - 0.5, 50 - 0.5 * 50 - 0.5],
        "ndc_norm_image_bounds": [100 - 0.6 * 100 - 0.5, 50 - 0.5 * 50 - 0.5],
    }
    for form, pixel in expected.items():
        intrinsics, pose = co3d.camera(view | {"intrinsics_format": form}, (100, 200))
        pixels, depth = project(point, Cameras(*(torch.tensor(a).float() for a in (pose[:3], intrinsics))))
        assert pixels[0].tolist() == pytest.approx(pixel) and depth.item() == pytest.approx(2)
    with pytest.raises(ValueError, match="'screen' are not known"):
        co3d.camera(view | {"intrinsics_format": "screen"}, (100, 200))


def test_co3d_takes_good_sequences_only_and_skips_frames_without_depth(tmp_path):
    raw, clip = tmp_path / "raw", off_center_clip(2)
    frames = write_co3d(raw, {"1_a": clip})
    frames[0]["depth"] = None
    jgz(raw / "apple/frame_annotations.jgz", frames)
    bad = write_co3d(raw, {"1_bad": clip}, category="pear", quality=0.4)
    write_lists(raw, ["1_a"], [], frames)
    write_lists(raw, ["1_bad"], [], bad, category="pear")
    report = prepare("co3d", raw, tmp_path)
    assert report.prepared == ["apple/1_a"]
    source = CO3D(tmp_path / CO3D.folder)
    assert source.frames("apple/1_a") == ["frame000002"]
    (raw / "apple/frame_annotations.jgz").write_bytes(b"\x1f\x8bnothing")
    co3d._annotations.cache_clear()
    report = prepare("co3d", raw, tmp_path / "again")
    assert "frame_annotations.jgz" in report.failed["apple/1_a"]


@pytest.mark.parametrize("key", ["sequence_name", "image", "depth", "viewpoint", "intrinsics_format"])
def test_co3d_names_the_annotations_and_the_missing_key(tmp_path, key):
    frames = write_co3d(tmp_path, {"1_a": off_center_clip(1)})
    write_lists(tmp_path, ["1_a"], [], frames)
    path = tmp_path / "apple/frame_annotations.jgz"
    annotations = json.loads(gzip.decompress(path.read_bytes()))
    del (annotations[0]["viewpoint"] if key == "intrinsics_format" else annotations[0])[key]
    jgz(path, annotations)
    for cache in (co3d._annotations, co3d._listed):
        cache.cache_clear()
    (failure,) = prepare("co3d", tmp_path, tmp_path / "out").failed.values()
    assert failure.startswith(f"DataError: {path}: expected ") and f"got no '{key}'" in failure


def test_co3d_names_sequence_annotations_without_quality(tmp_path):
    write_co3d(tmp_path, {"1_a": off_center_clip(1)})
    path = tmp_path / "apple/sequence_annotations.jgz"
    jgz(path, [{"sequence_name": "1_a"}])
    with pytest.raises(DataError, match=r"sequence_annotations.*got no 'viewpoint_quality_score'"):
        prepare("co3d", tmp_path, tmp_path / "out")


def test_co3d_never_trains_on_what_is_evaluated(tmp_path):
    """The lists fewview_dev and fewview_test name sequences of the list to train on under "test", too."""
    names = [f"{number}_a" for number in range(6)]
    quality = dict.fromkeys(names, 0.9) | {"4_a": None}  # some sequences have no score
    annotations = [{"sequence_name": name, "viewpoint_quality_score": quality[name]} for name in names]
    jgz(tmp_path / "apple/sequence_annotations.jgz", annotations)
    frames = [{"sequence_name": name, "frame_number": 0, "image": {"path": f"apple/{name}/x.jpg"}} for name in names]
    write_lists(tmp_path, names[:5], names[4:], frames)
    write_lists(tmp_path, names, names[:1], frames, kind="dev")
    write_lists(tmp_path, names, names[1:2], frames, kind="test")
    assert co3d._chosen(tmp_path) == {"train": ["apple/2_a", "apple/3_a"], "test": ["apple/5_a"]}
    assert co3d_annotations.select([], annotations, {"train": [], "test": []}) == {"train": {}, "test": {}}


def test_co3d_draws_sequences_the_same_way_each_time():
    names = [f"{number:03d}" for number in range(200)]
    drawn = draw(names, 50, "apple train")
    assert drawn == draw(names[::-1], 50, "apple train") and len(set(drawn)) == 50
    assert drawn != draw(names, 50, "bench train") and drawn != names[:50]

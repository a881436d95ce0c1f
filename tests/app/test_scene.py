"""A scene: run, stopped, run again, watched and exported, all from one input; and who may see it."""

import os
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial
from itertools import islice

import cv2
import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from browser import ROOT
from small_models import TINY

from streamvggt import StreamVGGT
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.scenes import NO_OWNER, Scenes
from streamvggt.app.status import RunSettings
from streamvggt.export import ExportOptions, ReconstructionResult
from streamvggt.stream.frames import load_frames

CLIP = partial(load_frames, ROOT / "assets" / "clip.mp4")
SETTINGS = RunSettings(weights="small", max_frames=4)


@pytest.fixture
def scene(scenes):
    return scenes.new("me", "video", CLIP)


def finish(scene, settings=SETTINGS, networks=None) -> list[str]:
    return [status.state for status in scene.run(settings, networks)]


def test_a_run_reports_and_stores_every_frame(scene, networks):
    statuses = list(scene.run(SETTINGS, networks))
    assert [status.num_frames for status in statuses] == [0, 1, 2, 3, 4, 4]
    assert [status.state for status in statuses] == ["loading", *4 * ["running"], "finished"]
    assert (statuses[1].expected, statuses[-1].fps > 0) == (4, True)
    assert len(ReconstructionResult(scene.result_folder)) == 4
    assert scene.packet(3, "depth") != scene.packet(2, "depth")


def test_stop_keeps_the_finished_frames_and_a_new_run_replaces_them(scene, networks):
    for status in scene.run(SETTINGS, networks):
        if status.num_frames == 2:
            scene.stop()
    assert (scene.status.state, scene.status.num_frames) == ("stopped", 2)
    assert len(ReconstructionResult(scene.result_folder)) == 2
    assert finish(scene, networks=networks)[-1] == "finished"
    assert (scene.status.run, scene.status.num_frames) == (2, 4)


def test_a_page_that_closes_ends_the_run(scene, networks):
    run = scene.run(SETTINGS, networks)
    list(islice(run, 3))
    run.close()
    assert (scene.status.state, scene.status.num_frames) == ("stopped", 2)
    assert finish(scene, networks=networks)[-1] == "finished"


def test_a_scene_has_one_run_at_a_time(scene, networks):
    run = scene.run(SETTINGS, networks)
    next(run)
    with pytest.raises(ValueError, match="already running"):
        next(scene.run(SETTINGS, networks))
    run.close()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (RunSettings(weights="else"), "Weights: expected small, missing, got 'else'"),
        (RunSettings(weights="missing"), "The weights 'missing' cannot be loaded. See the server log"),
        (RunSettings(weights="small", policy="much"), "policy 'much' is unknown"),
    ],
)
def test_errors_are_reported_in_words(scene, networks, settings, why):
    assert finish(scene, settings, networks)[-1] == "failed"
    assert why in scene.status.message


def test_an_error_of_the_program_is_not_shown_to_users(scene, caplog):
    def load(name):
        raise KeyError("/secret/path")

    assert finish(scene, networks=ModelRegistry({"small": "small"}, load))[-1] == "failed"
    assert "secret" not in scene.status.message
    assert "secret" in caplog.text


def test_tracked_points_start_at_the_clicked_pixels(scene, networks):
    """The clip of 448×336 becomes 56×42: the middle of the picture is between its middle pixels."""
    scene.set_query_points(np.array([[0.5, 0.5], [0.25, 0.75]]))
    finish(scene, networks=networks)
    first = scene.output.tracks[0]
    np.testing.assert_allclose([(track.x, track.y) for track in first], [(27.5, 20.5), (13.5, 31.0)], atol=1e-4)
    stored = ReconstructionResult(scene.result_folder)[0]
    points, _ = stored.world_points("depth")
    assert first[0].world == pytest.approx(points[20, 28])  # round() goes to the even one of 27.5's neighbors
    assert len(scene.output.tracks) == 4


def test_weights_without_a_tracker_are_reported(scene):
    model = StreamVGGT(**TINY, heads=("camera", "depth")).eval()
    scene.set_query_points(np.array([[0.5, 0.5]]))
    finish(scene, RunSettings("small", max_frames=1), ModelRegistry({"small": "small"}, lambda name: model))
    assert "no tracker" in scene.status.message
    assert scene.status.state == "finished"


def test_the_point_head_runs_on_request(scene, networks):
    finish(scene, RunSettings("small", max_frames=2, point_head=True), networks)
    assert scene.status.sources == ("depth", "head")
    assert scene.packet(1, "head") != scene.packet(1, "depth")


def test_a_live_scene_reconstructs_the_images_of_the_browser(scenes, networks):
    scene = scenes.new("me", "live")
    run = scene.run(RunSettings("small", max_frames=None), networks)
    next(run)
    for shade in (10, 200):
        scene.camera.push(np.full((48, 64, 3), 255, np.uint8))
        scene.camera.push(np.full((48, 64, 3), shade, np.uint8))  # the newest counts
        assert next(run).state == "running"
        image = ReconstructionResult(scene.result_folder)[-1].image
        assert np.abs(image.astype(int) - shade).max() <= 1
    scene.stop()
    assert list(run)[-1].state == "finished"


def test_every_export_opens_in_its_own_library(scene, networks):
    finish(scene, networks=networks)
    all = ExportOptions(conf_percentile=0, drop_edges=False)
    cloud = trimesh.load(scene.export("ply", all))
    assert len(cloud.vertices) == 4 * 56 * 42
    assert "points" in trimesh.load(scene.export("glb", all)).geometry
    with zipfile.ZipFile(scene.export("colmap", all)) as archive:
        archive.extractall(scene.folder / "colmap")
    assert pycolmap.Reconstruction(scene.folder / "colmap" / "sparse" / "0").num_images() == 4
    with zipfile.ZipFile(scene.export("depth", all)) as archive:
        assert sum(name.endswith(".png") for name in archive.namelist()) == 4
    video = cv2.VideoCapture(str(scene.export("video", all)))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert len(scene.export("tum", all).read_text(encoding="utf-8").splitlines()) == 4


def test_a_download_is_not_changed_by_the_next_export(scene, networks):
    finish(scene, networks=networks)
    with open(scene.export("nerfstudio", ExportOptions(conf_percentile=20)), "rb") as download:
        content = download.read()
        scene.export("nerfstudio", ExportOptions(conf_percentile=80))
        download.seek(0)
        assert download.read() == content


def test_exports_of_nothing_are_rejected(scene):
    with pytest.raises(ValueError, match="Press Start first"):
        scene.export("glb", ExportOptions())
    with pytest.raises(ValueError, match="got 'exe'"):
        scene.export("exe", ExportOptions())


def test_only_the_owner_gets_a_scene(scenes):
    mine, shared = scenes.new("me", "live"), scenes.new(NO_OWNER, "live")
    assert scenes.get(mine.id, "me") is mine
    assert scenes.get(mine.id, "you") is None
    assert scenes.get(mine.id, None) is None
    assert scenes.get("../" + mine.id, "me") is None
    assert scenes.get(shared.id, None) is shared
    assert (mine.folder.stat().st_mode & 0o777, scenes.folder.stat().st_mode & 0o777) == (0o700, 0o700)


def test_scenes_per_owner_and_in_total_are_limited():
    scenes = Scenes(max_per_owner=2, max_scenes=3)
    first, second, third = (scenes.new("me", "live") for _ in range(3))
    assert scenes.get(first.id, "me") is None
    assert not first.folder.exists()
    assert second.folder.exists()
    assert third.folder.exists()
    scenes.new("you", "live")
    with pytest.raises(ValueError, match="The server is full"):
        scenes.new("they", "live")
    scenes.close()
    assert not scenes.folder.exists()


def test_a_scene_removed_during_a_frame_leaves_no_files(scenes, networks, monkeypatch):
    """A third scene takes the place of the first while the network computes for it."""
    kind = type(networks.get("small"))
    unheld, computes, go_on = kind.step, threading.Event(), threading.Event()

    def step(self, *arguments, **options):
        computes.set()
        assert go_on.wait(60)
        return unheld(self, *arguments, **options)

    monkeypatch.setattr(kind, "step", step)
    scene = scenes.new("me", "video", CLIP)
    statuses = []
    run = threading.Thread(target=lambda: statuses.extend(scene.run(SETTINGS, networks)))
    run.start()
    try:
        assert computes.wait(60)
        kept = [scenes.new("me", "live"), scenes.new("me", "live")]
        assert scenes.get(scene.id, "me") is None
    finally:
        go_on.set()
        run.join(60)
    assert not run.is_alive()
    assert {path.name for path in scenes.folder.iterdir()} == {scene.id for scene in kept}
    for use in (scene.preview, lambda: scene.packet(0, "depth"), lambda: scene.export("ply", ExportOptions())):
        with pytest.raises(ValueError, match="no longer exists"):
            use()
    assert "no longer exists" in list(scene.run(SETTINGS, networks))[-1].message
    assert not scene.folder.exists()


@pytest.mark.parametrize("why", ["weights", "memory", "input", "page closed"])
def test_a_failed_start_keeps_the_finished_result(scene, networks, why, monkeypatch):
    finish(scene, networks=networks)
    before, packet = scene.status, scene.packet(3, "depth")
    settings = RunSettings("missing" if why == "weights" else "small", policy="much" if why == "memory" else "all")
    if why == "input":
        scene._open_frames = lambda **options: iter_of_nothing()
    run = scene.run(settings, networks)
    if why == "page closed":
        next(run)
        run.close()
    else:
        assert list(run)[-1].state == "failed"
    assert (scene.status.run, scene.status.num_frames) == (before.run + 1, 4)
    assert (scene.status.weights, scene.packet(3, "depth")) == (before.weights, packet)
    assert [path.name for path in scene.folder.glob("result-*")] == [scene.result_folder.name]


def iter_of_nothing():
    raise ValueError("not one of the photos can be read")


def test_a_camera_without_images_does_not_block_other_users(scenes, networks):
    """Its run is begun and waits; that of another visitor comes to its end meanwhile."""
    camera = scenes.new("me", "live").run(SETTINGS, networks)
    next(camera)
    waiting = threading.Thread(target=lambda: list(camera))
    waiting.start()
    other = scenes.new("you", "video", CLIP)
    assert finish(other, networks=networks)[-1] == "finished"
    assert waiting.is_alive()
    scenes.close()
    waiting.join(60)
    assert not waiting.is_alive()
    assert not scenes.folder.exists()


def test_the_duration_of_a_run_is_limited(scene, networks):
    assert finish(scene, replace(SETTINGS, max_seconds=0.0), networks)[-1] == "finished"
    assert scene.status.num_frames == 1
    assert "was stopped" in scene.status.message


def test_the_memory_of_a_stream_is_bounded(scene):
    networks = ModelRegistry({"small": "small"}, lambda name: StreamVGGT(**TINY).eval(), stream_bytes=1)
    assert finish(scene, networks=networks)[-1] == "failed"
    assert (scene.status.num_frames, "Out of memory" in scene.status.message) == (1, True)


def test_the_latest_scene_of_a_user_is_found(scenes):
    scenes.new("me", "live")
    latest = scenes.new("me", "live")
    scenes.new("you", "live")
    scenes.new(NO_OWNER, "live")
    assert scenes.latest("me") is latest
    assert scenes.latest("they") is None
    assert scenes.latest(None) is None


def test_unused_scenes_and_uploads_are_removed():
    scenes = Scenes(ttl_seconds=60)
    old, new = scenes.new("me", "live"), scenes.new("me", "live")
    old.used = time.monotonic() - 61
    for name, age in (("old", 61), ("new", 0)):
        (scenes.uploads / name).mkdir(parents=True)
        os.utime(scenes.uploads / name, (time.time() - age,) * 2)
    scenes.remove_expired()
    assert scenes.get(old.id, "me") is None
    assert not old.folder.exists()
    assert new.folder.exists()
    assert [path.name for path in scenes.uploads.iterdir()] == ["new"]
    scenes.close()


def test_at_most_one_network_is_in_memory():
    loaded = []
    networks = ModelRegistry({"a": "A", "b": "B"}, lambda name: loaded.append(name) or torch.nn.Identity())
    assert networks.default == "a"
    assert not loaded
    first = networks.get("a")
    assert networks.get("a") is first
    networks.get("b")
    assert networks.get("a") is not first
    assert loaded == ["A", "B", "A"]

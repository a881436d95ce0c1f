"""The status line of a scene."""

import pytest

from streamvggt.app.status import Status, duration


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status(), "Ready. Press Start."),
        (Status("loading", weights="tiny"), "Loading the weights tiny and the first frame …"),
        (
            Status("running", weights="tiny", num_frames=3, expected=48, fps=0.456, seconds_left=100, memory_mb=12.4),
            "Frame 3 of 48 · 0.46 frames/s · 1 min 40 s left · memory 12 MB · tiny",
        ),
        (Status("running", weights="tiny", num_frames=1, fps=12.34), "Frame 1 · 12.3 frames/s · memory 0 MB · tiny"),
        (Status("finished", weights="tiny", num_frames=1), "Done: 1 frame · tiny"),
        (Status("stopped", weights="tiny", num_frames=2, fps=3.0), "Stopped: 2 frames · 3.0 frames/s · tiny"),
        (Status("failed"), "Failed."),
        (Status("failed", num_frames=2), "Failed. The viewer shows the finished 2 frames."),
    ],
)
def test_status_line(status, text):
    assert status.text("video") == text


def test_a_camera_scene_before_its_run_shows_that_it_waits():
    assert Status().text("live") == "Waiting for the camera …"


def test_durations():
    assert [duration(seconds) for seconds in (0.6, 89, 90, 3599)] == ["1 s", "89 s", "1 min 30 s", "59 min 59 s"]

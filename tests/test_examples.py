"""The files of examples/: the notebook runs, and the ROS 2 node publishes what docs/webcam-and-robots.md says."""

import json
import os
import runpy
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from launching import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


@pytest.mark.slow
def test_the_notebook_runs():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "commit the notebook without outputs"
    code = "\n".join("".join(cell["source"]) for cell in cells)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=NOTEBOOK.parent, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "num_frames=12, num_kept_frames=9" in done.stdout and "points.ply" in done.stdout


class FakeNode:
    """The methods of `rclpy.node.Node` that the example calls."""

    def __init__(self, name):
        self.published = {}

    def declare_parameter(self, name, default):
        return SimpleNamespace(value={"weights": "tiny", "device": "cpu"}[name])

    def create_publisher(self, kind, topic, depth):
        return SimpleNamespace(publish=lambda message: self.published.setdefault(topic, []).append(message))

    def create_subscription(self, kind, topic, callback, qos):
        self.callback = callback


class FakeBridge:
    def imgmsg_to_cv2(self, message, encoding):
        assert encoding == "rgb8"
        return message.image

    def cv2_to_imgmsg(self, image, encoding, header):
        assert encoding == "32FC1" and image.dtype == np.float32
        return SimpleNamespace(image=image, header=header)


def pose_stamped():
    point = SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace())
    return SimpleNamespace(header=SimpleNamespace(), pose=point)


@pytest.fixture
def node(monkeypatch):
    modules = {
        "rclpy": {},
        "cv_bridge": {"CvBridge": FakeBridge},
        "geometry_msgs": {},
        "geometry_msgs.msg": {"PoseStamped": pose_stamped},
        "rclpy.node": {"Node": FakeNode},
        "rclpy.qos": {"qos_profile_sensor_data": None},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": SimpleNamespace},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(ROOT / "examples" / "ros2_node.py"))["StreamNode"]()


def test_the_ros_node_publishes_a_pose_and_depth_per_image(node):
    random = np.random.default_rng(0)
    for stamp in (1, 2):
        image = random.integers(0, 255, (90, 120, 3), np.uint8)
        node.callback(SimpleNamespace(image=image, header=SimpleNamespace(stamp=stamp, frame_id="camera")))
    poses, depths = node.published["pose"], node.published["depth"]
    assert [pose.header.stamp for pose in poses] == [1, 2] and poses[0].header.frame_id == "map"
    quaternion = [getattr(poses[1].pose.orientation, axis) for axis in "xyzw"]
    assert np.linalg.norm(quaternion) == pytest.approx(1, abs=1e-6)
    assert all(isinstance(getattr(poses[1].pose.position, axis), float) for axis in "xyz")
    assert depths[1].image.shape == (80, 112) and (depths[1].image > 0).all()

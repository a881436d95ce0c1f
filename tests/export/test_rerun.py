"""A recording for rerun, read back by its own library."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from streamvggt.export import EXPORTERS, ExportOptions
from streamvggt.export.rerun_file import RerunRecording

needs_rerun = pytest.mark.skipif(find_spec("rerun") is None, reason="rerun-sdk is not installed")


@needs_rerun
def test_every_frame_has_its_camera_image_depth_and_points(scene, result, tmp_path):
    from rerun.chunk import RrdReader

    path = EXPORTERS["rerun"](result, tmp_path, ExportOptions(conf_percentile=0, max_points=5 * 200))
    columns: dict[str, list] = {}
    for chunk in RrdReader(path).store().stream():
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            columns.setdefault(f"{chunk.entity_path} {name}", []).extend(batch.column(name).to_pylist())
    assert sorted(columns["/world/camera/image frame"]) == list(range(5))
    assert len(columns["/world/camera/depth DepthImage:buffer"]) == 5
    centers = np.array([center[0] for center in columns["/world/camera Transform3D:translation"]])
    expected = np.stack([-pose[:, :3].T @ pose[:, 3] for pose in scene.poses])
    np.testing.assert_allclose(np.sort(centers, 0), np.sort(expected, 0), atol=1e-6)
    shifted = scene.intrinsics.copy()
    shifted[:2, 2] += 0.5  # in rerun the corner of the image is (0, 0)
    for (by_columns,) in columns["/world/camera Pinhole:image_from_camera"]:
        np.testing.assert_allclose(np.reshape(by_columns, (3, 3)).T, shifted, rtol=1e-6)
    for position in range(5):
        (points,) = columns[f"/world/points/{position:06d} Points3D:positions"]
        assert len(points) == 200 and scene.distance(np.array(points)).max() < 1e-4
    (layout,) = RrdReader(path).blueprints()
    told = str([chunk.to_record_batch().to_pydict() for chunk in RrdReader(path).store(store=layout).stream()])
    assert "- /world/camera/depth" in told


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=r'pip install "streamvggt\[rerun\]"'):
        RerunRecording(ExportOptions())

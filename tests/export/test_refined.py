"""Bundle adjustment of an export: nearer to the truth on real tracks, and never an obstacle."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch

from procedural_scenes import SyntheticScenes
from procedural_scenes.scene import SceneConfig
from streamvggt.export import EXPORTERS, Adjustments, ExportOptions, ReconstructionResult, ResultWriter, adjusted
from streamvggt.frame import Frame
from streamvggt.geometry.camera import Cameras, compose_poses, pose_enc_from_cameras
from streamvggt.geometry.rotation import matrix_from_quaternion
from streamvggt.prediction import Prediction

SIZE = (168, 224)
REFINE = ExportOptions(conf_percentile=0, bundle_adjust=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A result of the procedural world whose cameras are turned by about a degree, and the true cameras."""
    batch = SyntheticScenes("val", style=SceneConfig(moving_prob=0.0)).batch(3, 1, 5, *SIZE)
    true = Cameras(batch.cam_from_world[0].double(), batch.intrinsics[0].double())
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(5, 3, generator=generator).double() * np.radians(1.0) / 2
    turn = matrix_from_quaternion(torch.cat([half, torch.ones(5, 1).double()], -1))
    turned = compose_poses(torch.cat([turn, torch.zeros(5, 3, 1).double()], -1), true.cam_from_world)
    writer = ResultWriter(tmp_path_factory.mktemp("world") / "out")
    for number in range(5):
        camera = Cameras(turned[number], true.intrinsics[number])
        image, depth = batch.images[0, number], batch.depth[0, number].where(batch.valid[0, number], 0)
        frame = Frame(
            image=image,
            index=number,
            name=f"frame_{number}",
            original=(image.movedim(0, -1).numpy() * 255).round().astype(np.uint8),
            original_from_image=np.eye(3),
            content=(0, 0, *SIZE),
        )
        conf = torch.ones(1, 1, *SIZE)
        pose_enc = pose_enc_from_cameras(camera, SIZE)[None, None]
        writer.add(frame, Prediction(SIZE, pose_enc=pose_enc, depth=depth[None, None, ..., None], depth_conf=conf))
    return ReconstructionResult(writer.folder), true


def errors(model: pycolmap.Reconstruction, true: Cameras) -> float:
    """Mean angle in degrees between relative rotations of neighboring frames and the true ones."""
    found = torch.from_numpy(np.stack([model.image(n + 1).cam_from_world().matrix()[:, :3] for n in range(5)]))
    R = true.cam_from_world[..., :3]
    difference = (found[1:] @ found[:-1].mT) @ (R[1:] @ R[:-1].mT).mT
    return (
        torch.rad2deg(torch.arccos(((difference.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))).mean().item()
    )


def exported(result, folder, options) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(EXPORTERS["colmap"](result, folder, options) / "sparse" / "0")


def test_refined_cameras_are_nearer_to_the_truth_and_share_one_focal_length(world, tmp_path, capsys):
    result, true = world
    before = errors(exported(result, tmp_path, replace(REFINE, bundle_adjust=False)), true)
    model = exported(result, tmp_path, REFINE)
    after = errors(model, true)
    assert after < 0.5 * before
    assert "--bundle-adjust: median reprojection error" in capsys.readouterr().out
    print(f"relative rotations: {before:.2f}° → {after:.2f}°")
    (camera,) = model.cameras.values()
    assert camera.params[0] == pytest.approx(true.intrinsics[0, 0, 0].item(), rel=0.05)


def test_known_intrinsics_are_kept(world, tmp_path):
    result, _ = world
    facts = Adjustments(intrinsics=(200, 210, 111, 83))
    model = exported(adjusted(result, facts), tmp_path, replace(REFINE, adjustments=facts))
    (camera,) = model.cameras.values()
    np.testing.assert_allclose(camera.params, [200, 210, 111.5, 83.5])


def test_without_tracks_the_export_is_as_it_was(scene, result, tmp_path, capsys):
    """The made-up scene is too smooth for SIFT."""
    model = exported(result, tmp_path, REFINE)
    assert "--bundle-adjust: cameras are unchanged, because a frame has 0 inlier points" in capsys.readouterr().out
    for position, pose in enumerate(scene.poses):
        np.testing.assert_allclose(model.image(position + 1).cam_from_world().matrix(), pose, atol=1e-9)

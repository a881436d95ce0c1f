"""Depth maps of triangle meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh


class MeshDepthRenderer:
    """A mesh that answers how far it is, pixel by pixel; exact at every pixel's centre.

    Raises:
        ModuleNotFoundError: the package embreex is not there.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        """vertices: (N, 3) in the world; faces: (M, 3) of their numbers."""
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: the depth of a mesh needs it: pip install embreex") from error
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(np.asarray(vertices, np.float32)[np.asarray(faces)]))

    @classmethod
    def load(cls, path: Path) -> MeshDepthRenderer:
        mesh = trimesh.load_mesh(path, process=False)
        return cls(mesh.vertices, mesh.faces)

    def depth(self, intrinsics: np.ndarray, world_from_cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Distance along the optical axis; 0 where there is nothing.

        Args:
            intrinsics: in pixels; the first pixel has coordinate (0, 0). (3, 3)
            world_from_cam: OpenCV axes. (4, 4)
            size: H, W.

        Returns:
            (H, W) float32
        """
        height, width = size
        y, x = np.mgrid[:height, :width]
        K = intrinsics
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones((height, width))], -1)
        rays = rays.reshape(-1, 3) @ world_from_cam[:3, :3].T
        starts = np.broadcast_to(world_from_cam[:3, 3], rays.shape)
        # The rays advance by one along the optical axis, so distance along them is depth.
        depth = self._scene.run(np.ascontiguousarray(starts, np.float32), rays.astype(np.float32), query="DISTANCE")
        return np.where(depth < 1e30, depth, 0).reshape(size).astype(np.float32)

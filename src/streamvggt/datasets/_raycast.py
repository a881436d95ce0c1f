"""Depth maps of triangle meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh


class MeshDepthRenderer:
    """Render depth maps of a triangle mesh by casting one ray through each pixel center.

    Raises:
        ModuleNotFoundError: If the package embreex is missing.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        """Copy the mesh.

        Args:
            vertices: World coordinates. (N, 3)
            faces: Vertex indices. (M, 3)
        """
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
        """Render the depth along the optical axis, 0 where no surface is hit.

        Args:
            intrinsics: In pixels. The center of the first pixel is (0, 0). (3, 3)
            world_from_cam: World-from-camera pose, OpenCV axes. (4, 4)
            size: Height and width in pixels.

        Returns:
            Depth in the unit of the vertices. (H, W) float32
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

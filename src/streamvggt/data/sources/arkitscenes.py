"""ARKitScenes (Baruch et al., arXiv 2111.08897): rooms seen by a tablet with a depth sensor.

Training|Test/all_metadata.npz                                scenes
              <scene>/new_scene_metadata.npz                  see _scene_table.py; images are <scene>_<seconds>.png
                      vga_wide/<scene>_<seconds>.jpg
                      lowres_depth/<scene>_<seconds>.png      uint16, millimetres
"""

from __future__ import annotations

from collections.abc import Sequence

from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips, Covisible
from streamvggt.data.sources._arkit import ARKitFrames, seconds
from streamvggt.data.sources._scene_table import scene_frames, scene_groups
from streamvggt.data.sources.arkitscenes_highres import ARKitScenesHighRes


class ARKitScenes(ARKitFrames):
    """Scenes that ARKitScenes-HighRes has beside it are left to that."""

    name = "ARKitScenes"
    folder = "processed_arkitscenes"
    selection = Covisible(Clips(max_interval=8, video_prob=0.8, fix_prob=0.5, block_shuffle=16), clip_share=0.5)
    table = "new_scene_metadata.npz"
    depth_folder = "lowres_depth"
    split_folders = {"train": "Training", "test": "Test"}  # noqa: RUF012

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = {str(scene) for scene in listing.npz(self.split_folder / "all_metadata.npz", "scenes")["scenes"]}
        better = self.root.parent / ARKitScenesHighRes.folder / ARKitScenesHighRes.split_folders[self.split]
        if listing.exists(better):
            scenes -= set(listing.folders(better))
        return {
            scene: sorted(scene_frames(listing, self.split_folder / scene / self.table), key=seconds)
            for scene in sorted(scenes)
        }

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        return scene_groups(self.split_folder / scene / self.table, tuple(self.frames(scene)))

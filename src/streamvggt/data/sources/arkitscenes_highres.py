"""ARKitScenes (Baruch et al., arXiv 2111.08897), those of its frames that have the depth of a laser scanner.

Training|Validation/<scene>/scene_metadata.npz                     see _scene_table.py; images are <scene>_<seconds>.png
                            vga_wide/<scene>_<seconds>.jpg
                            highres_depth/<scene>_<seconds>.png    uint16, millimetres
"""

from __future__ import annotations

from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.sources._arkit import ARKitFrames, seconds
from streamvggt.data.sources._scene_table import scene_frames


class ARKitScenesHighRes(ARKitFrames):
    """Frames that the table names but that were never written are left out."""

    name = "ARKitScenes-HighRes"
    folder = "processed_arkitscenes_highres"
    selection = Clips(max_interval=8, video_prob=0.5, fix_prob=0.5, block_shuffle=16)
    table = "scene_metadata.npz"
    depth_folder = "highres_depth"
    split_folders = {"train": "Training", "test": "Validation"}  # noqa: RUF012

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = {}
        for scene in listing.folders(self.split_folder):
            folder = self.split_folder / scene
            there = set(listing.files(folder / "vga_wide", ".jpg"))
            there &= set(listing.files(folder / self.depth_folder, ".png"))
            scenes[scene] = sorted(there.intersection(scene_frames(listing, folder / self.table)), key=seconds)
        return scenes

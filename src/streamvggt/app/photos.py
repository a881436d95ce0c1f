"""The photos of a scene, in order. A user can add photos and remove single ones."""

import threading
from pathlib import Path

import numpy as np

from streamvggt.app.thumbnail import small_jpeg
from streamvggt.image_files import exif_rgb, open_image
from streamvggt.stream.frames import FrameSource, load_frames

THUMBNAIL_HEIGHT = 96
DECODERS = threading.Semaphore(2)  # concurrent decoders of thumbnails; a photo can have 120 million pixels


class Photos:
    """Photos in the order of their upload. A call opens them as frames, as `open_frames` of `Scene`.

    Args:
        folder: Folder of `take_uploads`. Later photos are moved into it.
        max_photos: Maximum number of photos.
    """

    def __init__(self, folder: Path, max_photos: int):
        self.folder = folder
        self.max_photos = max_photos
        self._paths = dict(enumerate(sorted(folder.iterdir())))  # by an id that stays the same
        self.num_taken = len(self._paths)  # including removed photos

    def __call__(self, **options) -> FrameSource:
        return load_frames(list(self._paths.values()), **options)

    def __len__(self) -> int:
        return len(self._paths)

    def names(self) -> list[tuple[int, str]]:
        """Return id and name of each photo in order."""
        return [(key, path.name.partition("_")[2]) for key, path in self._paths.items()]

    def add(self, folder: Path) -> None:
        """Move the photos of another folder of `take_uploads` to the end.

        Raises:
            ValueError: If there are too many photos.
        """
        paths = sorted(folder.iterdir())
        if len(self) + len(paths) > self.max_photos:
            raise ValueError(f"{len(self) + len(paths)} photos are too many: at most {self.max_photos} can be taken.")
        for path in paths:
            target = self.folder / f"{self.num_taken:04d}_{path.name.partition('_')[2]}"
            self._paths = {**self._paths, self.num_taken: path.rename(target)}  # a new dict, for concurrent readers
            self.num_taken += 1

    def remove(self, key: int) -> None:
        """Remove a photo and delete its file.

        Raises:
            KeyError: If the photo does not exist.
            ValueError: If it is the last one.
        """
        path = self._paths[key]
        if len(self._paths) == 1:
            raise ValueError("One photo must remain. Upload another one first.")
        self._paths = {other: kept for other, kept in self._paths.items() if other != key}
        path.unlink(missing_ok=True)

    def thumbnail(self, key: int) -> bytes:
        """Return a small JPEG of a photo.

        Raises:
            KeyError: If the photo does not exist.
            OSError: If the photo cannot be decoded. Pillow's readers can raise other errors.
        """
        with DECODERS, open_image(self._paths[key]) as image:
            image.draft("RGB", (4 * THUMBNAIL_HEIGHT, 4 * THUMBNAIL_HEIGHT))  # JPEG: decode at reduced size
            return small_jpeg(np.asarray(exif_rgb(image)), THUMBNAIL_HEIGHT)

"""The COLMAP export under the rules of the loaders of gsplat (examples/datasets/colmap.py) and nerfstudio (colmap)."""

import pycolmap
import pytest
from PIL import Image

from streamvggt.export import EXPORTERS, ExportOptions

WITHOUT_DISTORTION = {"PINHOLE", "SIMPLE_PINHOLE"}


@pytest.fixture
def folder(result):
    """The data folder of the trainer: `--data_dir` of gsplat, `--data` of nerfstudio."""
    return EXPORTERS["colmap"](result, result.folder, ExportOptions(conf_percentile=20))


def test_gsplat_and_nerfstudio_find_the_model_and_a_file_for_each_image(folder):
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    names = sorted(image.name for image in model.images.values())
    files = sorted(path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*"))
    assert names == files, "gsplat pairs the sorted files of images/ with the sorted names of the model"


def test_cameras_have_one_model_without_distortion_and_the_size_of_the_images(folder):
    """gsplat scales all cameras by the size of the first image. nerfstudio stops at a second camera model."""
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert {camera.model_name for camera in model.cameras.values()} <= WITHOUT_DISTORTION
    assert len({camera.model_name for camera in model.cameras.values()}) == 1
    for image in model.images.values():
        with Image.open(folder / "images" / image.name) as file:
            assert file.mode == "RGB" and file.size == (image.camera.width, image.camera.height)


def test_points_can_initialize_splats(folder):
    """Both loaders read position, color and error of every point. gsplat reads the points of each image."""
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert model.num_points3D() > 100
    assert len({tuple(point.color) for point in model.points3D.values()}) > 10
    assert all(image.get_observation_points2D() for image in model.images.values())

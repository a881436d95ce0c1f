"""Distillation from any network, with any patch size and scale.

B sequences · S frames · H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.data.transforms import whole_patches
from streamvggt.data.view import Batch
from streamvggt.losses.target import Target
from streamvggt.prediction import Prediction
from streamvggt.training.supervision import mean_distance, supervised


class ForeignTeacher:
    """Supervision with the predictions of a frozen teacher.

    The teacher is a callable from images in [0, 1], (B, S, 3, H, W), to a `Prediction` of all frames in the frame of
    the first camera. If the teacher predicts no points, they are unprojected from its depth. Tracks are not used.
    Sequences without ground truth are supervised at every pixel.
    """

    requires_queries = False

    def __init__(
        self,
        model: Callable[[Tensor], Prediction],
        *,
        patch_size: int | None = None,
        same_images: bool = True,
        normalize: bool = True,
    ):
        """Create the supervision. Freezes `model` if it is a module.

        Args:
            model: Frozen teacher.
            patch_size: Patch size of the teacher in pixels. None: `model.patch_size`, else 1.
            same_images: True: train on image sides that are multiples of both patch sizes (112 pixels for 14 and 16),
                so that no map is resized. False: use the image sizes of the student. The teacher then runs at the
                nearest multiples of its patch size, and its maps are resized.
            normalize: Divide lengths by the mean distance of the supervised points of a sequence from the first
                camera, like `GroundTruth`. False: keep the unit of the teacher.
        """
        self.model = model.eval().requires_grad_(False) if isinstance(model, nn.Module) else model
        self.patch_size = patch_size or getattr(model, "patch_size", 1)
        self.same_images = same_images
        self.normalize = normalize

    @property
    def image_multiple(self) -> int:
        """Required divisor of the image sides in pixels, in addition to the student's patch size."""
        return self.patch_size if self.same_images else 1

    def describe(self) -> str:
        """Return a log line with the teacher and its license note, if any."""
        note = getattr(self.model, "license_note", None)
        described = f"Distilling from {type(self.model).__name__} (patch size {self.patch_size}) without tracks."
        return described if note is None else f"{described} LICENSE: {note}"

    def query_points(self, batch: Batch, generator: torch.Generator) -> None:
        """Return None: tracks are not supervised."""
        return None

    @torch.no_grad()
    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        prediction, valid = self.predict(batch.images), supervised(batch)
        if self.normalize and prediction.points is not None:
            prediction = in_unit(prediction, mean_distance(prediction.points, valid))
        return Target(prediction, valid=valid, sky=batch.sky, is_metric=batch.is_metric)

    def predict(self, images: Tensor) -> Prediction:
        """Run the teacher and return its prediction at the size of the images, unnormalized, at least float32.

        Args:
            images: RGB in [0, 1]. (B, S, 3, H, W)

        Raises:
            ValueError: If the shapes of the prediction do not match the images.
        """
        image_size = (images.shape[-2], images.shape[-1])
        own_size = tuple(whole_patches(side, self.patch_size) for side in image_size)
        predicted = self.model(images if own_size == image_size else resized_images(images, own_size))
        with torch.autocast(images.device.type, enabled=False):
            predicted = predicted.map(lambda tensor: tensor.to(torch.promote_types(tensor.dtype, torch.float32)))
            predicted = replace(predicted, tracks=None, visibility=None, track_conf=None, tracks_list=())
            check_frames(predicted, images.shape[:2], own_size)
            if own_size != image_size:
                predicted = resized(predicted, image_size)
            if predicted.points is None and predicted.depth is not None and predicted.pose_enc is not None:
                predicted = predicted.with_points()
        return predicted


def check_frames(prediction: Prediction, frames: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Check the shapes of a prediction.

    Raises:
        ValueError: If the prediction does not have the frames (B, S) and the image size (H, W).
    """
    for name, rest in (("pose_enc", (9,)), ("depth", (*image_size, 1)), ("points", (*image_size, 3))):
        tensor = getattr(prediction, name)
        if tensor is not None and tuple(tensor.shape) != (*frames, *rest):
            raise ValueError(f"teacher, {name}: expected {(*frames, *rest)}, got {tuple(tensor.shape)}.")


def resized_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images without cropping. (B, S, 3, H, W) → (B, S, 3, *size)"""
    new = F.interpolate(images.flatten(0, 1), size=size, mode="bicubic", antialias=True)
    return new.clamp(0, 1).unflatten(0, images.shape[:2])


def resized(prediction: Prediction, size: tuple[int, int]) -> Prediction:
    """Resize a prediction to images of another size with the same field of view.

    Depth and confidences are interpolated bilinearly. Points are unprojected from the resized depth. If depth or
    cameras are missing, points are interpolated.
    """

    def map_of(tensor: Tensor | None) -> Tensor | None:  # (B, S, H, W, C) or (B, S, H, W)
        if tensor is None:
            return None
        channels = tensor.flatten(0, 1) if tensor.ndim == 5 else tensor.flatten(0, 1)[..., None]
        new = F.interpolate(channels.movedim(-1, 1), size=size, mode="bilinear").movedim(1, -1)
        return new.reshape(*tensor.shape[:2], *size, *tensor.shape[4:])

    maps = {name: map_of(getattr(prediction, name)) for name in ("depth", "depth_conf", "points", "points_conf")}
    is_map = {name: tensor.shape[2:4] == prediction.image_size for name, tensor in prediction.extra.items()}
    extra = {name: map_of(tensor) if is_map[name] else tensor for name, tensor in prediction.extra.items()}
    new = replace(prediction, image_size=size, extra=extra, **maps)
    if new.points is None or new.depth is None or new.pose_enc is None:
        return new
    return replace(new.with_points(), points_conf=new.points_conf)


def in_unit(prediction: Prediction, unit: Tensor) -> Prediction:
    """Divide all lengths of each sequence by its `unit`. (B,)"""

    def divided(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor / unit.view(-1, *[1] * (tensor.ndim - 1))

    def moved(pose_enc: Tensor) -> Tensor:
        return torch.cat([divided(pose_enc[..., :3]), pose_enc[..., 3:]], -1)

    return replace(
        prediction,
        pose_enc=None if prediction.pose_enc is None else moved(prediction.pose_enc),
        pose_enc_list=tuple(moved(stage) for stage in prediction.pose_enc_list),
        depth=divided(prediction.depth),
        points=divided(prediction.points),
    )

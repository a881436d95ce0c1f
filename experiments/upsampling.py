"""Compare ways to upsample depth maps to the size of the original image on the procedural world.

    python -m experiments.upsampling

The depth map is the ground truth at every 5th pixel, the image is averaged over 5×5 pixels. Errors are measured at
all other pixels: mean relative error, and ratio of pixels with an error above 5 %.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from procedural_scenes.scene import STYLES
from procedural_scenes.world import SyntheticScenes
from streamvggt.export.upsampling import upsample_depth
from streamvggt.flags import whole

FACTOR = 5
SIZE = (335, 445)


def bilinear(depth: np.ndarray, *_) -> np.ndarray:
    return cv2.resize(depth, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def nearest(depth: np.ndarray, *_) -> np.ndarray:
    return depth.repeat(FACTOR, 0).repeat(FACTOR, 1)


METHODS = {"nearest": nearest, "bilinear": bilinear, "upsample_depth": upsample_depth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=whole(), default=8)
    arguments = parser.parse_args()
    batch = SyntheticScenes("test", style=STYLES["rooms"]).batch(0, arguments.scenes, 1, *SIZE, 0)
    original_from_image = np.diag([FACTOR, FACTOR, 1.0])
    original_from_image[:2, 2] = (FACTOR - 1) / 2
    errors = {name: [] for name in METHODS}
    for scene in range(arguments.scenes):
        truth, valid = batch.depth[scene, 0].numpy(), batch.valid[scene, 0].numpy()
        original = (batch.images[scene, 0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
        coarse, usable = (values[FACTOR // 2 :: FACTOR, FACTOR // 2 :: FACTOR] for values in (truth, valid))
        image = cv2.resize(original, coarse.shape[::-1], interpolation=cv2.INTER_AREA)
        for name, method in METHODS.items():
            depth = method(coarse, usable, image, original, original_from_image)
            errors[name].append(np.abs(depth - truth)[valid] / truth[valid])
    print("| | mean relative error | off by more than 5 % |\n|---|---|---|")
    for name, values in errors.items():
        values = np.concatenate(values)
        print(f"| {name} | {values.mean():.4f} | {(values > 0.05).mean():.2%} |")


if __name__ == "__main__":
    main()

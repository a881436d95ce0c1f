"""`python -m procedural_scenes preview --out DIR`: write an image and a clip of procedural scenes.

`… clip --out FILE.mp4`: write a video of one scene. `… clip --out FOLDER`: write photos of one scene.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from procedural_scenes.clips import render_clips
from procedural_scenes.scene import STYLES
from procedural_scenes.world import SPLITS, SyntheticScenes
from streamvggt.data.view import Batch
from streamvggt.flags import real, some_path, whole, word
from streamvggt.provenance import PROCEDURAL_MARK


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m procedural_scenes", description=__doc__)
    commands = parser.add_subparsers(required=True)
    preview = commands.add_parser("preview", help="write scenes.png and walk.mp4, and print the speed")
    preview.add_argument("--out", type=some_path, required=True, help="output folder")
    preview.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    preview.add_argument("--split", choices=SPLITS, default="train")
    preview.add_argument("--index", type=whole(0), default=0, help="index of the batch")
    preview.add_argument("--scenes", type=whole(), default=8)
    preview.add_argument("--frames", type=whole(), default=4, help="frames per scene in the image")
    preview.add_argument("--clip-frames", type=whole(), default=240)
    preview.add_argument("--size", type=whole(1, 16_384), nargs=2, default=(168, 224), metavar=("H", "W"))
    preview.add_argument("--device", type=word, default="cpu")
    preview.set_defaults(run=write_preview)
    clip = commands.add_parser("clip", help="write a video or photos of one scene")
    clip.add_argument(
        "--out", type=some_path, required=True, help="output file, .mp4, or output folder of photos with wide baselines"
    )
    clip.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    clip.add_argument("--split", choices=SPLITS, default="test")
    clip.add_argument("--index", type=whole(0), default=0, help="index of the scene")
    clip.add_argument("--frames", type=whole(), default=48)
    clip.add_argument("--stride", type=whole(), default=2, help="frame stride at 30 frames per second")
    clip.add_argument("--size", type=whole(1, 16_384), nargs=2, default=(336, 448), metavar=("H", "W"))
    clip.add_argument("--laps", type=real(0.01, 1000), help="laps of the camera in the video; 1 ends at the start")
    clip.add_argument("--crf", type=whole(0, 51), default=20, help="H.264 quality; larger is smaller (default: 20)")
    clip.add_argument("--scene-type", choices=STYLES, default="all")
    clip.set_defaults(run=write_clip_or_photos)
    render = commands.add_parser("render", help="render clips to disk for training; see ClipBatches")
    render.add_argument("folder", type=some_path, help="output folder; interrupted runs resume")
    render.add_argument("--scene-type", choices=STYLES, default="all")
    render.add_argument("--split", choices=SPLITS, default="train")
    render.add_argument("--seed", type=whole(0, 2**32 - 1), default=1)
    render.add_argument("--clips", type=whole(), default=6144)
    render.add_argument("--frames", type=whole(), default=8, help="frames per clip")
    render.add_argument("--size", type=whole(1, 16_384), default=112, help="side of the square images in pixels")
    render.set_defaults(run=write_clips)
    options = parser.parse_args(arguments)
    options.run(options)


def write_preview(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    world = SyntheticScenes(options.split, options.seed)
    height, width = options.size
    world.batch(options.index, 1, 2, height, width, 8, options.device)  # creates the texture atlas before timing
    began = time.perf_counter()
    batch = world.batch(options.index, options.scenes, options.frames, height, width, 48, options.device).to("cpu")
    seconds = time.perf_counter() - began
    Image.fromarray(contact_sheet(batch)).save(options.out / "scenes.png")
    print(f"{options.out / 'scenes.png'}: {batch.num_sequences * batch.num_frames / seconds:.0f} frames/s")

    began = time.perf_counter()
    write_clip(
        options.out / "walk.mp4",
        world.sequence(options.index, options.clip_frames, height, width, device=options.device),
    )
    print(f"{options.out / 'walk.mp4'}: {options.clip_frames / (time.perf_counter() - began):.0f} frames/s, written")


def write_clip_or_photos(options: argparse.Namespace) -> None:
    world = SyntheticScenes(options.split, options.seed, STYLES[options.scene_type])
    if options.out.suffix == ".mp4":
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_video(options, world)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        write_photos(options, world)


def write_photos(options: argparse.Namespace, world: SyntheticScenes) -> None:
    """Write the frames of a training clip, whose views overlap partially, as JPEGs."""
    batch = world.batch(options.index, 1, options.frames, *options.size)
    for number, image in enumerate(batch.images[0]):
        Image.fromarray(_bytes(image.permute(1, 2, 0))).save(
            options.out / f"photo_{number:02d}.jpg", quality=88, comment=PROCEDURAL_MARK
        )


def write_video(options: argparse.Namespace, world: SyntheticScenes) -> None:
    length = options.frames * options.stride
    with av.open(str(options.out), "w") as container:
        container.metadata["comment"] = PROCEDURAL_MARK
        stream = container.add_stream("libx264", rate=round(30 / options.stride), options={"crf": str(options.crf)})
        stream.height, stream.width, stream.pix_fmt = *options.size, "yuv420p"
        for number in range(0, length, options.stride):
            chunks = world.sequence(options.index, length, *options.size, start=number, chunk=1, num_laps=options.laps)
            batch = next(chunks)
            picture = _bytes(batch.images[0, 0].permute(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_clips(options: argparse.Namespace) -> None:
    world = SyntheticScenes(options.split, options.seed, STYLES[options.scene_type])
    render_clips(options.folder, world, options.clips, options.frames, options.size)


def contact_sheet(batch: Batch) -> np.ndarray:
    """Draw two rows per scene, a column per frame: images with tracks, inverse depth and ids. (..., 3) uint8"""
    rows = []
    for sequence in range(batch.num_sequences):
        depth = batch.depth[sequence]
        known = depth[batch.valid[sequence]]
        near, far = (known.min(), known.max()) if len(known) else (torch.tensor(1.0), torch.tensor(2.0))
        images = [_with_tracks(batch, sequence, frame) for frame in range(batch.num_frames)]
        below = []
        for frame in range(batch.num_frames):
            nearness = (1 / depth[frame].clamp(min=near) - 1 / far) / (1 / near - 1 / far)
            nearness = nearness.clamp(0, 1).masked_fill(~batch.valid[sequence, frame], 0)
            pair = torch.stack([_as_heat(nearness), _as_labels(batch.instance_ids[sequence, frame])])
            halves = pair[:, ::2, ::2].unbind(0)  # side by side at half size
            below.append(_bytes(torch.cat(halves, 1)))
        rows += [np.concatenate(images, 1), np.concatenate([b[:, : images[0].shape[1]] for b in below], 1)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def write_clip(path: Path, chunks) -> None:
    """Write an H.264 clip of image, inverse depth and ids side by side."""
    with av.open(str(path), "w") as container:
        stream = None
        for batch in chunks:
            for frame in range(batch.num_frames):
                nearness = torch.where(batch.valid[0, frame], 1 / batch.depth[0, frame].clamp(min=0.5), 0).cpu()
                image = batch.images[0, frame].cpu().permute(1, 2, 0)
                labels = _as_labels(batch.instance_ids[0, frame].cpu())
                picture = _bytes(torch.cat([image, _as_heat(nearness.clamp(0, 1)), labels], 1))
                picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
                if stream is None:
                    stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
                    stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _with_tracks(batch: Batch, sequence: int, frame: int) -> np.ndarray:
    picture = Image.fromarray(_bytes(batch.images[sequence, frame].permute(1, 2, 0)))
    if batch.tracks is None:
        return np.asarray(picture)
    draw = ImageDraw.Draw(picture)
    num_tracks = batch.tracks.shape[2]
    colors = _as_labels(torch.arange(1, num_tracks + 1))
    for (x, y), seen, color in zip(
        batch.tracks[sequence, frame].tolist(), batch.visibility[sequence, frame].tolist(), colors, strict=True
    ):
        if seen:
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=tuple(_bytes(color).tolist()))
    return np.asarray(picture)


def _as_heat(values: Tensor) -> Tensor:
    """Map 0 … 1 to black, red, yellow, white. (..., 3)"""
    return torch.stack([values * 3, values * 3 - 1, values * 3 - 2], -1).clamp(0, 1)


def _as_labels(ids: Tensor) -> Tensor:
    """Map each id to a color, 0 to black. (..., 3)"""
    phases = torch.tensor([0.0, 2.1, 4.2])
    color = 0.55 + 0.45 * (ids[..., None] * 2.4 + phases + (ids[..., None] * 0.37)).sin()
    return color * (ids[..., None] > 0)


def _bytes(values: Tensor) -> np.ndarray:
    return (values * 255).round().byte().numpy()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from None

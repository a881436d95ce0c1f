"""A world of one tilted plane, in batches by number: enough for a training to have something to learn."""

import torch

from streamvggt.data.view import Batch


class Planes:
    """Frames that slide along a textured plane; batch k is the same whenever it is asked for."""

    def __init__(self, num_sequences=1, num_frames=3, height=28, width=42, num_tracks=4):
        self.shape = (num_sequences, num_frames, height, width)
        self.num_tracks = num_tracks

    def __getitem__(self, index: int) -> Batch:
        batch, frames, height, width = self.shape
        generator = torch.Generator().manual_seed(index)
        tilt = torch.rand(batch, 1, 1, 1, generator=generator)
        shift = torch.arange(frames)[None, :, None, None] * 0.2 * torch.rand(batch, 1, 1, 1, generator=generator)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        depth = (2 + tilt * (x + shift)).expand(batch, frames, height, width).contiguous()
        phase = torch.rand(batch, 1, 3, 1, 1, generator=generator) * 6
        images = 0.5 + 0.5 * torch.sin(9 * (x + shift)[:, :, None] + 5 * y + phase)
        pose = torch.eye(4)[:3].repeat(batch, frames, 1, 1)
        pose[..., 0, 3] = -shift[..., 0, 0]
        intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
        start = torch.rand(batch, 1, self.num_tracks, 2, generator=generator) * torch.tensor([width - 1, height - 1])
        return Batch(
            images=images,
            depth=depth,
            valid=torch.ones(batch, frames, height, width, dtype=torch.bool),
            sky=torch.zeros(batch, frames, height, width, dtype=torch.bool),
            intrinsics=intrinsics.expand(batch, frames, 3, 3),
            cam_from_world=pose,
            is_metric=torch.zeros(batch, dtype=torch.bool),
            tracks=start.expand(-1, frames, -1, -1),
            visibility=torch.ones(batch, frames, self.num_tracks, dtype=torch.bool),
        )

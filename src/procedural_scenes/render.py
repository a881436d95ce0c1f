"""Render scenes: exact depth and ids by ray casting, then shading.

All tiles of all frames of all scenes are computed together (see `raycast.py`).
B scenes · S frames · F = B·S · J tiles · P pixels per tile · H×W pixels. Conventions: docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache

import torch
from torch import Tensor

from procedural_scenes.environment import CEILING, NUM_FACES, Environments, exit_points, inward_normals
from procedural_scenes.material import Materials
from procedural_scenes.raycast import RayBatch, intersect
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import Lights, Primitives, Scenes
from procedural_scenes.texture import atlas
from procedural_scenes.vectors import dot, largest_axis, length, unit
from streamvggt.geometry.camera import Cameras, invert_pose

TILE = 28
CHUNK_PIXELS = {"cpu": 1 << 17, "cuda": 1 << 22}
"""Number of pixels per shading chunk."""
NOISE_SIZE = 512
SHADOW_GAP = 0.01
"""Minimum distance between occluder and shadowed point in meters."""


@dataclass(frozen=True)
class RenderOutput:
    """Rendered images.

    Attributes:
        images: RGB in [0, 1]. (B, S, 3, H, W)
        depth: Distance along the optical axis; 0 for the sky. (B, S, H, W)
        instance_ids: 0 for the sky, then the faces of the surroundings, then objects from 1 + NUM_FACES. (B, S, H, W)
            int64
    """

    images: Tensor
    depth: Tensor
    instance_ids: Tensor


def render(scenes: Scenes, cameras: Cameras, times: Tensor, image_size: tuple[int, int]) -> RenderOutput:
    """Render the views of cameras.

    Args:
        scenes: B scenes.
        cameras: Cameras with intrinsics for `image_size`. (B, S)
        times: Times of moving objects in seconds. (B, S)
        image_size: Height and width in pixels.
    """
    num_scenes, num_frames = times.shape
    scene = torch.arange(num_scenes, device=times.device).repeat_interleave(num_frames)
    step = max(1, CHUNK_PIXELS[times.device.type] // (image_size[0] * image_size[1]))
    flat = Cameras(cameras.cam_from_world.flatten(0, 1), cameras.intrinsics.flatten(0, 1))
    chunks = []
    for start in range(0, len(scene), step):
        some = slice(start, start + step)
        chosen = Cameras(flat.cam_from_world[some], flat.intrinsics[some])
        chunks.append(_render_frames(select(scenes, scene[some]), chosen, times.flatten()[some], image_size))
    images, depth, ids = (
        torch.cat(parts).unflatten(0, (num_scenes, num_frames)) for parts in zip(*chunks, strict=True)
    )
    return RenderOutput(images, depth, ids)


def select(record, index: Tensor):
    """Index all tensors of a nested record."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return type(record)(**{n: select(v, index) if is_dataclass(v) else v[index] for n, v in values.items()})


def _render_frames(scenes: Scenes, cameras: Cameras, times: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Render one frame per scene: images (F, 3, H, W), depth (F, H, W), ids (F, H, W)."""
    primitives = scenes.primitives(times[:, None]).flatten()  # (F, N)
    tiles = _tiles(cameras, size)
    seen = _surfaces(scenes, primitives, tiles)
    color = _color(scenes, primitives, tiles, seen, cameras.intrinsics[tiles.frame, 0, 0])
    images = torch.stack([_untile(channel, size) for channel in color.unbind(-1)], 1)
    item = scenes.item_of_part.to(times.device)[(seen.surface - NUM_FACES).clamp(min=0)]
    ids = 1 + torch.where(seen.surface < NUM_FACES, seen.surface, NUM_FACES + item)
    ids = torch.where(seen.sky, 0, ids)
    depth = seen.depth.masked_fill(seen.sky, 0)
    return _tone_map(scenes, images, times), _untile(depth, size), _untile(ids, size)


def _tiles(cameras: Cameras, size: tuple[int, int]) -> RayBatch:
    """Return the rays of all pixels by tile. The last tiles exceed the image. Directions have depth 1."""
    down, across = -(-size[0] // TILE), -(-size[1] // TILE)
    device = cameras.intrinsics.device
    y, x = torch.arange(down * TILE, device=device), torch.arange(across * TILE, device=device)
    y = y.view(down, 1, TILE, 1).expand(down, across, TILE, TILE).reshape(-1, TILE * TILE)  # (tiles, P)
    x = x.view(1, across, 1, TILE).expand(down, across, TILE, TILE).reshape(-1, TILE * TILE)
    K = cameras.intrinsics[:, :, :, None, None]  # (F, 3, 3, 1, 1)
    x, y = (x - K[:, 0, 2]) / K[:, 0, 0], (y - K[:, 1, 2]) / K[:, 1, 1]  # (F, tiles, P)
    pose = invert_pose(cameras.cam_from_world)
    R = pose[:, :, :3, None, None]  # (F, 3, 3, 1, 1)
    direction = R[:, :, 0] * x[:, None] + R[:, :, 1] * y[:, None] + R[:, :, 2]  # (F, 3, tiles, P)
    frame = torch.arange(len(pose), device=device).repeat_interleave(down * across)
    return RayBatch(frame, pose[frame, :, 3], direction.transpose(1, 2).flatten(0, 1).contiguous())


def _untile(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert (J, P) to (F, H, W)."""
    down, across = -(-size[0] // TILE), -(-size[1] // TILE)
    image = values.view(-1, down, across, TILE, TILE).transpose(2, 3).reshape(-1, down * TILE, across * TILE)
    return image[:, : size[0], : size[1]]


@dataclass(frozen=True)
class SurfaceHits:
    """First intersections of rays. (J, P) each

    Attributes:
        depth: inf for the sky.
        surface: Face of the surroundings, or 6 + primitive.
    """

    depth: Tensor
    surface: Tensor
    sky: Tensor


def _surfaces(scenes: Scenes, primitives: Primitives, rays: RayBatch) -> SurfaceHits:
    around, face = exit_points(select(scenes.shells, rays.frame), rays.origin, rays.direction)
    hits = intersect(primitives, rays)
    thing = hits.distance < around
    depth = torch.where(thing, hits.distance, around)
    return SurfaceHits(depth, torch.where(thing, NUM_FACES + hits.primitive, face), depth.isinf())


def _color(scenes: Scenes, primitives: Primitives, rays: RayBatch, seen: SurfaceHits, focal: Tensor) -> Tensor:
    """Return the linear color of the intersections. (J, P, 3)"""
    frame = rays.frame[:, None]
    shells, lights = select(scenes.shells, rays.frame), select(scenes.lights, rays.frame)
    depth = seen.depth.masked_fill(seen.sky, 1.0)
    direction = rays.direction.mT  # (J, P, 3)
    points = rays.origin[:, None] + depth[..., None] * direction

    place, normal, axis = _on_surface(scenes, primitives, shells, rays, seen.surface, points)
    look = unit(direction)
    facing = -dot(normal, look)
    normal = torch.where(facing[..., None] < 0, -normal, normal)

    slant = facing.abs().clamp(min=0.05) ** 0.75
    pixel_size = depth / focal[:, None] / slant
    # The sky uses the material of the missing ceiling.
    up = (-look[..., 1]).clamp(min=0) + 0.15
    place = torch.where(seen.sky[..., None], 6 * look / up[..., None], place)
    axis = torch.where(seen.sky, 1, axis)
    pixel_size = torch.where(seen.sky, 6 / focal[:, None] / up, pixel_size)
    surface = torch.where(seen.sky, CEILING, seen.surface)

    x, y, z = place.unbind(-1)
    uv = torch.where(axis == 0, z, x), torch.where(axis == 1, z, y)
    material = Materials.unpacked(_rows(scenes.materials.packed(), frame, surface))
    albedo = material.albedo(atlas(points.device), uv, pixel_size)

    light = _light(shells, lights, primitives, rays.frame, points, normal, seen, axis)
    to_lamp = unit(lights.position[:, None] - points)
    halfway = unit(to_lamp - look)
    shine = dot(normal, halfway).clamp(min=0) ** 30 * material.gloss * light.lit
    color = albedo * light.diffuse + shine[..., None] * lights.color[:, None]

    hidden = 1 - torch.exp(-lights.haze[:, None] * depth)
    color = torch.lerp(color, lights.sky[:, None] * 0.8, hidden[..., None])
    clouds = (albedo.mean(-1, keepdim=True) - 0.3).clamp(-0.25, 0.4)
    sky = lights.sky[:, None] * (1.15 - 0.5 * up[..., None]) + clouds
    return torch.where(seen.sky[..., None], sky, color)


def _on_surface(
    scenes: Scenes, primitives: Primitives, shells: Environments, rays: RayBatch, surface: Tensor, points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the positions of points on their surfaces.

    Returns:
        Position in meters in object axes (J, P, 3), unit normal in world axes (J, P, 3), and the object axis closest to
        the normal (J, P). The pattern is perpendicular to this axis.
    """
    frame = rays.frame[:, None]
    of_shell = surface < NUM_FACES
    primitive = (surface - NUM_FACES).clamp(min=0)
    local_from_world = _rows(primitives.local_from_world.flatten(2), frame, primitive).unflatten(-1, (3, 4))
    linear = local_from_world[..., :3]
    local = local_from_world[..., 3] + linear[..., 0] * points[..., :1]
    local = local + linear[..., 1] * points[..., 1:2] + linear[..., 2] * points[..., 2:]  # (J, P, 3)

    x, y, z = local.unbind(-1)
    split = primitives.num_boxes
    is_box = primitive < split
    is_ball = ~is_box & primitives.is_ball[frame, (primitive - split).clamp(min=0)]
    on_box = torch.nn.functional.one_hot(largest_axis(local), 3) * local
    on_cap = y.abs() > torch.hypot(x, z)
    zero = torch.zeros_like(x)
    on_cylinder = torch.stack([x.masked_fill(on_cap, 0), torch.where(on_cap, y, zero), z.masked_fill(on_cap, 0)], -1)
    on_thing = torch.where(is_box[..., None], on_box, torch.where(is_ball[..., None], local, on_cylinder))
    in_world = linear[..., 0, :] * on_thing[..., :1] + linear[..., 1, :] * on_thing[..., 1:2]
    in_world = in_world + linear[..., 2, :] * on_thing[..., 2:]

    on_shell = inward_normals(shells, points.mT, surface.clamp(max=NUM_FACES - 1)).mT
    half = _rows(scenes.part_half, frame, primitive)
    place = torch.where(of_shell[..., None], points, local * half)
    normal = unit(torch.where(of_shell[..., None], on_shell, in_world))
    axis = largest_axis(torch.where(of_shell[..., None], on_shell, on_thing))
    return place, normal, axis


def _rows(table: Tensor, frame: Tensor, row: Tensor) -> Tensor:
    """Gather rows of tables. (F, N, C), (J, 1), (J, P) → (J, P, C)"""
    index = frame * table.shape[1] + row
    return table.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)


@dataclass(frozen=True)
class Light:
    """Illumination of points.

    Attributes:
        diffuse: Diffuse light on a white surface. (J, P, 3)
        lit: Ratio of lamp light that reaches the point. (J, P)
    """

    diffuse: Tensor
    lit: Tensor


def _light(
    shells: Environments,
    lights: Lights,
    primitives: Primitives,
    frame: Tensor,
    points: Tensor,
    normal: Tensor,
    seen: SurfaceHits,
    axis: Tensor,
) -> Light:
    to_lamp = lights.position[:, None] - points
    distance = length(to_lamp)
    cosine = dot(normal, to_lamp) / distance
    can_be_lit = (cosine > 0) & ~seen.sky
    shadow = intersect(primitives, RayBatch(frame, lights.position, -to_lamp.mT.contiguous()), can_be_lit)
    lit = can_be_lit & (shadow.distance > 1 - SHADOW_GAP / distance)
    lit = lit / (1 + (distance / lights.reach[:, None]) ** 2)
    up = 0.5 - 0.5 * normal[..., 1:2]
    ambient = torch.lerp(lights.ground_ambient[:, None], lights.sky_ambient[:, None], up)
    ambient = ambient * _ambient_occlusion(shells, points, seen.surface, axis)[..., None]
    return Light(ambient + lights.color[:, None] * (lit * cosine.clamp(min=0))[..., None], lit)


def _ambient_occlusion(shells: Environments, points: Tensor, surface: Tensor, axis: Tensor) -> Tensor:
    """Return the ambient light factor, which is lower in corners and near the floor. (J, P)"""
    x, y, z = points.unbind(-1)
    half_x, half_z = (half[:, None] for half in shells.half.unbind(1))
    to_wall_x, to_wall_z = half_x - x.abs(), half_z - z.abs()
    to_floor = torch.minimum(-y, shells.height[:, None] + y)
    own = surface < NUM_FACES

    def shade(distance: Tensor, of_axis: int) -> Tensor:
        dark = 0.45 * torch.exp(-distance.clamp(min=0) / 0.3)
        return 1 - dark.masked_fill(own & (axis == of_axis), 0)

    boxed = ~shells.round[:, None]
    walls = torch.where(boxed, shade(to_wall_x, 0) * shade(to_wall_z, 2), 1.0)
    return walls * shade(to_floor, 1)


def _tone_map(scenes: Scenes, images: Tensor, times: Tensor) -> Tensor:
    """Convert linear light to camera images. (F, 3, H, W)"""
    sensors = scenes.sensors
    # The noise depends on scene and time only, so repeated rendering is deterministic.
    dice = SceneRNG(scenes.seeds * 1_000_003 + (times * 1000).round().long(), "frame")
    gain = sensors.exposure * 2 ** (sensors.flicker * dice.normal())
    images = images.clamp(min=0) * (gain[:, None] * sensors.balance)[..., None, None]
    images = images * 1.25 / (1 + 0.25 * images)  # soft saturation of highlights
    images = images.clamp(min=1e-6) ** (1 / 2.2)
    height, width = images.shape[-2:]
    rows = (dice.integer(NOISE_SIZE)[:, None] + torch.arange(height, device=images.device)) % NOISE_SIZE
    columns = (dice.integer(NOISE_SIZE)[:, None] + torch.arange(width, device=images.device)) % NOISE_SIZE
    noise = _noise(images.device)[:, rows[:, :, None], columns[:, None]].transpose(0, 1)  # (F, 3, H, W)
    return (images + sensors.noise[:, None, None, None] * noise).clamp(0, 1)


@lru_cache(maxsize=4)
def _noise(device: torch.device) -> Tensor:
    """Return a noise tile. (3, NOISE_SIZE, NOISE_SIZE)"""
    return torch.randn(3, NOISE_SIZE, NOISE_SIZE, generator=torch.Generator().manual_seed(7)).to(device)

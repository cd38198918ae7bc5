"""What lies behind and under a building: sky, ground, skyline, its shadow, fog."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from retrieval.drawn.camera import Extent, Flat, Point
from retrieval.drawn.light import Colour, mix
from retrieval.drawn.stage import Stage

__all__ = ["draw_ground", "draw_haze", "draw_shadow", "draw_sky", "draw_skyline"]

_GROUNDS: tuple[Colour, ...] = (
    (112, 146, 74), (146, 152, 86), (170, 164, 154), (186, 174, 150), (132, 130, 128),
    (200, 186, 152), (150, 128, 108), (96, 130, 84),
)  # fmt: skip
REACH_M = 1500.0  # the horizon, near enough


def draw_haze(stage: Stage) -> None:
    """Fog between the camera and everything drawn so far."""
    if stage.light.fog_fraction > 0:
        fog = Image.new("RGB", stage.image.size, stage.light.horizon)
        stage.image.paste(Image.blend(stage.image, fog, stage.light.fog_fraction))


def draw_sky(stage: Stage, rng: np.random.Generator) -> None:
    """Zenith to horizon, with clouds of two sizes, and stars at night."""
    width, height = stage.image.size
    horizon = stage.camera.project([(0, stage.camera.eye[1] + 2000, 0)])
    end = max(0.3 * height, min(1.2 * height, horizon[0][1] if horizon else height))
    rows, columns = height // 8, width // 8
    share = np.clip(np.arange(rows) * 8 / end, 0, 1) ** 1.3  # (rows,)
    zenith, low = np.array(stage.light.zenith), np.array(stage.light.horizon)
    sky = zenith + (low - zenith) * share[:, None, None]  # (rows, 1, 3)
    coarse = Image.fromarray(rng.random((7, 6), dtype=np.float32) * 0.65)
    fine = Image.fromarray(rng.random((24, 14), dtype=np.float32) * 0.35)
    noise = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC)) + np.asarray(
        fine.resize((columns, rows), Image.Resampling.BICUBIC)
    )
    cover = stage.light.cloud_fraction
    cloud = np.clip((noise - 0.72 + 0.42 * cover) * 4.5, 0, 1) * (0.25 + 0.6 * cover)
    white = low + (255 - low) * (0.05 if stage.light.is_dark else 0.6)
    sky = sky + (white - sky) * cloud[:, :, None]
    sheet = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    stage.image.paste(sheet.resize((width, height), Image.Resampling.BICUBIC))
    if stage.light.is_dark and not stage.light.is_sunny:
        for x, y in rng.random((50, 2)).tolist():
            stage.ink.ellipse((x * width, y * end, x * width + 3, y * end + 3), (220, 225, 240))


def draw_skyline(stage: Stage, rng: np.random.Generator) -> None:
    """Hills or roofs far behind, pale with distance."""
    is_town = rng.random() < 0.5
    far = stage.camera.eye[1] + float(rng.uniform(160, 260))
    colour = mix(mix((70, 88, 84), stage.light.horizon, 0.55), stage.light.zenith, 0.15)
    x, points = -320.0, [(-320.0, far, 0.0)]
    height = float(rng.uniform(6, 22))
    while x < 320:
        step = float(rng.uniform(8, 24))
        height = float(np.clip(height + rng.normal(0, 6 if is_town else 4), 4, 30))
        points += [(x, far, height), (x + step, far, height)] if is_town else [(x, far, height)]
        x += step
    points.append((x, far, 0.0))
    stage.fill(points, colour)


def draw_ground(stage: Stage, rng: np.random.Generator) -> None:
    """Lawn, sand or asphalt to the horizon, and on it a street, a paved square or a path."""
    stage.face(_floor(-REACH_M, REACH_M, -REACH_M, REACH_M), _choice(_GROUNDS, rng))
    near = stage.camera.eye[1]
    for distance in (50, 60, 72, 86, 104, 125, 150, 180):  # the farther, the more air before it
        far = _floor(-REACH_M, REACH_M, near + distance, REACH_M)
        stage.fill(far, stage.light.horizon, 22)
    for x, y, size, shade in rng.random((40, 4)).tolist():
        cx, cy, r = (x - 0.5) * 60, near + y * 50, 0.5 + 2.5 * size
        patch = [(cx + r * math.cos(t), cy + 0.6 * r * math.sin(t), 0.0) for t in range(6)]
        stage.fill(patch, (255, 250, 230) if shade > 0.5 else (10, 14, 10), 14)
    kind = rng.random()
    if kind < 0.45:
        _street(stage, -float(rng.uniform(4, 8)), float(rng.uniform(5, 8)))
    elif kind < 0.75:
        _paving(stage, near)
    else:
        stage.face(_floor(-1.8, 1.8, near, 0.0), (196, 184, 160))


def _choice(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _floor(x0: float, x1: float, y0: float, y1: float) -> list[Point]:
    """A rectangle on the ground."""
    return [(x0, y0, 0.0), (x1, y0, 0.0), (x1, y1, 0.0), (x0, y1, 0.0)]


def _paving(stage: Stage, near: float) -> None:
    slab = 1.5
    pairs: list[tuple[Point, Point]] = [
        ((slab * step, near, 0.0), (slab * step, 0.0, 0.0)) for step in range(-30, 31)
    ]
    for step in range(int(-near / slab)):
        pairs.append(((-45.0, -slab * step, 0.0), (45.0, -slab * step, 0.0)))
    stage.lines(pairs, (0, 0, 0), 22)


def _street(stage: Stage, kerb: float, width: float) -> None:
    """Asphalt with dashes between two pavements; the kerb is its side towards the building."""
    pavement, reach = (178, 174, 166), 200.0
    bands: tuple[tuple[float, float, Colour], ...] = (
        (kerb - width - 2.2, kerb - width, pavement),
        (kerb, 0.0, pavement),
        (kerb - width, kerb, (92, 92, 96)),
        (kerb, kerb + 0.25, (206, 204, 198)),
    )
    for start, end, colour in bands:
        stage.face(_floor(-reach, reach, start, end), colour)
    middle = kerb - width / 2
    for step in range(-12, 13):
        dash = _floor(5.0 * step, 5.0 * step + 2.4, middle, middle + 0.16)
        stage.face(dash, (226, 224, 214))


def draw_shadow(stage: Stage, extent: Extent) -> None:
    """The building's own shadow on the ground: its foot and its shifted top, as one outline."""
    sun = stage.light.sun
    if not stage.light.is_sunny:
        return
    length = min(0.7 * extent.height / max(0.12, sun[2]), 3 * extent.height)
    dx, dy = -sun[0] * length, -sun[1] * length
    half = extent.width / 2
    foot = [(-half, 0.0), (half, 0.0), (half, extent.depth), (-half, extent.depth)]
    corners = _hull(foot + [(x + dx, y + dy) for x, y in foot])
    stage.fill([(x, y, 0.0) for x, y in corners], (14, 16, 34), 84)


def _hull(points: list[Flat]) -> list[Flat]:
    """Convex hull by Andrew's monotone chain."""

    def chain(ordered: list[Flat]) -> list[Flat]:
        kept: list[Flat] = []
        for p in ordered:
            while len(kept) > 1 and (
                (kept[-1][0] - kept[-2][0]) * (p[1] - kept[-2][1])
                <= (kept[-1][1] - kept[-2][1]) * (p[0] - kept[-2][0])
            ):
                kept.pop()
            kept.append(p)
        return kept[:-1]

    ordered = sorted(points)
    return chain(ordered) + chain(ordered[::-1])

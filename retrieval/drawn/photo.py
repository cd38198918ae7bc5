"""One photo: the hour, the place it is taken from, what else is in it, and the lens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from retrieval.drawn.buildings import BUILDINGS, car, lamp_post, random_house, tree
from retrieval.drawn.parts import Part, floor, put
from retrieval.errors import UsageError

Array = NDArray[np.float64]
NEAR_M = 0.4  # a face that comes nearer is left out: it would land millions of pixels away
SHEET_SCALE = 2  # drawn larger and reduced, as smoothing of edges
HALO_SCALE = 8  # halos are blurred anyway: a sheet 8 times smaller is enough
LAMPS = np.array([(255, 214, 130), (255, 196, 104), (255, 232, 178), (240, 180, 96)])

Pixels = NDArray[np.int_]  # width and height
GROUNDS = ((112, 146, 74), (146, 152, 86), (170, 164, 154), (186, 174, 150), (132, 130, 128))
HOURS = (  # height of the sun, its tint, the sky's tint, zenith, horizon, lit windows, weight
    (17, (0.62, 0.50, 0.36), (0.57, 0.59, 0.64), (104, 152, 205), (245, 226, 196), 0.03, 0.30),
    (48, (0.67, 0.64, 0.58), (0.55, 0.58, 0.62), (58, 122, 204), (188, 217, 240), 0.00, 0.34),
    (8, (0.62, 0.40, 0.26), (0.50, 0.44, 0.50), (74, 78, 140), (250, 168, 106), 0.40, 0.12),
    (12, (0.34, 0.28, 0.20), (0.27, 0.29, 0.40), (10, 14, 36), (46, 52, 92), 0.60, 0.10),
    (50, (0.06, 0.06, 0.06), (0.84, 0.86, 0.88), (150, 160, 170), (214, 217, 219), 0.05, 0.14),
)


class Light(NamedTuple):
    """What falls on the faces, and what stands behind them; colours are red, green and blue."""

    sun: Array  # unit vector towards it; at night, towards a floodlight
    sun_tint: Array  # 1 leaves white paint white
    sky_tint: Array
    zenith: Array  # colour of the sky overhead
    horizon: Array
    lit_fraction: float  # of the windows, 0-1
    is_dark: bool  # lamps are on

    def tint(self, normals: Array) -> Array:
        """What is left (N, 3) of the colours of faces with these normals (N, 3)."""
        normals = normals / np.maximum(1e-9, np.linalg.norm(normals, axis=1, keepdims=True))
        facing = np.maximum(0.0, normals @ self.sun)[:, None]
        # A wall sees half of the sky, a roof all of it: that alone gives form when overcast.
        return np.asarray((0.86 + 0.14 * normals[:, 2:]) * self.sky_tint + facing * self.sun_tint)


class Camera(NamedTuple):
    """Where a photo is taken from."""

    eye: Array  # metres
    axes: Array  # unit vectors (3, 3) to the right, up and forward
    focal: float  # pixels
    centre: Array  # where the optical axis meets the photo, pixels

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) in metres of points (N, 3)."""
        seen = (points - self.eye) @ self.axes.T
        flat = seen[:, :2] * (1, -1) * self.focal / np.maximum(seen[:, 2:], NEAR_M)
        return flat + self.centre, seen[:, 2]


def render(
    image: Image.Image, faces: Part, camera: Camera, light: Light, rng: Generator
) -> Image.Image:
    """Paint the faces that are turned to the camera on a backdrop of twice the photo's size.

    Later faces cover earlier ones; `rng` draws which windows are lit.
    """
    points = np.array([corner for face in faces for corner in face.corners], dtype=float)
    counts = np.array([len(face.corners) for face in faces])
    first = np.cumsum(counts) - counts
    second, third = first + 1, first + np.minimum(2, counts - 1)
    pixels, depth = camera.project(points)
    ab, ac = pixels[second] - pixels[first], pixels[third] - pixels[first]
    is_ball = counts == 2
    is_seen = is_ball | (ab[:, 0] * ac[:, 1] < ab[:, 1] * ac[:, 0])
    is_seen &= np.minimum.reduceat(depth, first) > NEAR_M
    normals = np.cross(points[second] - points[first], points[third] - points[first])
    normals[is_ball] = (0.0, -0.6, 0.5)  # half in the sun
    colours, is_lit = _shaded(faces, normals, light, rng)
    halo = Image.new("RGB", (image.width // HALO_SCALE, image.height // HALO_SCALE))
    ink, glow = ImageDraw.Draw(image, "RGBA"), ImageDraw.Draw(halo)
    for index in np.flatnonzero(is_seen).tolist():
        outline = pixels[first[index] : first[index] + counts[index]]
        if is_ball[index]:
            reach = np.linalg.norm(outline[1] - outline[0])
            disc = np.concatenate([outline[0] - reach, outline[0] + reach])
            ink.ellipse(disc.tolist(), colours[index])
            glow.ellipse((disc / HALO_SCALE).tolist(), 0)  # leaves hide the lamps behind them
            continue
        ink.polygon(outline.ravel().tolist(), colours[index])
        if is_lit[index]:
            glow.polygon((outline / HALO_SCALE).ravel().tolist(), colours[index][:3])
    image = image.reduce(SHEET_SCALE)
    halo = halo.filter(ImageFilter.GaussianBlur(2.5)).resize(image.size)
    return ImageChops.screen(image, halo) if light.is_dark else image


def _shaded(faces: Part, normals: Array, light: Light, rng: Generator) -> tuple[list[Any], Any]:
    """Colour with alpha of each face under the light, and whether it sends out light."""
    kinds = np.array([face.kind for face in faces])
    paint = np.array([face.colour for face in faces], dtype=float)
    is_glass, is_lamp = kinds == "glass", (kinds == "lamp") & light.is_dark
    is_lit = is_glass & (rng.random(len(faces)) < light.lit_fraction)
    gleam = rng.uniform(0.12, 0.42, (len(faces), 1))
    colours = paint * light.tint(normals)
    colours[is_glass] = ((30, 40, 52) + gleam * (light.zenith - (30, 40, 52)))[is_glass]
    colours[is_lit] = LAMPS[rng.integers(len(LAMPS), size=int(is_lit.sum()))]
    colours[is_lamp] = paint[is_lamp]
    rgb = np.clip(colours, 0, 255).astype(int).tolist()
    return [(*c, face.alpha) for c, face in zip(rgb, faces, strict=True)], is_lit | is_lamp


def draw_photo(building: int, photo: int, *, seed: int = 0) -> Image.Image:
    """Draw one view of a building, as an RGB picture with sides of 320 to 640 pixels.

    Args:
        building: Number of the building, below `NUM_CLASSES`.
        photo: Number of the view.
        seed: Another seed gives other views of the same buildings.

    Raises:
        UsageError: One of the numbers is negative, or there is no such building.
    """
    if min(building, photo, seed) < 0 or building >= len(BUILDINGS):
        raise UsageError(
            f"draw_photo: found building {building}, photo {photo}, seed {seed}, but each must be "
            f"0 or more, and building at most {len(BUILDINGS) - 1}. Give numbers in this range."
        )
    return _draw([*BUILDINGS.values()][building], np.random.default_rng([seed, building, photo]))


def draw_distractor(photo: int, *, seed: int = 0) -> Image.Image:
    """Draw a house of no class."""
    rng = np.random.default_rng([seed, len(BUILDINGS), photo])
    return _draw(random_house(rng), rng)


def _draw(building: Part, rng: Generator) -> Image.Image:
    corners = np.array([corner for face in building for corner in face.corners])
    size = np.minimum(np.ptp(corners, axis=0), (99, 12, 99))  # width, depth, height
    light = _choose_light(rng)
    pixels = SHEET_SCALE * _choose_pixels(size, rng)
    camera = _choose_camera(size, pixels, rng)
    things = [(0.0, building), *_surroundings(size, camera.eye, rng)]
    farthest_first = sorted(things, key=lambda thing: -thing[0])
    faces = [*_ground(rng), *(face for _, thing in farthest_first for face in thing)]
    backdrop = _backdrop(pixels, camera, light, rng)
    return _through_lens(render(backdrop, faces, camera, light, rng), rng)


def _choose_light(rng: Generator) -> Light:
    hour = rng.choice(len(HOURS), p=[weight for *_, weight in HOURS])
    height_deg, *colours, lit, _ = HOURS[hour]
    height = math.radians(height_deg + rng.uniform(-4, 6))
    side = math.radians(rng.uniform(-105, 105) * (0.4 if lit > 0.5 else 1))
    sun = (math.cos(height) * math.sin(side), -math.cos(height) * math.cos(side), math.sin(height))
    sun_tint, sky_tint, zenith, horizon = np.array(colours)
    return Light(np.array(sun), sun_tint, sky_tint, zenith, horizon, lit, lit > 0.2)


def _choose_pixels(size: Array, rng: Generator) -> Pixels:
    """Width and height of the photo; tall buildings are mostly taken upright."""
    long_side = int(rng.integers(400, 641))
    short_side = max(320, int(long_side / rng.choice([1.0, 1.25, 1.33, 1.5])))
    is_upright = rng.random() < (0.85 if size[2] > 1.15 * size[0] else 0.12)
    return np.array((short_side, long_side) if is_upright else (long_side, short_side))


def _choose_camera(size: Array, pixels: Pixels, rng: Generator) -> Camera:
    """A place before the building, and a focal length with which it about fills the photo."""
    width, depth, height = size
    azimuth = math.radians(rng.triangular(-48, 0, 48))  # further round, the front is too thin
    reach = size.max() * rng.uniform(1.1, 2.4) + 4
    eye_height = 1.7 if rng.random() < 0.7 else rng.uniform(3, min(12, 0.55 * height + 4))
    eye = np.array([reach * math.sin(azimuth), -reach * math.cos(azimuth), eye_height])
    # Looking up by a random share, verticals converge, as with a hand-held camera.
    rise = rng.uniform(0, 0.6) * (height / 2 - eye_height)
    forward = np.array([-eye[0], depth / 4 - eye[1], rise])
    right = np.cross(forward, (0, 0, 1))
    axes = np.array([right, np.cross(right, forward), forward])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    camera = Camera(eye, axes, 1.0, np.zeros(2))
    box = [(x, y, z) for x in (-width / 2, width / 2) for y in (0, depth) for z in (0, height)]
    corners, _ = camera.project(np.array(box))
    low, high = corners.min(axis=0), corners.max(axis=0)
    fill = rng.uniform(1.15, 1.45) if rng.random() < 0.2 else rng.uniform(0.76, 1.06)
    focal = float(fill * (pixels / (high - low)).min())
    centre = pixels * rng.uniform((0.43, 0.46), (0.57, 0.58)) - focal * (low + high) / 2
    return camera._replace(focal=focal, centre=centre)


def _backdrop(pixels: Pixels, camera: Camera, light: Light, rng: Generator) -> Image.Image:
    """Sky with clouds, ground that fades with distance, and a far skyline between them."""
    far, _ = camera.project(camera.eye + 5000 * camera.axes[2:] * (1, 1, 0))
    horizon = float(far[0, 1])
    width, height = (pixels // 8).tolist()  # all of it is soft, so an eighth of the size does
    row = 8 * np.arange(height)[:, None, None]
    sky = light.zenith + (light.horizon - light.zenith) * np.clip(row / horizon, 0, 1) ** 1.3
    cover = rng.uniform(0, 0.8)
    noise = [Image.fromarray(rng.random((n, n), np.float32)) for n in (6, 18)]
    coarse, fine = (np.asarray(image.resize((width, height)))[:, :, None] for image in noise)
    clouds = np.clip((0.65 * coarse + 0.35 * fine - 0.72 + 0.42 * cover) * 4.5, 0, 1)
    clouds *= 0.25 + 0.6 * cover
    sky = sky + (255 - light.horizon) * (0.1 if light.is_dark else 0.8) * clouds
    distance = camera.eye[2] * camera.focal / np.maximum(0.5, row - horizon)
    land = GROUNDS[rng.integers(len(GROUNDS))] * light.tint(np.array([[0.0, 0.0, 1.0]]))
    land = light.horizon + (land - light.horizon) * np.exp(-distance / 220)
    soft = np.clip(np.where(row < horizon, sky, land), 0, 255).astype(np.uint8)
    image = Image.fromarray(soft).resize(tuple(pixels.tolist()), Image.Resampling.BILINEAR)
    colour = 0.4 * np.array((70, 88, 84)) + 0.5 * light.horizon + 0.1 * light.zenith
    xs = np.linspace(-10, image.width + 10, max(9, int(16 * image.width / camera.focal)))
    ups = camera.focal / 220 * np.clip(12 + np.cumsum(rng.normal(0, 4, xs.size)), 4, 30)
    ridge = [(-10, horizon + 4), *zip(xs, horizon - ups, strict=True), (xs[-1], horizon + 4)]
    ImageDraw.Draw(image).polygon(ridge, tuple(colour.astype(int).tolist()))
    return image


def _ground(rng: Generator) -> Part:
    """A street or a path, in pieces, because those too near are left out."""
    kerb, width = -rng.uniform(4, 8), rng.uniform(5, 8)
    bands = [(kerb - width - 2.2, 2.2, (178, 174, 166)), (kerb - width, width, (92, 92, 96))]
    bands += [(kerb, -kerb, (178, 174, 166)), (kerb - width / 2, 0.16, (226, 224, 214))]
    if rng.random() < 0.5:
        return [floor(x, y, (6, d), c) for x in range(-120, 120, 6) for y, d, c in bands]
    return [floor(-1.8, y, (3.6, 2), (196, 184, 160)) for y in range(-60, 0, 2)]


def _surroundings(size: Array, eye: Array, rng: Generator) -> Iterator[tuple[float, Part]]:
    """What stands beside, behind and before the building, with how far behind its front."""
    for side in (-1, 1):
        y, slant = rng.uniform(1.5, 6), side * eye[0] / -eye[1]
        if rng.random() < 0.75 and slant < 0.45:  # else it would stand in the way
            house = random_house(rng)
            half = max(corner[0] for face in house for corner in face.corners)
            x = side * (size[0] / 2 + half + rng.uniform(1.5, 9) + 6 * max(0, slant))
            yield y, put(house, x, y)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.choice((-1, 1)) * rng.uniform(0.8, 2.2) * size[0], size[1] + rng.uniform(0, 20)
        yield y, put(tree(rng), x, y)
    for make, chance in ((car, 0.5), (tree, 0.35), (lamp_post, 0.4)):
        share, target = rng.uniform(0.15, 0.5), rng.uniform(-0.75, 0.75) * size[0]
        y = share * eye[1] - 1
        if rng.random() < chance:
            yield y, put(make(rng), target + share * (eye[0] - target), y)


def _through_lens(image: Image.Image, rng: Generator) -> Image.Image:
    """Blur, exposure, white balance, vignette, grain; now and then black and white."""
    image = image.filter(ImageFilter.GaussianBlur(float(rng.choice([0.0, 0.0, 0.6, 1.2]))))
    is_grey = rng.random() < 0.06
    if is_grey:
        image = image.convert("L").convert("RGB")
    pixels = (np.asarray(image, np.float32) - 118) * np.float32(rng.uniform(0.9, 1.1)) + 118
    balance = np.ones(3) if is_grey else rng.normal(1, 0.02, 3)
    pixels *= (rng.uniform(0.93, 1.1) * balance).astype(np.float32)
    x, y = (np.linspace(-1, 1, side, dtype=np.float32) ** 2 for side in image.size)
    pixels *= (1 - np.float32(rng.uniform(0, 0.15)) * (x[None, :] + y[:, None]))[:, :, None]
    grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32)
    pixels += grain * np.float32(rng.uniform(1.5, 6.0))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

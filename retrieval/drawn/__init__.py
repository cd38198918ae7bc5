"""A small gallery of buildings, drawn: the photos of the demo and of the tests.

Photos cannot be shipped or downloaded here, so twelve buildings are drawn in three dimensions
and photographed from many places, by day and by night. Building, photo and seed decide every
pixel, so a gallery is the same on each machine with the same Pillow and NumPy.

    camera         the pinhole camera, and where it stands
    light          sun, sky, lamps, weather
    stage          the sheet: shaded polygons, walls addressed in metres
    solids         blocks, roofs, round towers, domes
    openings       windows, doors, clocks
    civic          six public buildings
    dwellings      six buildings to live and work in
    houses         houses from a random plan
    buildings      the list of all buildings
    backdrop       sky, ground, skyline, shadow, fog
    surroundings   neighbours, trees, people, traffic
    photo          one photo, through lens and sensor
    odd_files      broken and unusual files
    gallery        a gallery in a folder
"""

from __future__ import annotations

from retrieval.drawn.gallery import NUM_CLASSES, DrawnGallery, draw_gallery
from retrieval.drawn.photo import draw_photo

__all__ = ["NUM_CLASSES", "DrawnGallery", "draw_gallery", "draw_photo"]

"""A small gallery of buildings, drawn: the photos of the demo and of the tests.

Photos cannot be shipped here, so twelve buildings are drawn in three dimensions, from many places,
by day and by night. A gallery is the same on each machine with the same Pillow and NumPy.

    parts, buildings    flat faces in metres, and the twelve buildings made of them
    photo               one photo with its surroundings: faces to pixels
    gallery             a gallery in a folder, with odd files
"""

from retrieval.drawn.gallery import NUM_CLASSES, DrawnGallery, draw_gallery
from retrieval.drawn.photo import draw_photo

__all__ = ["NUM_CLASSES", "DrawnGallery", "draw_gallery", "draw_photo"]

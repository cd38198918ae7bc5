"""Photos opened within a task of Ray, so that one that ends the worker costs one photo.

The first attempt decodes in the worker itself, as fast as can be. Should a photo crash the
decoder, or hang until the watchdog ends the worker, then Ray runs the task again, without end
if it must. So every later attempt decodes in a child process, which may die in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import ray

from retrieval.errors import ImageError
from retrieval.images import Preprocessing
from retrieval.images.fetch import OpenedPhoto, open_photo
from retrieval.images.subprocess_decode import IsolatedOpener, Opener
from retrieval.images.watchdog import ends_after

__all__ = ["open_photos"]

# The largest photo that is not refused takes 3 s; a machine may be much slower and busy.
_PATIENCE_S: Final = 120.0


def open_photos(
    contents: Sequence[bytes | ImageError],
    preprocessing: Preprocessing,
    *,
    opener: Opener = open_photo,
    patience_s: float = _PATIENCE_S,
) -> list[OpenedPhoto]:
    """Decode photos, in their order; for use in a task of Ray.

    Args:
        contents: From `fetch_photos`.
        preprocessing: How to decode.
        opener: What opens one photo; a function of a module.
        patience_s: Seconds for the decoding of one photo; after that it counts as hanging.

    Returns:
        Each photo, or the reason why not; `crashed` and `timed_out` come of later attempts.
        In a first attempt, or outside of a task, such a photo ends this process.

    Cost: that of `open_photo`. In a later attempt a second more for each call, and for each
    photo that ends its child.
    """
    if _attempt() > 0:
        with IsolatedOpener(patience_s, opener) as isolated:
            return [isolated.open(content, preprocessing) for content in contents]
    photos = []
    with ends_after(patience_s) as begin_anew:
        for content in contents:
            begin_anew()
            photos.append(opener(content, preprocessing))
    return photos


def _attempt() -> int:
    """How often the task that runs here was begun before: 0 the first time, and in no task."""
    if not ray.is_initialized():
        return 0
    # Ray has no public way to ask; its own log lines come from here.
    worker = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())

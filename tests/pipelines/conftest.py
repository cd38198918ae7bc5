"""Fixtures of the jobs' tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def sheets_drawn_once():
    """The contact sheet of a picture is drawn once: that takes a second, and many runs make it."""
    from pipelines.augment import run

    draw, sheets = run.__globals__["contact_sheet"], {}

    def drawn_once(picture, seed, image_id):
        key = picture.shape, picture.tobytes(), seed, image_id
        if key not in sheets:
            sheets[key] = draw(picture, seed, image_id)
        return sheets[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run.__globals__, "contact_sheet", drawn_once)
        yield

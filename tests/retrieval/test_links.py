"""Links in a gallery: those that lead out are told and not followed, unless that is asked for."""

from __future__ import annotations

import pytest

from retrieval.errors import ImageError
from retrieval.gallery.listing import LINK_OUTSIDE_BYTES, list_photos
from retrieval.images.fetch import fetch_photos, hash_photos


@pytest.fixture
def gallery(tmp_path):
    """Two photos; links to a file, a folder and nothing outside, and to those inside."""
    outside = tmp_path / "outside"
    for file in (tmp_path / "gallery" / "a.jpg", outside / "secret.jpg", outside / "deep" / "b"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.name.encode())
    gallery = tmp_path / "gallery"
    (gallery / "c").mkdir()
    (gallery / "c" / "c.jpg").write_bytes(b"c.jpg")
    (gallery / "file").symlink_to(outside / "secret.jpg")
    (gallery / "folder").symlink_to("../outside")
    (gallery / "c" / "nowhere").symlink_to("../../outside/nothing")
    (gallery / "inside").symlink_to("c/c.jpg")
    (gallery / "d").symlink_to("c")
    return gallery


def sizes_of(gallery, **settings):
    photos = list_photos(str(gallery), **settings)
    return dict(zip(*photos.select(["image_id", "size_bytes"]).to_pydict().values(), strict=True))


OUT = LINK_OUTSIDE_BYTES
EXPECTED = {
    "a.jpg": 5,
    "c/c.jpg": 5,
    "c/nowhere": OUT,
    "d/c.jpg": 5,
    "d/nowhere": OUT,
    "file": OUT,
    "folder": OUT,
    "inside": 5,
}


def test_a_link_that_leads_out_is_one_row_and_what_lies_there_none(gallery):
    assert sizes_of(gallery) == EXPECTED


def test_the_gallery_itself_may_be_a_link(gallery, tmp_path):
    (tmp_path / "link").symlink_to("gallery")
    (tmp_path / "link-to-link").symlink_to(tmp_path / "link")
    for name in ("link", "link-to-link"):
        assert sizes_of(tmp_path / name) == EXPECTED


def test_all_are_followed_if_that_is_asked_for(gallery):
    followed = sizes_of(gallery, follow_links=True)
    links = {"file": 10, "folder/secret.jpg": 10, "folder/deep/b": 1}
    nowhere = {name: followed[name] for name in ("c/nowhere", "d/nowhere")}
    inside = {name: size for name, size in EXPECTED.items() if size != OUT}
    assert followed == {**inside, **links, **nowhere}
    assert min(nowhere.values()) > 0  # a reject, since it cannot be read


def test_a_folder_beside_the_gallery_whose_name_begins_alike_is_outside(gallery):
    beside = gallery.with_name("gallery-2")
    beside.mkdir()
    (beside / "x.jpg").write_bytes(b"x")
    (gallery / "beside").symlink_to(beside / "x.jpg")
    assert sizes_of(gallery) == {**EXPECTED, "beside": OUT}


def test_a_chain_of_links_counts_by_where_it_ends(gallery):
    (gallery / "out").symlink_to("file")
    (gallery.parent / "outside" / "back").symlink_to(gallery / "a.jpg")
    (gallery / "out-and-back").symlink_to(gallery.parent / "outside" / "back")
    assert sizes_of(gallery) == {**EXPECTED, "out": OUT, "out-and-back": 5}


def test_what_is_not_followed_is_not_fetched_and_becomes_a_reject(gallery):
    photos = list_photos(str(gallery))
    uris, sizes = photos["uri"].to_pylist(), photos["size_bytes"].to_pylist()
    found = dict(zip(photos["image_id"].to_pylist(), fetch_photos(uris, sizes), strict=True))
    refused = {name: one for name, one in found.items() if isinstance(one, ImageError)}
    assert {name for name, size in EXPECTED.items() if size == OUT} == refused.keys()
    for error in refused.values():
        assert str(error) == (
            "link_outside: a link that leads out of the gallery; `follow_links` follows it"
        )
    assert b"secret.jpg" not in found.values()
    hashes = dict(zip(found, hash_photos(uris, sizes), strict=True))
    assert {name for name, value in hashes.items() if value is None} == refused.keys()

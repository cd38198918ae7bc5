"""Jobs on a gallery with links that lead out of it."""

from __future__ import annotations

import re

import pytest

from pipelines.embed import EmbedConfig, run
from pipelines.scan import presume_photos
from retrieval.errors import StorageError, UsageError
from retrieval.index import open_index, read_index
from retrieval.index.staging import read_rejects
from tests.conftest import COLOURS, photo_bytes

FIELDS = {"weights": "none", "image_size": 32, "num_actors": 1}


def test_each_listed_link_is_a_reject_until_it_is_followed(tmp_path, ray_session):
    gallery, index = tmp_path / "gallery", str(tmp_path / "index")
    for path in (gallery / "a.jpg", tmp_path / "outside" / "b.jpg"):
        path.parent.mkdir()
        path.write_bytes(photo_bytes(COLOURS["red" if path.name == "a.jpg" else "blue"]))
    (gallery / "file.jpg").symlink_to(tmp_path / "outside" / "b.jpg")
    (gallery / "folder").symlink_to(tmp_path / "outside")

    def embedded(**settings):
        report = run(str(gallery), index, EmbedConfig(**FIELDS, **settings)).to_json()
        path = open_index(index).run.get("rejects")
        rejects = read_rejects(index, [path] if path else []).to_pylist()
        assert report["num_listed"] == report["num_rows"] + len(rejects)
        return read_index(index).ids, {row["image_id"]: row["reason"] for row in rejects}

    links = {"file.jpg": "link_outside", "folder": "link_outside"}
    assert embedded() == (["a.jpg"], links)
    assert embedded(follow_links=True) == (["a.jpg", "file.jpg", "folder/b.jpg"], {})
    (gallery / "a.jpg").unlink()
    with pytest.raises(StorageError) as caught:
        embedded()
    assert str(caught.value) == (
        f"{gallery}: none of the 2 files can be embedded (2 link_outside; such as file.jpg: a link "
        f"that leads out of the gallery; `follow_links` follows it). A folder that holds photos is "
        f"needed; nothing was committed. See `follow_links`."
    )


def test_classes_that_are_links_are_told_to_whoever_trains_on_them(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "class").symlink_to("../elsewhere")
    hint = "Links that lead out of the folder are not followed (1); see `follow_links`."
    with pytest.raises(UsageError, match=rf"lies in a class folder, .* {re.escape(hint)}$"):
        presume_photos(str(tmp_path / "photos"), "folder")
    assert capsys.readouterr().err == f"{tmp_path}/photos: {hint}\n"
    scan = presume_photos(str(tmp_path / "photos"), "folder", follow_links=True)
    assert (scan.photos["image_id"].to_pylist(), scan.num_listed) == (["class/a.jpg"], 1)
    assert capsys.readouterr().err == ""

"""What a line says that lies at a place, and that no advice is to write over it."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest

from pipelines.embed.inputs import Listing, labelled
from retrieval.errors import IndexFormatError, ModelError, StorageError, UsageError
from retrieval.gallery.labels import labeller
from retrieval.index import open_index
from retrieval.models.folder import open_model
from retrieval.ranking.files import open_ranking
from retrieval.storage import contents_at
from retrieval.vectors import open_source
from tests.conftest import make_index

DOORS = {
    "index": (open_index, StorageError, "no index there"),
    "ranking": (open_ranking, StorageError, "no finished ranking there"),
    "model": (open_model, ModelError, "no finished model there"),
}
PLACES = {
    "images": "a folder of files, such as a/0.jpg",
    "file": "a file",
    "link": "a folder of files, such as a/0.jpg",
    "pipe": "no file and no folder",
    "an index": "an index",
    "a ranking": "a ranking",
    "an old ranking": "a ranking",
    "a model": "a model",
    "augmented": "an output of augment",
    "missing": None,
    "empty": None,
    "half an index": None,
    "half a ranking": None,
    "half a model": None,
    "below/missing": None,
    "file/below": None,
}


def fill(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    fill(folder, "images/a/0.jpg", "images/a/1.jpg", "file", "a ranking/_ranking.json")
    fill(folder, "an old ranking/ranking.json", "a model/model.json", "half an index/_staging/x")
    fill(folder, "a model/weights.safetensors", "augmented/.augmented/settings.json")
    fill(folder, "half an index/shard-0.parquet", "half a ranking/part-0-1.parquet")
    fill(folder, "half a model/training/settings.json", "empty/.hidden")
    (folder / "link").symlink_to("images")
    os.mkfifo(folder / "pipe")
    make_index(folder / "an index", ["a"], np.ones((1, 2), np.float16))
    return folder


@pytest.mark.parametrize("name", PLACES)
def test_what_lies_there_is_told_in_words(places, name):
    assert contents_at(str(places / name)) == PLACES[name]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", PLACES)
def test_advice_never_writes_over_what_is_there(places, door, name):
    opened, kind, none = DOORS[door]
    uri = str(places / name)
    if PLACES[name] == {"index": "an index", "ranking": "a ranking", "model": "a model"}[door]:
        return  # what is asked for, be it damaged
    with pytest.raises(kind) as caught:
        opened(uri)
    message = str(caught.value)
    assert message.startswith(f"{uri}: {none}")
    if PLACES[name] is None:
        assert message.endswith(f" {uri}")  # a free place
    else:
        assert f", but {PLACES[name]}. " in message
        assert message.count(uri) == 1


@pytest.mark.parametrize("name", ["images", "images/a", "images/a/0.jpg", "images/a/*.jpg", "link"])
def test_images_in_the_place_of_vectors_are_told(places, name):
    with pytest.raises(IndexFormatError, match=r"holds images, such as .*jpg, .* Embed them first"):
        open_source(str(places / name))


@pytest.mark.parametrize("name", ["an index", "an old ranking", "a model"])
def test_what_embed_makes_or_takes_beside_is_no_gallery(places, name):
    with pytest.raises(UsageError, match=f"{PLACES[name]}, where a folder of photos or a manifest"):
        Listing(str(places / name))


def test_a_gallery_without_folders_of_classes_is_told_in_one_line(tmp_path, capsys):
    fill(tmp_path, "flat/0.jpg", "flat/1.jpg", "classes/a/0.jpg", "classes/1.jpg")
    told = {}
    for folder, rule in product(("flat", "classes"), ("folder", "none")):
        batches = Listing(str(tmp_path / folder)).batches
        list(labelled(batches, rule, labeller(rule)))
        told[folder, rule] = capsys.readouterr().err
    line = told.pop(("flat", "folder"))
    assert "None of the 2 files lies in a folder of its class, such as '" in line
    assert "`labels`" in line
    assert line.count("\n") == 1
    assert set(told.values()) == {""}


def test_nothing_is_told_of_a_store_but_its_marks(s3):
    assert contents_at(f"{s3}/nothing") is None

"""Queries and probe of a night are embedded by its network, and each place once. Without Ray."""

from __future__ import annotations

import shutil

import pytest

from pipelines import embed
from pipelines.embed import EmbedConfig, update
from pipelines.reindex import GateConfig, ReindexConfig, estimate
from pipelines.reindex.sides import Sides, embed_sides
from retrieval.index import open_index
from tests.pipelines.here_executor import HereExecutor

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none", labels="none")


class Night:
    """A gallery with queries and a probe, of which a night is made as far as the gate."""

    def __init__(self, root):
        self.root, self.index = root, str(root / "index")
        for folder in ("photos", "queries", "probe"):
            (root / folder).mkdir()
            self.put(folder, "a")

    def put(self, folder, name):
        (self.root / folder / f"{name}.jpg").write_bytes(f"{folder} {name}".encode())

    def config(self, probe="probe"):
        gate = GateConfig(probe=probe and str(self.root / probe))
        return ReindexConfig(
            embed=FAKE, gate=gate, queries=str(self.root / "queries"),
            rankings=str(self.root / "ranking"),
        )  # fmt: skip

    def run(self, config):
        """Gives the sides, and what was embedded."""
        executor = HereExecutor()
        begun = embed.start(str(self.root / "photos"), self.index, config.embed)
        prepared = embed.prepare(begun, executor)
        sides = embed_sides(config, prepared, executor)
        embed.publish(prepared)
        found = {
            uri.removeprefix(self.index).lstrip("/"): names
            for uri, names in executor.embedded.items()
        }
        return sides, found


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


@pytest.fixture
def built(monkeypatch):
    """The settings of each network that was built."""
    found, load_network = [], update.load_network
    monkeypatch.setattr(
        update, "load_network", lambda config: found.append(config) or load_network(config)
    )
    return found


def test_queries_and_probe_are_embedded_by_the_gallery_s_network(night, built):
    sides, embedded = night.run(night.config())
    assert sides == Sides(f"{night.index}/_queries", f"{night.index}/_probe")
    assert embedded == {"": ["a.jpg"], "_queries": ["a.jpg"], "_probe": ["a.jpg"]}
    assert len(built) == 1
    specs = {open_index(uri).spec for uri in (night.index, sides.queries, sides.probe)}
    assert len(specs) == 1


@pytest.mark.parametrize("name", ["queries", "queries/", "../{}/queries", "link"])
def test_a_probe_that_is_the_queries_is_embedded_once(night, built, name):
    (night.root / "link").symlink_to(night.root / "queries")
    sides, embedded = night.run(night.config(name.format(night.root.name)))
    assert sides == Sides(f"{night.index}/_queries", f"{night.index}/_queries")
    assert embedded == {"": ["a.jpg"], "_queries": ["a.jpg"]}
    assert len(built) == 1


def test_a_night_without_a_change_embeds_no_probe(night):
    night.run(night.config(None))
    for folder in ("queries", "probe"):
        night.put(folder, "b")
    sides, embedded = night.run(night.config())
    assert sides == Sides(f"{night.index}/_queries", None)
    assert embedded == {"_queries": ["b.jpg"]}


def test_sides_that_are_indexes_of_the_same_model_are_taken_as_they_are(night, built):
    night.run(night.config())
    shutil.copytree(f"{night.index}/_queries", night.root / "theirs")
    night.put("photos", "b")
    built.clear()
    sides, embedded = night.run(night.config("theirs"))
    assert sides.probe == str(night.root / "theirs")
    assert embedded == {"": ["b.jpg"]}
    assert len(built) == 1


def test_an_estimate_builds_the_network_once_too(night, built):
    for probe in ("probe", "queries"):
        built.clear()
        found = estimate(str(night.root / "photos"), night.index, night.config(probe))
        assert len(built) == 1
        said = found.to_json()
        assert said["queries"]["num_new"] == said["probe"]["num_new"] == 1
        assert said["ranking"]["num_queries_at_most"] == 1

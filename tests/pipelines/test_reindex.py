"""A night by `reindex`: index, gate, ranking and report, each brought up to date or left alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines import rank
from pipelines.cli import main
from pipelines.embed import EmbedConfig, update
from pipelines.reindex import GateConfig, ReindexConfig, run
from retrieval.errors import GateError, MismatchError, UsageError
from retrieval.index import commit_index, open_index, read_index
from retrieval.maintenance import describe_index
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification import verify
from tests.conftest import draw_photos, photo_bytes
from tests.pipelines.test_embed_again import age

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")
OTHER = EmbedConfig(backbone="tests.fakes:one_weight", weights="none")

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def evening(tmp_path_factory, ray_session):
    """A gallery, photos that ask for it, their index, ranking and report after a first night."""
    root = tmp_path_factory.mktemp("evening")
    age(draw_photos(root / "photos"))
    for name, colour in {"red": (190, 30, 30), "green": (30, 180, 40)}.items():
        (root / "queries" / name).mkdir(parents=True)
        (root / "queries" / name / "query.jpg").write_bytes(photo_bytes(colour))
    age(root / "queries")
    config = config_of(root, gate=GateConfig(probe=str(root / "queries"), min_top_1=0.5))
    return root, run(str(root / "photos"), str(root / "index"), config).to_json()


def config_of(root, **settings):
    sides = {"queries": str(root / "queries"), "rankings": str(root / "ranking")}
    return ReindexConfig(**{"embed": FAKE, "rank": rank.RankConfig(top_k=5), **sides, **settings})


@pytest.fixture
def night(evening, tmp_path):
    """A copy for a test that changes it."""
    shutil.copytree(evening[0], tmp_path / "night")
    return tmp_path / "night"


def records(root):
    return [json.loads(file.read_text()) for file in sorted((root / "index/_runs").iterdir())]


def rows(ranking):
    return [row for part in open_ranking(str(ranking)).parts
            for row in pq.read_table(ranking / part).to_pylist()]  # fmt: skip


def test_the_first_night_makes_everything(evening):
    root, record = evening
    assert (record["status"], record["version_before"], record["version_after"]) == (
        "committed", None, 0,
    )  # fmt: skip
    assert record["gate"]["top_1"] == 1.0
    assert record["gate"]["overlap"] is None
    assert record["ranking"]["top_1"] == 1.0
    assert (root / "ranking.html").stat().st_size > 1000
    assert records(root)[-1] == record
    assert not list((root / "index" / "_candidates").iterdir())
    assert verify.run(str(root / "ranking"))["is_exact"]


def test_a_night_without_a_change_leaves_everything_alone(night):
    config = config_of(night)
    index = night / "index"
    run(str(night / "photos"), str(index), config)  # the gallery has moved with the copy
    before = (night / "ranking" / "_ranking.json").read_bytes()
    page = (night / "ranking.html").stat().st_mtime_ns
    record = run(str(night / "photos"), str(index), config).to_json()
    assert record["status"] == "unchanged"
    assert not record["ranking"]["is_anew"]
    assert (night / "ranking" / "_ranking.json").read_bytes() == before
    assert (night / "ranking.html").stat().st_mtime_ns == page


def test_a_version_of_the_same_shards_is_not_ranked_again(night):
    """As a restore of the version before the last commits it."""
    photos, index, config = str(night / "photos"), str(night / "index"), config_of(night)
    run(photos, index, config)  # the gallery has moved with the copy
    before = (night / "ranking" / "_ranking.json").read_bytes()
    now = open_index(index)
    commit_index(index, now.spec, now.shards, run=now.run, seen_version=now.version)
    record = run(photos, index, config).to_json()
    assert (record["status"], record["version_after"]) == ("unchanged", now.version + 1)
    assert not record["ranking"]["is_anew"]
    assert (night / "ranking" / "_ranking.json").read_bytes() == before
    assert verify.run(str(night / "ranking"))["is_exact"]


def test_a_changed_night_builds_the_network_once(night, monkeypatch):
    """Queries and probe are folders that have changed, too; the probe is another one than these."""
    built, load_network = [], update.load_network
    monkeypatch.setattr(
        update, "load_network", lambda config: built.append(config) or load_network(config)
    )
    shutil.copytree(night / "queries", night / "probe")
    for folder in ("photos", "queries", "probe"):
        (night / folder / "green" / "new.jpg").write_bytes(photo_bytes((30, 181, 40)))
    config = config_of(night, gate=GateConfig(probe=str(night / "probe"), min_top_1=0.5))
    record = run(str(night / "photos"), str(night / "index"), config)
    assert len(built) == 1
    assert (record.update.counts.num_embedded, record.ranking.num_queries) == (1, 3)
    assert open_index(str(night / "index/_probe")).num_rows == 3
    assert verify.run(str(night / "ranking"))["is_exact"]


def test_a_changed_gallery_is_ranked_as_from_nothing(night, tmp_path):
    (night / "photos" / "red" / "red-1.jpg").unlink()
    (night / "photos" / "green" / "new.jpg").write_bytes(photo_bytes((30, 181, 40)))
    (night / "photos" / "blue").rename(night / "photos" / "azure")
    record = run(str(night / "photos"), str(night / "index"), config_of(night)).to_json()
    assert (record["status"], record["num_embedded"], record["num_moved"]) == ("committed", 1, 3)
    assert verify.run(str(night / "ranking"))["is_exact"]
    scratch = config_of(night, rankings=str(tmp_path / "scratch"))
    run(str(night / "photos"), str(tmp_path / "index"), scratch)
    assert rows(night / "ranking") == rows(tmp_path / "scratch")


def test_the_gate_refuses_and_the_version_before_stays(night):
    gate = GateConfig(probe=str(night / "queries"), min_top_1=0.75, min_overlap=0.9, overlap_k=3)
    photos, index = str(night / "photos"), str(night / "index")
    (night / "photos" / "red").rename(night / "photos" / "rouge")  # labels that no query has
    with pytest.raises(GateError) as refused:
        run(photos, index, config_of(night, gate=gate))
    message = str(refused.value)
    assert "the new version is refused: top_1 0.5, at least 0.75 is needed (`min_top_1`)" in message
    assert "overlap 0.5, at least 0.9 is needed (`min_overlap`)" in message
    assert "Nothing was committed, version 0 stays" in message
    assert open_index(index).version == 0
    record = records(night)[-1]
    assert (record["status"], record["gate"]["top_1"]) == ("refused", 0.5)
    assert "rouge/red-0.jpg" in read_index(record["gate"]["candidate"]).ids
    assert "red/red-0.jpg" in read_index(index).ids
    gate = GateConfig(probe=str(night / "queries"), min_top_1=0.5, min_overlap=0.5)
    record = run(photos, index, config_of(night, gate=gate)).to_json()
    assert (record["version_after"], record["num_embedded"]) == (1, 0)


def test_a_night_that_lacks_too_much_is_refused_without_a_probe(night):
    """One class folder of three is not mounted, and one image can no longer be read."""
    photos, index = str(night / "photos"), str(night / "index")
    (night / "photos" / "blue").rename(night / "photos" / "azure")  # moved: nothing is gone
    shutil.rmtree(night / "photos" / "red")
    (night / "photos" / "green" / "green-0.jpg").write_bytes(b"torn")
    with pytest.raises(GateError) as refused:
        run(photos, index, config_of(night, gate=GateConfig(max_removed=0.39)))
    assert str(refused.value).startswith(
        f"{index}: the new version is refused: 0.4 of the images are gone (4, such as "
        f"'green/green-0.jpg'), at most 0.39 may be (`max_removed`). Nothing was committed, "
        f"version 0 stays; look at the candidate {index}/_candidates/"
    )
    assert refused.value.record == records(night)[-1]
    assert (records(night)[-1]["status"], records(night)[-1]["gate"]["num_removed"]) == (
        "refused", 4,
    )  # fmt: skip
    assert records(night)[-1]["num_listed"] == 8
    record = run(photos, index, config_of(night, gate=GateConfig(max_removed=0.4))).to_json()
    assert (record["version_after"], record["num_embedded"]) == (1, 0)
    assert record["gate"] == {
        "num_removed": 4, "first_removed": "green/green-0.jpg", "removed": 0.4,
    }  # fmt: skip


def test_the_first_night_lacks_nothing(night, tmp_path):
    config = ReindexConfig(embed=FAKE, gate=GateConfig(max_removed=0.0))
    record = run(str(night / "photos"), str(tmp_path / "index"), config).to_json()
    assert record["gate"] == {"num_removed": 0, "first_removed": None, "removed": None}


def test_a_map_that_is_cut_has_another_name_than_the_whole_one(evening):
    """The probe is ranked whole, the queries here to the fifth image."""
    _, record = evening
    assert {name for name in record["gate"] if "map" in name} == {"map"}
    assert {name for name in record["ranking"] if "map" in name} == {"map_cut_5"}


def test_queries_of_another_model_stop_the_night_before_the_commit(night, tmp_path):
    from pipelines import embed

    embed.run(str(night / "queries"), str(tmp_path / "theirs"), OTHER)
    (night / "photos" / "grey.png").unlink()
    config = config_of(night, queries=str(tmp_path / "theirs"))
    with pytest.raises(MismatchError, match=r"^`queries` .*/theirs: made by tests\.fakes:one_"):
        run(str(night / "photos"), str(night / "index"), config)
    assert open_index(str(night / "index")).version == 0


def test_another_model_is_compared_with_what_the_probe_saw_before(night):
    shutil.copytree(night / "queries", night / "probe")
    gate = GateConfig(probe=str(night / "probe"), min_overlap=0.01)
    photos, index = str(night / "photos"), str(night / "index")
    with pytest.raises(UsageError, match=r"to embed all 12 images anew, give `new_model`"):
        run(photos, index, config_of(night, gate=gate, embed=OTHER))
    record = run(
        photos, index, config_of(night, gate=gate, embed=replace(OTHER, new_model=True))
    ).to_json()
    assert record["version_after"] == 1
    assert 0 < record["gate"]["overlap"] <= 1
    assert record["model"]["backbone"] == "tests.fakes:one_weight"
    for side in ("queries", "probe"):  # they follow the gallery
        assert open_index(f"{index}/_{side}").spec.backbone == "tests.fakes:one_weight"
    assert record["num_embedded"] == 10
    assert verify.run(str(night / "ranking"))["is_exact"]


def test_a_version_that_was_committed_without_its_ranking_gets_it(night, monkeypatch):
    (night / "photos" / "grey.png").unlink()
    photos, index, config = str(night / "photos"), str(night / "index"), config_of(night)

    def full(*args, **settings):
        raise MismatchError("the disk is full.")

    monkeypatch.setattr(rank, "run", full)
    with pytest.raises(MismatchError) as failed:
        run(photos, index, config)
    assert str(failed.value) == (
        f"the disk is full. Version 1 of {index} is committed; the same command again goes on "
        f"with its ranking."
    )
    left = records(night)[-1]
    assert (left["status"], left["version_after"]) == ("committed", 1)
    assert left["ranking"] == {"failed": str(failed.value)}
    told = describe_index(index).records[0]
    assert (told["status"], told["ranking"]) == ("committed", str(failed.value))
    monkeypatch.undo()
    record = run(photos, index, config).to_json()
    assert (record["status"], record["ranking"]["is_anew"]) == ("unchanged", True)
    assert open_ranking(str(night / "ranking")).facts["gallery"]["version"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": {"min_map": 0.5}}, "`min_map`: needs a labelled probe set to be measured on"),
        ({"queries": "q"}, "`queries`: needs `rankings` too"),
        ({"rankings": "r"}, "`rankings`: needs `queries` too"),
        ({"report": "r.html"}, "`report`: is of a ranking"),
    ],
)
def test_settings_that_go_together(settings, message):
    def make():
        gate = GateConfig(**settings.get("gate", {}))
        return ReindexConfig(**{**settings, "gate": gate})

    with pytest.raises(UsageError, match=f"^{message}"):
        make()


def test_the_command_prints_the_record_and_its_exit_code_tells(night):
    command = ["reindex", str(night / "photos"), str(night / "index"), "--weights", "none"]
    command += ["--backbone", "tests.fakes:mean_colour"]
    sides = ["--queries", str(night / "queries"), "--rankings", str(night / "ranking")]
    done = CliRunner().invoke(main, [*command, *sides, "--top-k", "5"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == records(night)[-1]
    (night / "photos" / "red").rename(night / "photos" / "rouge")
    probe = ["--probe", str(night / "queries"), "--min-top-1", "0.9"]
    refused = CliRunner().invoke(main, [*command, *probe])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {night}/index: the new version is refused: top_1")
    assert json.loads(refused.stdout) == records(night)[-1]
    failed = CliRunner().invoke(main, [*command, "--retry-rejects", "--labels", "pattern:("])
    assert failed.exit_code in (1, 2)
    wrong = CliRunner().invoke(main, [*command, "--min-top-1", "0.9"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "--min-top-1: needs a labelled probe set" in wrong.stderr

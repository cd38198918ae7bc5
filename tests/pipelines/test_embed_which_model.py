"""Options of the model that were left out are those of the index; another model is asked for."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.embed import EmbedConfig, complete, estimate, run
from pipelines.embed.config import DEFAULTS
from retrieval.errors import RetrievalError
from retrieval.images import Preprocessing
from retrieval.index import open_index, read_index
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.table import Index
from tests.conftest import draw_photos
from tests.retrieval.models import ONE_WEIGHT, make_model

MEAN = "tests.fakes:mean_colour"
SPEC = EmbeddingSpec(fingerprint="f" * 64, backbone="resnet50", weights="none", dim=4)
RECORD = {"backbone": "resnet50", "weights": "none", "seed": 3, "image_size": 96}


def index_of(spec=SPEC, **settings):
    return Index(uri="/indexes/a", version=0, spec=spec, shards=(), run={"settings": settings})


def chosen(config):
    return {name: getattr(config, name) for name in DEFAULTS}


def refusal(act, *arguments):
    with pytest.raises(RetrievalError) as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_index_takes_the_defaults():
    assert chosen(complete(EmbedConfig(), None)) == dict(DEFAULTS)
    assert complete(EmbedConfig(), None).start_weights == "imagenet"
    assert complete(EmbedConfig(backbone=MEAN), None).start_weights == "none"
    assert complete(EmbedConfig(), None).model is None


def test_what_is_left_out_is_what_the_index_says():
    config = complete(EmbedConfig(), index_of(**RECORD, decoder=1, dtype="float32"))
    assert chosen(config) == {
        "backbone": "resnet50", "seed": 3, "decoder": 1, "dtype": "float32"
    }  # fmt: skip
    assert (config.weights, config.image_size) == ("none", 96)
    assert (config.mean, config.std) == (Preprocessing.mean, Preprocessing.std)


def test_mean_and_deviation_of_an_index_go_on():
    config = complete(EmbedConfig(), index_of(**RECORD, mean=[0.5, 0, 0.25], std=[1, 1, 2]))
    assert (config.mean, config.std) == ((0.5, 0, 0.25), (1, 1, 2))
    other = complete(EmbedConfig(std=(1, 1, 1)), index_of(**RECORD, mean=[0.5, 0, 0.25]))
    assert (other.mean, other.std) == ((0.5, 0, 0.25), (1, 1, 1))


def test_an_index_from_before_there_were_decoders_has_the_first():
    assert complete(EmbedConfig(), index_of(**RECORD)).decoder == 1


@pytest.mark.parametrize("name", ["backbone", "weights", "seed", "image_size", "dtype", "decoder"])
def test_what_is_named_is_taken(name):
    value = {"backbone": "resnet18", "weights": "imagenet", "seed": 4, "image_size": 97,
             "dtype": "float32", "decoder": 1}[name]  # fmt: skip
    config = complete(EmbedConfig(**{name: value}), index_of(**RECORD))
    assert getattr(config, name) == value
    others = RECORD.keys() - {name} - ({"weights"} if name == "backbone" else set())  # its own
    assert {other: getattr(config, other) for other in others} == {
        other: RECORD[other] for other in others
    }


def test_with_new_model_the_record_says_nothing():
    config = complete(EmbedConfig(seed=5, new_model=True), index_of(**RECORD))
    assert chosen(config) == DEFAULTS | {"seed": 5}


@pytest.mark.parametrize(
    "settings",
    [
        None,
        [],
        "a",
        {
            "backbone": 5,
            "seed": "3",
            "image_size": 9.5,
            "dtype": None,
            "mean": ["a", 1, 2],
            "std": [1, 2],
        },
    ],
)
def test_a_record_that_makes_no_sense_is_none(settings):
    index = replace(index_of(), run={"settings": settings})
    assert chosen(complete(EmbedConfig(), index)) == dict(DEFAULTS)


def test_completing_twice_changes_nothing():
    for settings in (RECORD, {"model": "/models/a"}):
        config = complete(EmbedConfig(), index_of(**settings))
        assert complete(config, index_of(**settings)) == config


def test_a_function_of_ones_own_is_named_by_the_command_alone():
    index = index_of(**RECORD | {"backbone": "os:abort"})
    assert refusal(complete, EmbedConfig(), index) == (
        "/indexes/a: was embedded by a function, `backbone` os:abort. Code that a file names is "
        "not run: name it on the command line."
    )
    assert complete(EmbedConfig(backbone="os:abort"), index).weights == "none"


def test_weights_of_a_file_are_named_by_the_command_alone():
    index = index_of(**RECORD | {"weights": "/secret/weights.pth"})
    assert "`weights` /secret/weights.pth. Name it on the command line" in refusal(
        complete, EmbedConfig(), index
    )
    assert complete(EmbedConfig(weights="/moved.pth"), index).weights == "/moved.pth"
    other = complete(EmbedConfig(backbone="resnet18"), index)
    assert other.start_weights == "imagenet"  # and the fingerprint will tell


def test_a_model_s_folder_goes_on_and_its_decoder_with_it():
    spec = replace(SPEC, weights="/models/a")
    config = complete(EmbedConfig(), index_of(spec, model="models/a", decoder=1))
    assert (config.model, config.decoder, config.backbone) == ("/models/a", 1, None)
    own = complete(EmbedConfig(backbone=MEAN), index_of(spec, model="models/a"))
    assert (own.model, own.backbone) == ("/models/a", MEAN)


@pytest.mark.parametrize("option", [{"backbone": "resnet50"}, {"seed": 1}, {"image_size": 32}])
def test_a_part_of_another_model_beside_a_model_s_folder_is_refused(option):
    index = index_of(replace(SPEC, weights="/models/a"), model="/models/a")
    message = refusal(complete, EmbedConfig(**option), index)
    assert message.startswith("/indexes/a: was embedded by `model` /models/a, and `")
    assert "`new_model`" in message


@pytest.fixture(scope="module")
def made(tmp_path_factory, ray_session):
    """An index of a fake network, of 10 photos and some rejects."""
    folder = tmp_path_factory.mktemp("which")
    photos, index = draw_photos(folder / "photos"), folder / "index"
    config = EmbedConfig(backbone=ONE_WEIGHT, weights="none", image_size=32)
    report = run(str(photos), str(index), config).to_json()
    return photos, index, report


@pytest.fixture
def mine(made, tmp_path):
    photos, index, report = made
    shutil.copytree(index, tmp_path / "index")
    return photos, tmp_path / "index", report


def test_the_record_names_the_decoder_and_not_the_permission(made):
    _, index, _ = made
    settings = open_index(str(index)).run["settings"]
    assert (settings["decoder"], settings["dtype"]) == (1, "float16")
    assert "new_model" not in settings


def test_the_same_again_with_what_only_the_command_may_name(made):
    photos, index, _ = made
    plan = estimate(str(photos), str(index), EmbedConfig(backbone=ONE_WEIGHT)).to_json()
    assert not plan["is_embedded_anew"]
    assert "`backbone` tests.fakes:one_weight" in refusal(
        estimate, str(photos), str(index), EmbedConfig()
    )


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"backbone": MEAN, "weights": "none"}, f"backbone {ONE_WEIGHT}, now {MEAN}"),
        ({"backbone": ONE_WEIGHT, "image_size": 64}, "image size 32, now 64"),
        ({"backbone": ONE_WEIGHT, "seed": 1}, "seed 0, now 1"),
        ({"backbone": ONE_WEIGHT, "dtype": "float32"}, "dtype float16, now float32"),
    ],
)
def test_another_model_size_type_or_seed_is_refused_with_the_number(made, option, says):
    photos, index, report = made
    before = sorted(index.rglob("*"))
    for act in (run, estimate):
        message = refusal(act, str(photos), str(index), EmbedConfig(**option))
        assert says in message
        assert f"to embed all {report['num_listed']} images anew, give `new_model`" in message
    assert open_index(str(index)).version == 0
    assert sorted(path for path in index.rglob("*") if "_runs" not in path.parts) == [
        path for path in before if "_runs" not in path.parts
    ]


def test_another_network_is_refused_before_its_weights_are_looked_for(made):
    photos, index, _ = made
    message = refusal(estimate, str(photos), str(index), EmbedConfig(backbone="resnet50"))
    assert "now resnet50" in message
    assert "`new_model`" in message


def test_with_new_model_all_is_embedded_anew(mine):
    photos, index, report = mine
    other = EmbedConfig(backbone=MEAN, weights="none", new_model=True)
    plan = estimate(str(photos), str(index), other).to_json()
    assert plan["is_embedded_anew"]
    assert run(str(photos), str(index), other).to_json()["version"] == 1
    assert read_index(str(index)).embeddings.shape == (report["num_rows"], 3)
    again = estimate(str(photos), str(index), EmbedConfig(backbone=MEAN)).to_json()
    assert not again["is_embedded_anew"]


def test_a_model_s_folder_needs_no_option_again_and_another_one_is_refused(mine, tmp_path):
    photos, index, _ = mine
    make_model(tmp_path / "model", seed=7)
    make_model(tmp_path / "other", seed=8)
    one = EmbedConfig(model=str(tmp_path / "model"), backbone=ONE_WEIGHT, new_model=True)
    run(str(photos), str(index), one)
    other = EmbedConfig(model=str(tmp_path / "other"), backbone=ONE_WEIGHT)
    message = refusal(estimate, str(photos), str(index), other)
    assert f"model {tmp_path}/model, now {tmp_path}/other" in message
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert "name it too: `backbone`" in refusal(estimate, str(photos), str(index), EmbedConfig())
    plan = estimate(
        str(photos), str(index), EmbedConfig(model=str(tmp_path / "copy"), backbone=ONE_WEIGHT)
    )
    assert not plan.to_json()["is_embedded_anew"]
    shutil.rmtree(tmp_path / "model")
    message = refusal(estimate, str(photos), str(index), EmbedConfig(backbone=ONE_WEIGHT))
    assert message.endswith(
        f"was embedded by `model` {tmp_path}/model, where no model is now. Name the folder in "
        f"which it lies: `model`."
    )


def test_the_command_line_says_so(made):
    photos, index, _ = made
    for verb in ("embed", "retry-rejects", "reindex"):
        options = ["--backbone", MEAN, "--weights", "none"]
        result = CliRunner().invoke(main, [verb, str(photos), str(index), *options])
        assert result.exit_code == 1
        assert "--new-model" in result.stderr.splitlines()[-1]

"""No option of any command takes a number that the job could not work with."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from pipelines.augment import AugmentConfig
from pipelines.cli import main
from pipelines.embed import EmbedConfig
from pipelines.experiment import ExperimentConfig
from pipelines.rank import RankConfig
from pipelines.reindex import GateConfig
from pipelines.train import TrainConfig
from pipelines.train.network import build_network
from retrieval.errors import UsageError

# No file names and no free text; numbers that a callback reads from text are among them.
_BY_CALLBACK = {"top_k", "ks", "num_workers", "mean", "std"}
WRONG = ["nan", "inf", "1" + "0" * 30, "-1" + "0" * 30, "9" * 5000]


def is_number(option):
    type_ = option.type
    return (
        isinstance(type_, click.types.IntParamType | click.types.FloatParamType)
        or type_.name in ("integer", "float")
        or option.name in _BY_CALLBACK
    )


NUMBERS = [
    (command.name, parameter)
    for command in main.commands.values()
    for parameter in command.params
    if is_number(parameter)
]


def test_the_walk_finds_the_options():
    names = {(command, parameter.name) for command, parameter in NUMBERS}
    assert {("train", "seed"), ("train", "warmup_epochs"), ("rank", "memory_gib")} <= names
    assert {("reindex", "min_map"), ("diff", "after"), ("vacuum", "keep_days")} <= names
    assert len(names) > 60


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("command", "parameter"), NUMBERS, ids=[f"{name}-{found.name}" for name, found in NUMBERS]
)
def test_no_option_takes_what_is_no_number_of_64_bits(command, parameter, wrong):
    if isinstance(parameter, click.Argument):
        texts = [wrong if other is parameter else "1" for other in arguments_of(command)]
        arguments = [command, "--", *texts]
    else:
        texts = ["1" for _ in arguments_of(command)]
        arguments = [command, f"{parameter.opts[0]}={wrong}", *texts]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, (arguments, done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.splitlines()[-1].startswith(("Error: Invalid value for", "Error: No such"))
    assert len(done.stderr) < 1000 or len(wrong) > 1000


def arguments_of(command):
    return [found for found in main.commands[command].params if isinstance(found, click.Argument)]


@pytest.mark.parametrize(
    ("option", "value", "needed"),
    [
        ("--warmup-epochs", "inf", "a number from 0 to 1000000"),
        ("--learning-rate", "0", "a number above 0 to 1000000"),
        ("--lr-decay", "nan", "a number above 0 to 1"),
        ("--dropout", "1", "a number from 0 to below 1"),
        ("--batch-size", "1", "a whole number from 2 to 1048576"),
        ("--epochs", "1.5", "a whole number from 1 to 1048576"),
        (
            "--seed",
            "99999999999999999999",
            "a whole number from -9223372036854775808 to 18446744073709551615",
        ),
    ],
)
def test_the_line_says_what_is_needed(option, value, needed):
    done = CliRunner().invoke(main, ["train", "photos", "model", option, value])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"Error: Invalid value for '{option}': {value!r} is not {needed}."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -(10**30), 10**30, True, "1"])
@pytest.mark.parametrize(
    ("config", "name"),
    [
        (config, name)
        for config, names in {
            TrainConfig: [
                "dropout", "label_smoothing", "learning_rate", "weight_decay", "lr_decay",
                "warmup_epochs", "epochs", "batch_size", "image_size", "photos_per_class", "seed",
            ],
            AugmentConfig: ["per_class", "seed", "size", "quality"],
            ExperimentConfig: ["epochs", "image_size", "per_class", "batch_size", "seed"],
            EmbedConfig: ["seed", "image_size", "batch_size", "num_actors"],
            RankConfig: ["num_threads", "num_actors", "memory_bytes"],
            GateConfig: ["min_top_1", "min_map", "min_overlap", "overlap_k"],
        }.items()
        for name in names
    ],
)  # fmt: skip
def test_a_config_in_python_refuses_the_same(config, name, value):
    with pytest.raises(UsageError, match=rf"^`{name}` .* is needed\.$"):
        config(**{name: value})


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf"), -1])
def test_a_share_to_validate_on_is_one(value):
    with pytest.raises(UsageError, match=r"^`validation` "):
        TrainConfig(validation=value)


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**64 - 1])
def test_every_seed_of_the_range_works(seed):
    config = TrainConfig(backbone="tests.training:small", weights="none", image_size=32, seed=seed)
    build_network(config, 2)

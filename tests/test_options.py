"""The options of the commands are what the configs say, and reading the configs loads nothing."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.augment.config import AugmentConfig
from pipelines.cli import main
from pipelines.cli.options import SettingOption, options
from pipelines.embed.config import EmbedConfig
from pipelines.experiment.config import SCALES, ExperimentConfig
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import GateConfig, ReindexConfig
from pipelines.train.config import TrainConfig, Workers
from retrieval import choices
from retrieval.errors import UsageError
from retrieval.ranking.settings import RankConfig
from retrieval.settings import Range, Unit, setting, settings_of
from retrieval.vector_columns import VectorColumns

ROOT = Path(__file__).parents[1]
# Command → the configs whose settings are its options, in order.
CONFIGS = {
    "rank": [RankConfig(), VectorColumns(), Site()],
    "embed": [EmbedConfig(), Site()],
    "retry-rejects": [EmbedConfig(), Site()],
    "reindex": [EmbedConfig(), ReindexConfig(), ReindexConfig().rank, GateConfig(), Site()],
    "train": [TrainConfig(), Workers(), Site()],
    "augment": [AugmentConfig(), Site()],
    "experiment": [ExperimentConfig(), Site()],
}
# Fields that `reindex` leaves to the job.
LEFT_OUT = {
    ("reindex", RankConfig): {
        "memory_bytes", "num_threads", "num_actors", "device", "previous", "allow_duplicates",
    }
}  # fmt: skip
OF_SCALE = {(ExperimentConfig, name) for name in SCALES["full"]}  # None until the scale is known
SETTINGS = [
    pytest.param(command, config, field, id=f"{command}-{field}")
    for command, configs in CONFIGS.items()
    for config in configs
    for field in settings_of(config)
    if field not in LEFT_OUT.get((command, type(config)), ())
]


def option_of(command, config, field):
    found = [
        option
        for option in main.commands[command].params
        if isinstance(option, SettingOption) and option.field == field
    ]
    if len(found) > 1:  # labels of photos, and of nodes
        found = [one for one in found if (one.name == "node") == isinstance(config, Site)]
    (option,) = found
    return option


def settings_given(command, monkeypatch, *arguments):
    """What a command gets for its options."""
    got = {}
    found = main.commands[command]
    context = found.make_context(command, ["a", "b", *("c",) * (command == "rank"), *arguments])
    with context:
        for option in found.params:
            got[option.name] = context.params[option.name]
    return got


def test_each_option_of_these_commands_is_of_a_config_or_named_here():
    others = {
        (command, option.name)
        for command in CONFIGS
        for option in main.commands[command].params
        if isinstance(option, click.Option) and not isinstance(option, SettingOption)
    }
    dry_run = {(command, "dry_run") for command in CONFIGS}
    assert others == dry_run | {("train", "tensorboard")}
    made = {
        c: [o for o in main.commands[c].params if isinstance(o, SettingOption)] for c in CONFIGS
    }
    counts = {command: len(options) for command, options in made.items()}
    assert counts == {c: sum(p.values[0] == c for p in SETTINGS) for c in CONFIGS}


@pytest.mark.parametrize(("command", "config", "field"), SETTINGS)
def test_an_option_has_the_default_and_the_help_of_its_field(command, config, field, monkeypatch):
    option = option_of(command, config, field)
    default, said = settings_of(config)[field]
    given = settings_given(command, monkeypatch)[option.name]
    if (type(config), field) in OF_SCALE:
        assert given is None
        assert default is None
    elif not said.is_many:
        assert option.value_of(given) == getattr(config, field)
    else:
        assert given == getattr(config, field) == {}
    words = said.help.replace("`", "").split()
    assert words == (option.help or "").replace("`", "").replace("--", "").split()


@pytest.mark.parametrize(("command", "config", "field"), SETTINGS)
def test_an_option_takes_the_range_and_the_choices_of_its_field(
    command, config, field, monkeypatch
):
    option = option_of(command, config, field)
    _, said = settings_of(config)[field]

    def given(text):
        return settings_given(command, monkeypatch, option.opts[0], text)[option.name]

    if said.choices:
        assert [given(name) for name in said.choices] == list(said.choices)
        wrong = ["none-of-these"]
    elif said.numbers:
        numbers = said.unit.numbers if said.unit else said.numbers
        low = numbers.low if said.least is None else said.least
        least = low if not numbers.low_open else 0.001
        assert given(str(least)) == least
        assert given(str(numbers.high if not numbers.high_open else 0.99)) >= least
        wrong = ["nan", "inf", "x", str(low - 1), str(int(numbers.high) + 1)]
        wrong += [str(low)] * numbers.low_open + [str(numbers.high)] * numbers.high_open
    else:
        return
    for text in wrong:
        with pytest.raises(click.BadParameter):
            given(text)


@pytest.mark.parametrize("command", CONFIGS)
def test_wrong_usage_exits_with_2(command):
    given = ["a", "b", *("c",) * (command == "rank"), "--min-cpus", "0"]
    found = CliRunner().invoke(main, [command, *given])
    assert found.exit_code == 2
    assert "'0' is not a whole number from 1 to" in found.stderr


def test_reindex_ranks_as_many_from_python_as_from_the_command_line():
    assert ReindexConfig().rank.top_k == 100
    assert RankConfig().top_k == 10


# ------------------------------------------------------------------------------ the builder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tea:
    minutes: int = setting(
        3, "As `strong` asks.", numbers=Range(low=1, high=9, is_whole=True), least=2
    )
    seconds: int | None = setting(
        None, unit=Unit(name="hours", size=3600, numbers=Range(low=0, high=5))
    )
    strong: bool = setting(False, "Whether, as `cup` says.")
    hot: bool = setting(True, opposite="cold")
    cups: tuple[str, ...] = setting(tuple, is_many=True, parse=tuple, name="cup")
    rest: str = "none"

    def __post_init__(self):
        if self.strong and self.minutes < 3:
            raise UsageError("`strong`: needs `minutes` 3.")


def brew(*arguments, tea=Tea, only=()):
    got = []

    @click.command()
    @options(only, tea=tea)
    @click.option("--milk", is_flag=True)
    def command(tea, milk):
        got.append((tea, milk))

    return CliRunner().invoke(command, arguments), got


def test_a_command_gets_the_config():
    done, got = brew("--minutes", "2", "--hours", "0.5", "--cold", "--cup", "a", "--cup", "b")
    assert done.exit_code == 0, done.output
    assert got == [(Tea(minutes=2, seconds=1800, hot=False, cups=("a", "b")), False)]
    assert brew("--milk")[1] == [(Tea(), True)]


def test_defaults_are_those_of_an_object():
    tea = Tea(minutes=5, rest="sugar")
    assert brew(tea=tea)[1] == [(tea, False)]
    assert "[default: 5]" in brew("--help", tea=tea)[0].output


def test_only_the_fields_that_are_named_get_options():
    help_text = brew("--help", only=("minutes",))[0].output
    assert "--minutes" in help_text
    assert "--cold" not in help_text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1"], "Invalid value for '--minutes': '1' is not a whole number from 2 to"),
        (["--strong", "--minutes", "2"], "Error: --strong: needs --minutes 3."),
    ],
)
def test_wrong_usage_is_in_the_words_of_the_command_line(arguments, message):
    done, got = brew(*arguments)
    assert (done.exit_code, got) == (2, [])
    assert message in done.stderr


def test_a_help_names_the_options_of_its_config():
    said = brew("--help")[0].output
    assert "As --strong asks." in said
    assert "as `cup` says" in said  # no field of that name


# ------------------------------------------------------------------------------ one place


def test_what_is_built_by_a_name_is_what_can_be_chosen():
    from retrieval.augmentations.recipes import RECIPES
    from retrieval.images import FIRST_DECODER, Preprocessing
    from retrieval.training.objectives import OBJECTIVES
    from retrieval.training.optimizer import OPTIMIZERS

    assert tuple(OBJECTIVES) == choices.LOSSES
    assert tuple(OPTIMIZERS) == choices.OPTIMIZERS
    assert tuple(RECIPES) == choices.RECIPES
    assert Preprocessing().size == choices.IMAGE_SIZE
    assert Preprocessing().decoder == FIRST_DECODER == choices.FIRST_DECODER


HEAVY = ("torch", "torchvision", "ray", "pyarrow", "numpy", "numba", "cv2", "PIL", "click")
PURE = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in [
        *(ROOT / "pipelines").rglob("config.py"),
        *(ROOT / "retrieval").rglob("settings.py"),
        *(ROOT / "retrieval").glob("*.py"),
    ]
    if path.name != "moved.py" and not path.name.startswith("__")
)
HEAVY_ROOM = {"retrieval.format_version", "retrieval.embedding_spec"}
IMPORT = "import sys, importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
TELL = "print(*[name for name in {heavy!r} if name in sys.modules])"


def test_settings_load_nothing_heavy():
    names = [name for name in PURE if name not in HEAVY_ROOM]
    code = IMPORT.format(names=names) + TELL.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_a_command_line_that_is_wrong_loads_nothing_heavy():
    heavy = tuple(name for name in HEAVY if name != "click")
    for given in (["--help"], ["rank", "--help"], ["train", "--seed", "x"], ["reindex", "a"]):
        code = (
            "import sys\nfrom pipelines.cli import main\n"
            f"try: main({given!r})\nexcept SystemExit: pass\n"
            f"print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == "", done.stderr


def test_no_command_takes_settings_of_any_type():
    """What is called with `**settings: Any` the type checker does not see."""
    for path in (ROOT / "pipelines" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(one).startswith("click.command") for one in node.decorator_list
            ):
                assert node.args.kwarg is None, f"{path.name}: {node.name}"


@pytest.mark.parametrize(
    ("command", "function", "names"),
    [
        ("verify", "retrieval.ranking.verification.verify:verify", ["sample", "seed"]),
        ("report", "retrieval.report_page.ranking_page:write_report", ["max_queries"]),
        ("vacuum", "retrieval.maintenance.vacuum:vacuum_index", ["keep_days", "force"]),
        ("diff", "retrieval.maintenance.diff:diff_versions", ["num_listed"]),
        ("submit", "pipelines.submit.request:make_request", ["python"]),
    ],
)
def test_a_command_without_a_config_has_the_defaults_of_its_function(command, function, names):
    module, name = function.split(":")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    context = click.Context(main.commands[command])
    found = {option.name: option.get_default(context) for option in context.command.params}
    assert [found[name] for name in names] == [signature.parameters[name].default for name in names]


@pytest.mark.parametrize(
    "package",
    [
        "retrieval", "retrieval.experiments", "pipelines.augment", "pipelines.embed",
        "pipelines.rank", "pipelines.train", "pipelines.reindex", "pipelines.experiment",
    ],
)  # fmt: skip
def test_each_name_of_a_package_that_loads_lazily_is_there(package):
    found = importlib.import_module(package)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        found.nothing  # noqa: B018

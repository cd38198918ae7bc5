"""The library names parameters, the command line their options, of the same messages."""

import ast
import pickle
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import pipelines.cli
from pipelines.cli import main
from pipelines.cli.parameters import as_options, option_of
from retrieval.errors import ImageError, RetrievalError, UsageError
from retrieval.index.records import failures_recorded
from retrieval.parameters import NAME, named, naming
from retrieval.ranking.settings import RankConfig

ROOT = Path(__file__).parents[1]
# A whole command may be quoted, options and all, where it is what mends a file.
COMMAND = re.compile(r"retrieval-cli \S+ \S+ --[a-z-]+")
OPTION = re.compile(r"(?<![\w-])--[a-z]")
# Words in backquotes that are no parameters of a command: a recipe, a key of model.json, a dict,
# commands; and those of functions that no command calls.
NO_PARAMETERS = {"paper", "training", "preprocessing", "submit", "verify", "k", "vectors"}


def texts(source):
    """Each string of a source with its line; of an f-string, "…" stands for what is put in."""
    tree, inside = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside.update(map(id, ast.walk(node)))
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(getattr(node, "value", None), str) and id(node) not in inside:
            yield node.lineno, node.value


def of_package(name):
    for path in sorted((ROOT / name).rglob("*.py")):
        for line, text in texts(path.read_text()):
            yield f"{path.relative_to(ROOT)}:{line}", text


def options_in(found):
    return [
        place for place, text in found if OPTION.search(COMMAND.sub("", text.replace("…", "x")))
    ]


def test_no_text_of_the_library_names_an_option():
    assert options_in(of_package("retrieval")) == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ('raise UsageError(f"--top-k {k}: too many")', True),
        ('def f():\n    """Rank, as --top-k says."""', True),
        ('text = f"{uri}: torn: retrieval-cli restore {uri} --torn"', False),
        ('text = f"{uri}: torn: restore it by --torn"', True),
        ('header = "|---|" + "---:|" * 10', False),
        ('text = "`top_k`: too many"', False),
    ],
)
def test_that_test_finds_options(source, is_found):
    assert bool(options_in(texts(source))) == is_found


@pytest.mark.parametrize("package", ["retrieval", "pipelines"])
def test_each_parameter_that_a_message_names_has_an_option(package):
    ctx = click.Context(main)
    unknown = {
        (place, name)
        for place, text in of_package(package)
        if "\n" not in text  # a message has one line, a docstring many
        for name in NAME.findall(text)
        if name not in NO_PARAMETERS and not option_of(name, ctx)
    }
    messages = {(place, name) for place, name in unknown if not is_docstring(place)}
    assert messages == set()


def is_docstring(place):
    path, _, line = place.partition(":")
    return (
        (ROOT / path).read_text().splitlines()[int(line) - 1].lstrip().startswith(('"""', 'r"""'))
    )


def spelled(text, command=None):
    ctx = click.Context(main)
    ctx.invoked_subcommand = command
    return as_options(text, ctx)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`top_k` 5: ix has 3 images.", "--top-k 5: ix has 3 images."),
        ("`ks` 12: Use 1 to 3.", "--k 12: Use 1 to 3."),
        ("Embed again with `heal`.", "Embed again with --heal."),
        ("ask for less: `min_cpus`, `site.labels`.", "ask for less: --min-cpus, --node."),
        ("`memory_bytes` 1073741824: too few.", "--memory-gib 1: too few."),
        ("`memory_bytes` -5368709: too few.", "--memory-gib -0.005: too few."),
        ("`binary_dtype` float16", "--vector-dtype float16"),
        ("run `retrieval-cli embed` again", "run `retrieval-cli embed` again"),
        ("`paper`: no parameter", "`paper`: no parameter"),
    ],
)
def test_the_command_line_names_options(text, expected):
    assert spelled(text, "rank") == expected
    assert spelled(expected, "rank") == expected


def test_the_options_of_the_command_that_runs_come_first(monkeypatch):
    @click.command()
    @click.option("--other-name", "top_k")
    def other(top_k):
        pass

    monkeypatch.setitem(main.commands, "other", other)
    assert spelled("`top_k`", "other") == "--other-name"
    assert spelled("`top_k`", "rank") == "--top-k"


def test_an_error_offers_its_parameters_and_survives_a_worker():
    with pytest.raises(UsageError) as caught:
        RankConfig(num_threads=0)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "`num_threads` 0: a whole number from 1 to 1048576 is needed."
    assert error.parameters == ("num_threads",)
    assert RetrievalError("no parameter").parameters == ()


def test_errors_are_spelled_inside_naming_only():
    error, image = UsageError("`top_k` 0: no."), ImageError("link_outside", "`follow_links` does")
    with naming(spelled):
        assert str(error) == "--top-k 0: no."
        assert str(image) == "link_outside: --follow-links does"
        assert str(UsageError(f"{error} And `heal`.")) == "--top-k 0: no. And --heal."
        assert named("`metric` x") == "--metric x"
        assert error.parameters == ("top_k",)
    assert str(error) == "`top_k` 0: no."
    assert named("`metric` x") == "`metric` x"


def test_the_command_line_shows_an_error_so(monkeypatch):
    said = []

    def fail(*args, **settings):
        error = UsageError("`top_k` 5: ix has 3 images. Embed it with `heal`.")
        said.append(str(error))
        raise error

    monkeypatch.setattr("pipelines.rank.run", fail)
    found = CliRunner().invoke(pipelines.cli.main, ["rank", "a", "b", "c"])
    assert found.exit_code == 1
    assert found.stderr == "Error: --top-k 5: ix has 3 images. Embed it with --heal.\n"
    assert said == ["--top-k 5: ix has 3 images. Embed it with --heal."]  # as a record has it


def test_the_record_of_a_run_says_what_was_shown(tmp_path):
    error = UsageError("`top_k` 5: ix has 3 images.")
    recorded = failures_recorded(str(tmp_path / "index"), {}, print)
    with naming(spelled), pytest.raises(UsageError), recorded:
        raise error
    assert error.record["message"] == "--top-k 5: ix has 3 images."

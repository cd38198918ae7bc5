"""The README, the help texts and the commands tell the same story."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_an_example_in_its_help_and_stands_in_the_readme(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert f"retrieval-cli {name}" in result.output.split("Example:")[1]
    assert f"retrieval-cli {name}" in README


def test_every_command_in_the_readme_exists():
    named = set(re.findall(r"retrieval-cli ([a-z-]+)", README))
    assert named <= set(main.commands)


def test_every_option_in_the_readme_and_the_examples_exists():
    texts = [README, *(CliRunner().invoke(main, [name, "--help"]).output for name in main.commands)]
    for line in "\n".join(texts).replace("\\\n", " ").splitlines():
        found = re.match(r"\s*retrieval-cli (.*)", line)
        # What is submitted has options of its own.
        for part in re.split(r"\s-- ", found[1]) if found else ():
            name, _, words = part.partition(" ")
            known = {option for param in main.commands[name].params for option in param.opts}
            named = set(re.findall(r"--[a-z0-9-]+", words))
            assert named <= known | {"--help"}, line


def test_the_folders_that_the_readme_draws_exist():
    drawn = re.findall(r"^    (retrieval|pipelines)/(\w+(?:\.py|/))", README, re.MULTILINE)
    assert drawn
    assert all((ROOT / folder / name).exists() for folder, name in drawn)


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) <= targets


# Of Ray's commands, in docs/cluster.md.
OTHERS = {"--block", "--node-ip-address", "--num-cpus"}


def command_lines(text):
    """What retrieval-cli is given in the indented lines of a page."""
    text = re.sub(r"\$\(date .*?\)", "2026-01-31", text.replace("\\\n", " "))
    lines = re.findall(r"^ {4}(retrieval-cli .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def parse(words):
    """Have the commands' own parsers read a line, and what it submits."""
    name, *rest = words
    main.commands[name].make_context(name, list(rest))
    if name == "submit":
        parse(rest[rest.index("--") + 1 :])


@pytest.mark.parametrize("path", [ROOT / "README.md", *GUIDES], ids=lambda path: path.name)
def test_the_command_line_accepts_every_line_of_a_guide(path):
    lines = command_lines(path.read_text())
    assert lines
    for words in lines:
        parse(words)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_the_files_and_headings_that_a_guide_links_to_exist(path):
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", path.read_text()):
        file, _, heading = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), link
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if heading else [""]
        assert heading in [title.lower().replace(" ", "-") for title in titles], link


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_the_options_of_our_own_that_a_guide_names_exist(path):
    params = [param for command in main.commands.values() for param in command.params]
    known = {option for param in params for option in param.opts}
    # Only those that stand alone, as in `--node KEY=VALUE`: other programs have options as well.
    named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", path.read_text()))
    assert named <= known | OTHERS

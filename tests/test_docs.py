"""The README, the help texts and the commands tell the same story."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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
        found = re.match(r"\s*retrieval-cli ([a-z-]+) (.*)", line)
        if found:
            known = {option for p in main.commands[found[1]].params for option in p.opts}
            assert set(re.findall(r"--[a-z0-9-]+", found[2])) <= known | {"--help"}, line


def test_the_folders_that_the_readme_draws_exist():
    drawn = re.findall(r"^    (retrieval|pipelines)/(\w+(?:\.py|/))", README, re.MULTILINE)
    assert drawn
    assert all((ROOT / folder / name).exists() for folder, name in drawn)


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) <= targets

"""What is written about the command line is what it does."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

import ingester.cli
from ingester.cli import VERBS
from ingester.dicomweb.outcome import Outcome
from ingester.dicomweb.profiles import PROFILES, ServerProfile
from ingester.options import OPTIONS, Option
from ingester.parsing import parse
from tests.support.process import run_ingester

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
EXAMPLE = TOP / "config.example.toml"


class TestEveryVerb:
    def test_has_a_module_and_every_module_of_a_verb_is_one(self) -> None:
        modules = {
            name: import_module(f"ingester.cli.{name}")
            for _, name, _ in pkgutil.iter_modules(ingester.cli.__path__)
        }
        commands = {
            name: module.command for name, module in modules.items() if hasattr(module, "command")
        }
        assert set(commands) == set(VERBS)
        for name, command in commands.items():
            assert isinstance(command, click.Command)
            assert command.name == name
            assert command.help

    @pytest.mark.parametrize("verb", VERBS)
    def test_is_in_the_readme(self, verb: str) -> None:
        assert f"`ingester {verb}" in README.read_text(encoding="utf-8")


class TestEveryOption:
    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_is_in_the_readme(self, option: Option) -> None:
        rows = [
            line
            for line in README.read_text(encoding="utf-8").splitlines()
            if line.startswith(f"| `{option.flag}` | {option.section} |")
        ]
        assert len(rows) == 1

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_is_in_the_example_under_its_section(self, option: Option) -> None:
        document = tomllib.loads(uncommented())
        given = document[option.section][option.name]
        value = parse(option, given, "the example")
        if option.default not in (None, "generic"):
            assert value == option.default, "not the default"

    def test_is_one_that_there_is(self) -> None:
        options = README.read_text("utf-8").split("## Options")[1].split("\n## ")[0]
        flags = set(re.findall(r"^\| `(--[a-z-]+)`", options, re.MULTILINE))
        assert flags == {option.flag for option in OPTIONS}


class TestTheExample:
    def test_is_taken_without_a_word(self) -> None:
        completed = run_ingester("config", "--config", EXAMPLE)
        assert completed.returncode == 0
        assert completed.stderr == ""

    def test_is_taken_with_everything_in_it(self, tmp_path: Path) -> None:
        toml = tmp_path / "all.toml"
        text = re.sub(r"^(datastore|token_file) = .*$", "", uncommented(), flags=re.MULTILINE)
        text = text.replace("http://127", "https://127").replace(
            'auth = "basic"', 'auth = "bearer"'
        )
        toml.write_text(text, encoding="utf-8")
        completed = run_ingester("config", "--config", toml, "--json")
        assert completed.returncode == 0
        assert completed.stderr == ""


class TestTheReadme:
    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_says_which_of_two_files_each_kind_of_server_keeps(
        self, profile: ServerProfile
    ) -> None:
        rows = README.read_text(encoding="utf-8").splitlines()
        (row,) = (row for row in rows if row.startswith(f"| `{profile.name}` |"))
        assert f"| {profile.second_copy} |" in row
        assert f"| {', '.join(profile.identity)} |" in row

    @pytest.mark.parametrize("outcome", Outcome)
    def test_has_every_outcome(self, outcome: Outcome) -> None:
        assert f"| `{outcome.value}` |" in README.read_text(encoding="utf-8")


def uncommented() -> str:
    """The example with the options that it has behind a # as well."""
    text = EXAMPLE.read_text(encoding="utf-8")
    return re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)

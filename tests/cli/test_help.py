"""Help is there for every verb, and what is said at once loads nothing that is slow to load.

Imports are counted instead of milliseconds: they are the same on every machine.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingester.cli import VERBS
from ingester.version import VERSION
from tests.support.process import run_ingester, start_python

HEAVY = {"aiohttp", "apsw", "asyncio", "botocore", "msgspec", "pydicom", "ssl", "uvloop"}


def imported(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    """Top-level packages that a command loads, and its stdout."""
    with start_python("-X", "importtime", "-m", "ingester", *arguments, cwd=cwd) as process:
        completed = process.wait()
    assert completed.returncode == 0, completed.stderr[-500:]
    names = re.findall(r"^import time:.*\| +(\S+)$", completed.stderr, re.MULTILINE)
    assert "ingester.cli" in names
    assert len(completed.stderr.splitlines()) == len(names) + 1, "it says something else"
    return {name.split(".")[0] for name in names}, completed.stdout


class TestHelp:
    def test_of_the_program_names_every_verb(self) -> None:
        for flag in ("--help", "-h"):
            completed = run_ingester(flag)
            assert completed.returncode == 0
            assert completed.stderr == ""
            for verb, words in VERBS.items():
                text = " ".join(completed.stdout.split())
                assert f"{verb} {words}" in text

    def test_of_the_program_loads_nothing_slow(self, tmp_path: Path) -> None:
        assert imported("--help", cwd=tmp_path)[0].isdisjoint(HEAVY)

    @pytest.mark.parametrize("verb", VERBS)
    def test_of_a_verb_is_quick_and_changes_nothing(self, verb: str, tmp_path: Path) -> None:
        names, stdout = imported(verb, "--help", cwd=tmp_path)
        assert names.isdisjoint(HEAVY)
        assert stdout.startswith(f"Usage: ingester {verb}")
        assert list(tmp_path.iterdir()) == []

    def test_is_given_when_nothing_is_asked(self) -> None:
        completed = run_ingester()
        assert completed.returncode == 2
        assert "Usage: ingester" in completed.stderr


class TestAStatus:
    def test_loads_neither_the_network_nor_dicom(self, tmp_path: Path) -> None:
        (tmp_path / "archive").mkdir()
        run_ingester("run", "archive", "--url", "http://127.0.0.1:9", cwd=tmp_path)
        names, stdout = imported("status", cwd=tmp_path)
        assert stdout.startswith("journal ingester.db")
        assert names.isdisjoint({"aiohttp", "botocore", "pydicom"})


class TestTheVersion:
    def test_is_printed(self) -> None:
        assert run_ingester("--version").stdout == f"ingester {VERSION}\n"

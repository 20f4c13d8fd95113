"""The real command on a directory, with a journal and a results file, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypedDict

from ingester.dicomweb.outcome import IN_THE_STORE
from ingester.journal import FileRow, iter_files
from tests.support.process import Completed, Process, start_ingester

Key = tuple[str, str]  # Study and SOP Instance UID


class Summary(TypedDict):
    """What `run --json` prints, as far as it is looked at here."""

    run_id: int
    files: int
    outcomes: dict[str, int]
    requests: int
    retries: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, with its summary."""

    ended: Completed
    summary: Summary

    @property
    def exit_code(self) -> int:
        """Of the process."""
        return self.ended.returncode

    @property
    def outcomes(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {name: count for name, count in self.summary["outcomes"].items() if count}


@dataclass(frozen=True, slots=True)
class Command:
    """`ingester run` on a directory, into a store, with a journal and a results file."""

    ALWAYS: ClassVar[tuple[str, ...]] = ()

    source: Path
    url: str
    directory: Path  # of journal and results
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    server: tuple[str, ...] = ()  # the kind of server

    @property
    def journal(self) -> Path:
        """The same in every run."""
        return self.directory / "journal.db"

    @property
    def results(self) -> Path:
        """The same in every run."""
        return self.directory / "results.jsonl"

    def start(self, *options: str, env: Mapping[str, str] = {}) -> Process:
        """Starts it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return start_ingester(
            "run",
            self.source,
            f"--url={self.url}",
            f"--journal={self.journal}",
            f"--results={self.results}",
            "--json",
            *self.server,
            *self.ALWAYS,
            *self.options,
            *options,
            env={**self.environment, **env},
        )

    def run(self, *options: str, env: Mapping[str, str] = {}) -> Run:
        """Runs it to its end."""
        with self.start(*options, env=env) as process:
            return read_run(process.wait(90))

    def rows(self) -> dict[Path, FileRow]:
        """The journal's rows by path; no path has two."""
        rows = list(iter_files(str(self.journal)))
        by_path = {Path(row.path.decode()): row for row in rows}
        assert len(by_path) == len(rows)
        return by_path

    def stored(self) -> dict[Key, FileRow]:
        """The rows that say the store has their instance; no instance has two."""
        rows = [row for row in self.rows().values() if row.outcome in IN_THE_STORE]
        by_key = {(row.study_instance_uid, row.sop_instance_uid): row for row in rows}
        assert len(by_key) == len(rows)
        return by_key

    def lines(self) -> list[dict[str, object]]:
        """The results lines of all runs."""
        return [json.loads(line) for line in self.results.read_text().splitlines()]


def read_run(ended: Completed) -> Run:
    """The summary of a process that got as far as that."""
    assert ended.stdout, ended.stderr
    summary: Summary = json.loads(ended.stdout)
    assert summary["exit_code"] == ended.returncode, ended.stderr
    assert sum(summary["outcomes"].values()) == summary["files"]
    return Run(ended, summary)

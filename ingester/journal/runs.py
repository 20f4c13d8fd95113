"""Every start is a run: who, where, with what, from when to when, and how it ended."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ingester.journal.schema import clean_text

if TYPE_CHECKING:
    import apsw


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run when it starts. Its target is that of the journal."""

    name: str = ""  # --name
    operator: str = ""
    host: str = ""
    version: str = ""
    config_digest: str = ""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What only the run itself can tell when it ends."""

    unreadable_directories: int = 0
    requests: int = 0
    retries: int = 0
    bytes_stored: int = 0
    elapsed_s: float = 0.0
    peak_rss_mib: float = 0.0
    bottleneck: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the journal has it."""

    run_id: int
    info: RunInfo
    target: str
    started_at: str  # UTC, ISO 8601
    finished_at: str | None  # None: going on, or killed
    exit_code: int | None
    studies: int  # met in it
    figures: RunFigures


def utc_now() -> str:
    """ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def insert_run(connection: apsw.Connection, info: RunInfo, target: str) -> int:
    """A run starts now, and the journal is of its target from now on; its id."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('created_at', ?)", (utc_now(),))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('target', ?)", (target,))
    connection.execute(
        "INSERT INTO runs (name, operator, host, version, config_digest, target, started_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*map(clean_text, dataclasses.astuple(info)), target, utc_now()),
    )
    return connection.last_insert_rowid()


def end_run(
    connection: apsw.Connection,
    run_id: int,
    exit_code: int | None,
    figures: RunFigures,
) -> None:
    """The run ends now; without an exit code, as long as that is not known."""
    connection.execute(
        "UPDATE runs SET finished_at = ?, exit_code = ?, unreadable_directories = ?, requests = ?,"
        " retries = ?, bytes_stored = ?, elapsed_s = ?, peak_rss_mib = ?, bottleneck = ?"
        " WHERE run_id = ?",
        (
            utc_now(),
            exit_code,
            figures.unreadable_directories,
            figures.requests,
            figures.retries,
            figures.bytes_stored,
            figures.elapsed_s,
            figures.peak_rss_mib,
            clean_text(figures.bottleneck),
            run_id,
        ),
    )


def read_runs(connection: apsw.Connection, *, last: int | None = None) -> list[Run]:
    """Runs, the latest first; all, or the ``last`` so many."""
    rows = connection.execute(
        "SELECT run_id, name, operator, host, version, config_digest, target, started_at,"
        " finished_at, exit_code, studies, unreadable_directories, requests, retries,"
        " bytes_stored, elapsed_s, peak_rss_mib, bottleneck"
        " FROM runs ORDER BY run_id DESC LIMIT ?",
        (-1 if last is None else last,),
    )
    return [_run(*row) for row in rows]


def _run(run_id: int, *row: Any) -> Run:
    target, started_at, finished_at, exit_code, studies = row[5:10]
    return Run(
        run_id,
        RunInfo(*row[:5]),
        target,
        started_at,
        finished_at,
        exit_code,
        studies,
        RunFigures(*row[10:]),
    )

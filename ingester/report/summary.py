"""The summary of a run: one object for programs, a few lines for people."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

import msgspec

from ingester.dicomweb.outcome import INCOMPLETE, Outcome
from ingester.items import Result

_LISTED = INCOMPLETE | {Outcome.STORED_WITH_WARNING}  # by `exceptions_command`, if of pixels


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What ``run --json`` prints.

    ``files`` and ``outcomes`` speak of every file met in this run, with the state the journal has
    for it; requests and retries are this run's, bytes and rates are of what it sent and the store
    has.
    """

    run_id: int
    started_at: str
    finished_at: str
    version: str
    files: int
    unreadable_directories: int
    skipped_directories: int  # unchanged since the run that this one resumes: not listed again
    outcomes: dict[str, int]
    studies: int
    bytes_stored: int
    requests: int
    retries: int
    elapsed_s: float
    mb_per_s: float
    instances_per_s: float
    peak_rss_mib: float
    bottleneck: str
    journal: str
    exit_code: int
    insecure: bool  # nobody verified who the server is


def all_outcomes(counts: Mapping[Outcome, int]) -> dict[str, int]:
    """Every outcome with its count, the ones that did not happen too."""
    return {outcome.value: counts.get(outcome, 0) for outcome in Outcome}


def exit_code_of(
    outcomes: Mapping[Outcome, int],
    *,
    fatal: bool,
    signal_number: int | None,
    pixel_warnings: int,
    unreadable_directories: int,
) -> int:
    """0, 1, 3 or 128 + signal. Precedence: 1, signal, 3."""
    if fatal:
        return 1
    if signal_number is not None:
        return 128 + signal_number
    incomplete = sum(outcomes.get(outcome, 0) for outcome in INCOMPLETE)
    if incomplete or pixel_warnings or unreadable_directories:
        return 3
    return 0


def to_json(summary: RunSummary) -> str:
    """The summary as one JSON object, in ASCII: the same bytes whatever the locale."""
    return json.dumps(msgspec.to_builtins(summary), separators=(",", ":"))


def to_lines(summary: RunSummary) -> list[str]:
    """The summary for a person."""
    counts = [f"{name} {count:,}" for name, count in summary.outcomes.items() if count]
    lines = [
        f"{summary.files:,} files: {', '.join(counts) or 'none'}",
        (
            f"{summary.bytes_stored / 1e6:,.1f} MB stored in {summary.elapsed_s:,.1f} s "
            f"({summary.mb_per_s:,.1f} MB/s, {summary.instances_per_s:,.1f} instances/s, "
            f"{summary.requests:,} requests, {summary.retries:,} retries); "
            f"bottleneck: {summary.bottleneck}"
        ),
    ]
    if summary.unreadable_directories:
        lines.append(unreadable_line(summary.unreadable_directories))
    if summary.skipped_directories:
        skipped = _directories(summary.skipped_directories, "complete ")
        lines.append(f"not listed again: {skipped}")
    if summary.insecure:
        lines.append("the server's certificate was not verified (--insecure)")
    lines.append(f"journal: {summary.journal}, run {summary.run_id}")
    if not summary.files and not summary.unreadable_directories:
        lines.append("nothing was met: is this the right directory, and is it mounted?")
    if summary.exit_code == 3:
        lines.append("not everything is stored (exit code 3)")
        if any(summary.outcomes.get(outcome) for outcome in _LISTED):
            lines[-1] += f"; for the files: {exceptions_command(summary.journal)}"
    return lines


def unreadable_line(count: int) -> str:
    """What is said of directories that could not be read; only a terminal is told their names."""
    whose = "its name" if count == 1 else "their names"
    where = f"for {whose} start the run again on a terminal"
    return f"{_directories(count)} could not be read; {where}"


def _directories(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}{'directory' if count == 1 else 'directories'}"


def not_taken_line(result: Result, journal: str) -> str:
    """What is said of the first file that the server would not have."""
    status = "" if result.http_status is None else f", HTTP {result.http_status}"
    return (
        f"warning: a first file is not stored ({result.outcome.value}: {result.reason_code}"
        f"{status}); for the files: {exceptions_command(journal)}"
    )


def exceptions_command(journal: str) -> str:
    """What lists the files that are not stored."""
    return f"ingester status --exceptions --journal {shlex.quote(journal)}"

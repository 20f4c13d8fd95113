"""Measures the rows of `rows.py`: subjects and rivals by turns, each in a fresh process.

Takes: which rows, how often, and a directory for corpora.
Gives: each row's value by medians and by best, and its target; with `--record` also a JSON line a
row in `benchmarks/results/compare.jsonl`, of which `benchmarks.table` makes the README's table.
Bounds: `--repeats` runs an entry and `--timeout-s` a run.
Ends: with status 0, or 1 when any run was wrong; a row with a wrong run has no value.
"""

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from benchmarks import slow_sync
from benchmarks.endings import leave_nothing_behind
from benchmarks.entries import Entry, Row
from benchmarks.environment import ROOT, machine
from benchmarks.records import line_of, record
from benchmarks.rivals import Curl, DicomwebClient, curl_version, dicomweb_client_version
from benchmarks.rows import Rows
from benchmarks.subjects import Halves, Ingester, Resumed, Subject
from benchmarks.turns import WrongStartError, measure_group

RESULTS: Final = os.path.join(ROOT, "benchmarks", "results", "compare.jsonl")
_REPEATS_MAX: Final = 100
_SCALE_MAX: Final = 1000


def _versions(rows: Sequence[Row], dicomweb_client_python: str | None) -> dict[str, str]:
    """Of the rivals that the rows need.

    Raises:
        ValueError: one is not there, or what a subject needs is not.
    """
    ours = [row.subject.subject for row in rows]
    if any(isinstance(subject, Ingester) and subject.slow_sync_ms for subject in ours):
        slow_sync.compiler()
    rivals = [row.rival.subject for row in rows if row.rival is not None]
    versions = {}
    if any(isinstance(rival, Curl) for rival in rivals):
        versions["curl"] = curl_version()
    if any(isinstance(rival, DicomwebClient) for rival in rivals):
        versions["dicomweb-client"] = dicomweb_client_version(dicomweb_client_python)
    return versions


def _with_options(subject: Subject, options: tuple[str, ...]) -> Subject | None:
    """The subject with more options of `ingester run`; None where that is not in it."""
    match subject:
        case Ingester():
            return replace(subject, options=(*subject.options, *options))
        case Resumed(first):
            return replace(subject, first=replace(first, options=(*first.options, *options)))
        case Halves(whole):
            return replace(subject, whole=replace(whole, options=(*whole.options, *options)))
        case _:
            return None


def _with_client_args(row: Row, options: tuple[str, ...]) -> Row | None:
    """The row with these for subject and rival; None where the subject takes none."""
    subject = _with_options(row.subject.subject, options)
    if subject is None:
        return None
    rival = row.rival
    if rival is not None:
        rival = replace(rival, subject=_with_options(rival.subject, options) or rival.subject)
    return replace(row, subject=replace(row.subject, subject=subject), rival=rival)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    names = [row.name for row in Rows().all()]
    parser.add_argument(
        "--row",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"default: all, which are {', '.join(names)}",
    )
    parser.add_argument("--work", metavar="DIR", help="keeps the corpora (default: a temporary)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=float, help="of every tier, in place of the rows' own")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="for one run")
    parser.add_argument("--dicomweb-client-python", metavar="PATH", help="a Python that has it")
    parser.add_argument("--client-args", default="", help="more options of `ingester run`")
    parser.add_argument("--verify", action="store_true", help="compare every byte that arrived")
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument(
        "--record",
        nargs="?",
        const=RESULTS,
        metavar="FILE",
        help="append to FILE (default: what the table is made of)",
    )
    return parser


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Row]:
    if not 1 <= options.repeats <= _REPEATS_MAX:
        parser.error(f"--repeats is from 1 to {_REPEATS_MAX}")
    if options.record and (options.verify or options.client_args):
        parser.error("--record is for the rows as they are: no --verify and no --client-args")
    if options.scale is not None and not 0 < options.scale <= _SCALE_MAX:
        parser.error(f"--scale is above 0, and at most {_SCALE_MAX}")
    try:
        rows = Rows(options.scale, options.dicomweb_client_python).all()
    except ValueError as error:
        parser.error(str(error))
    rows = [row for row in rows if not options.row or row.name in options.row]
    more = tuple(shlex.split(options.client_args))
    if not more:
        return rows
    changed = {row.name: _with_client_args(row, more) for row in rows}
    if wrong := [name for name, row in changed.items() if row is None]:
        parser.error(f"--client-args is for `ingester run`, which is not in {', '.join(wrong)}")
    return [row for row in changed.values() if row is not None]


def _groups(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Entry]]]:
    """The rows of each group with the entries that they need, each once."""
    for group in dict.fromkeys(row.group for row in rows):
        chosen = [row for row in rows if row.group == group]
        both = [entry for row in chosen for entry in (row.subject, row.rival) if entry is not None]
        yield chosen, list(dict.fromkeys(both))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the options ask for; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dicomweb_client_python is not None:  # clients run in another directory
        options.dicomweb_client_python = os.path.abspath(options.dicomweb_client_python)
    rows = _chosen(parser, options)
    try:
        versions = _versions(rows, options.dicomweb_client_python)
    except ValueError as error:
        parser.error(str(error))
    leave_nothing_behind()
    wrong = False
    for chosen, entries in _groups(rows):
        try:
            with work_directory(options.work) as work:
                runs, starts = measure_group(
                    entries,
                    work,
                    repeats=options.repeats,
                    timeout_s=options.timeout_s,
                    verify=options.verify,
                )
        except WrongStartError as error:
            wrong = True
            print(f"{', '.join(row.name for row in chosen)}: {error}", file=sys.stderr)
            continue
        for row in chosen:
            made = record(row, runs, starts, {**machine(), "rivals": versions})
            wrong |= made["value"] is None
            print(json.dumps(made) if options.json else line_of(made), flush=True)
            if options.record:
                _append(options.record, json.dumps(made))
    return int(wrong)


@contextlib.contextmanager
def work_directory(work: str | None) -> Iterator[str]:
    """The directory that was asked for, or a temporary one for the time of the block."""
    if work is None:
        with tempfile.TemporaryDirectory(prefix="ingester-bench-") as directory:
            yield directory
    else:
        os.makedirs(work, exist_ok=True)
        yield os.path.abspath(work)


def _append(path: str, line: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a", encoding="utf-8") as out:
        out.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

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
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from benchmarks.corpora import Corpus
from benchmarks.corpus_files import make
from benchmarks.environment import ROOT, machine
from benchmarks.figures import Start, start_of
from benchmarks.measure import Run, check, check_digests, run_client, warm
from benchmarks.records import line_of, record
from benchmarks.rivals import Curl, DicomwebClient, curl_version, dicomweb_client_version
from benchmarks.rows import Entry, Row, Rows
from benchmarks.sink_process import running_sink
from benchmarks.subjects import Ingester, Place, Subject

RESULTS: Final = os.path.join(ROOT, "benchmarks", "results", "compare.jsonl")
_ONE: Final = Corpus("one", files=1, size=32 * 1024, studies=1)
_STARTS: Final = 4  # the first warms up
_REPEATS_MAX: Final = 100


def measure(entry: Entry, work: str, *, timeout_s: float, verify: bool = False) -> Run:
    """Runs `entry` once, with a journal and a sink of its own."""
    files = make(entry.corpus, work)
    warm(entry.subject.reads(entry.corpus, files))
    with tempfile.TemporaryDirectory(prefix="run-", dir=work) as directory:
        digests = os.path.join(directory, "digests.json") if verify else None
        with running_sink(entry.sink, digests_file=digests) as sink:
            job = entry.subject.job(Place(entry.corpus, files, directory, work, sink.url, sink.ca))
            run = run_client(job, directory, timeout_s)
        run.sink = sink.totals
        check(run, job)
        if digests is not None:
            check_digests(run, entry.corpus, files, digests)
    return run


def measure_start(subject: Subject, work: str, timeout_s: float) -> Start:
    """What the subject costs on one small file.

    Raises:
        RuntimeError: it is wrong even there.
    """
    one = Entry(replace(subject, rounds=1) if isinstance(subject, Curl) else subject, _ONE)
    runs = [measure(one, work, timeout_s=timeout_s) for _ in range(_STARTS)]
    problems = [problem for run in runs for problem in run.problems]
    if problems:
        raise RuntimeError(f"{subject.name} on one file: {problems[0]}")
    return start_of(runs)


def measure_group(
    entries: Sequence[Entry], work: str, *, repeats: int, timeout_s: float, verify: bool = False
) -> tuple[dict[Entry, list[Run]], dict[Entry, Start]]:
    """Runs every entry `repeats` times, by turns, after what they need was made and written out."""
    for entry in entries:
        _say(f"making {entry.name}")
        for _ in entry.subject.reads(entry.corpus, make(entry.corpus, work)):
            pass
    os.sync()  # or the disk would still be busy with it in the first turn
    subjects = dict.fromkeys(entry.subject for entry in entries)
    start_of_subject = {one: measure_start(one, work, timeout_s) for one in subjects}
    runs: dict[Entry, list[Run]] = {entry: [] for entry in entries}
    for turn in range(repeats):
        first = turn % len(entries)  # nobody always runs after the same other
        for entry in (*entries[first:], *entries[:first]):
            run = measure(entry, work, timeout_s=timeout_s, verify=verify)
            runs[entry].append(run)
            words = "; ".join(run.problems) or f"{run.content_bytes / 1e6 / run.wall_s:.0f} MB/s"
            _say(f"turn {turn + 1}/{repeats} {entry.name}: {words}")
    return runs, {entry: start_of_subject[entry.subject] for entry in entries}


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _versions(rows: Sequence[Row], dicomweb_client_python: str | None) -> dict[str, str]:
    """Of the rivals that the rows need.

    Raises:
        ValueError: one is not there.
    """
    rivals = [row.rival.subject for row in rows if row.rival is not None]
    versions = {}
    if any(isinstance(rival, Curl) for rival in rivals):
        versions["curl"] = curl_version()
    if any(isinstance(rival, DicomwebClient) for rival in rivals):
        versions["dicomweb-client"] = dicomweb_client_version(dicomweb_client_python)
    return versions


def _with_options(entry: Entry, options: tuple[str, ...]) -> Entry:
    subject = entry.subject
    if not isinstance(subject, Ingester):
        return entry
    return replace(entry, subject=replace(subject, options=(*subject.options, *options)))


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
    if options.scale is not None and not options.scale > 0:
        parser.error("--scale is above 0")
    try:
        rows = Rows(options.scale, options.dicomweb_client_python).all()
    except ValueError as error:
        parser.error(str(error))
    more = tuple(shlex.split(options.client_args))
    return [
        replace(
            row,
            subject=_with_options(row.subject, more),
            rival=row.rival and _with_options(row.rival, more),
        )
        for row in rows
        if not options.row or row.name in options.row
    ]


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
    # An ordinary SIGTERM would leave sink, client and corpora behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    wrong = False
    with contextlib.ExitStack() as stack:
        work = options.work
        if work is None:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="ingester-bench-"))
        os.makedirs(work, exist_ok=True)
        for chosen, entries in _groups(rows):
            runs, starts = measure_group(
                entries,
                os.path.abspath(work),
                repeats=options.repeats,
                timeout_s=options.timeout_s,
                verify=options.verify,
            )
            for row in chosen:
                made = record(row, runs, starts, {**machine(), "rivals": versions})
                wrong |= made["value"] is None
                print(json.dumps(made) if options.json else line_of(made), flush=True)
                if options.record:
                    _append(options.record, json.dumps(made))
    return int(wrong)


def _append(path: str, line: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a", encoding="utf-8") as out:
        out.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

"""Runs the entries of a group by turns, each time in fresh processes.

Takes: entries, and a directory that keeps corpora and bodies between runs.
Gives: the runs of each entry, right or wrong, and what the start of its subject costs.
Bounds: `repeats` runs an entry and `timeout_s` a run.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from benchmarks.entries import Entry
from benchmarks.figures import Start, start_of
from benchmarks.rivals import Curl
from benchmarks.subjects import Place, Subject
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import make
from ingester.bench.measure import Run, check, run_client, warm
from ingester.bench.processes import Children
from ingester.bench.sink_process import running_sink

_ONE: Final = Corpus("one", files=1, size=32 * 1024, studies=1)
_STARTS: Final = 4  # the first warms up


class WrongStartError(Exception):
    """A subject is wrong on one small file: its group is not worth measuring."""


def measure(
    entry: Entry,
    work: str,
    *,
    timeout_s: float,
    verify: bool = False,
    children: Children | None = None,
) -> Run:
    """Runs `entry` once, with a journal and a sink of its own; `children` knows the client."""
    files = make(entry.corpus, work)
    warm(entry.subject.reads(entry.corpus, files))
    with tempfile.TemporaryDirectory(prefix="run-", dir=work) as directory:
        digests = os.path.join(directory, "digests.json") if verify else None
        with running_sink(entry.sink, digests_file=digests) as sink:
            job = entry.subject.job(Place(entry.corpus, files, directory, sink.url, sink.ca))
            run = run_client(job, directory, timeout_s, children=children)
        sys.stderr.writelines(run.last_words if run.exit_code else ())
        run.sink = sink.totals
        check(run, job)
        if digests is not None and job.distinct:
            _check_digests(run, entry.corpus, files, digests)
    return run


def _check_digests(run: Run, corpus: Corpus, files: str, digests_file: str) -> None:
    """Compares what arrived, byte for byte by SHA-256, with what is on the disk."""
    with open(digests_file, encoding="ascii") as text:
        arrived = json.load(text)
    wrong = 0
    for index, path in enumerate(corpus.paths(files)):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        wrong += arrived.get(corpus.sop_instance_uid(index)) != digest
    if wrong:
        run.problems.append(f"instances that did not arrive byte for byte: {wrong}")


def measure_start(subject: Subject, work: str, timeout_s: float) -> Start:
    """What the subject costs on one small file.

    Raises:
        WrongStartError: it is wrong even there.
    """
    one = Entry(replace(subject, rounds=1) if isinstance(subject, Curl) else subject, _ONE)
    runs = [measure(one, work, timeout_s=timeout_s) for _ in range(_STARTS)]
    problems = [problem for run in runs for problem in run.problems]
    if problems:
        raise WrongStartError(f"{subject.name} on one file: {problems[0]}")
    return start_of(runs)


def measure_group(
    entries: Sequence[Entry], work: str, *, repeats: int, timeout_s: float, verify: bool = False
) -> tuple[dict[Entry, list[Run]], dict[Entry, Start]]:
    """Runs every entry `repeats` times, by turns, after what they need was made and written out.

    Raises:
        WrongStartError: a subject is wrong on one small file.
    """
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

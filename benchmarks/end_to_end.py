"""Measures `ingester run` from a directory to a sink, each run in a fresh interpreter.

Takes: tiers of corpora, how often, and options to hand on to the client.
Gives: a table on stdout (or JSON lines with `--json`); with `--record` the lines are also appended
to `benchmarks/results/`.
Bounds: `--repeats` runs a tier, `--timeout-s` a run.
Ends: with status 0, or 1 when any run was wrong; figures of wrong runs are never shown.

Runs of the tiers alternate, so that a noisy minute of the machine hits all of them alike.
"""

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.corpora import Corpus, add_corpus_options, chosen, make
from benchmarks.measure import (
    ROOT,
    Run,
    check,
    check_digests,
    run_client,
    running_sink,
    warm,
)

CLIENT: Final = (sys.executable, "-m", "ingester")
_LIBRARIES: Final = ("aiohttp", "uvloop", "apsw", "pydicom", "botocore", "msgspec")
_REPEATS_MAX: Final = 100


def measure(
    corpus: Corpus,
    files: str,
    *,
    work: str,
    client: Sequence[str] = CLIENT,
    client_args: Sequence[str] = (),
    sink_latency_ms: float = 0.0,
    verify: bool = False,
    timeout_s: float = 300.0,
) -> Run:
    """Sends `corpus`, which lies in `files`, once, with a journal and a sink of its own."""
    warm(corpus, files)
    with tempfile.TemporaryDirectory(prefix="run-", dir=work) as directory:
        digests = os.path.join(directory, "digests.json")
        sink_args = ["--latency-ms", str(sink_latency_ms), *(["--verify", digests] * verify)]
        with running_sink(sink_args) as sink:
            command = [
                *client,
                "run",
                files,
                *("--url", sink.url),
                *("--journal", os.path.join(directory, "ingester.db")),
                *("--results", os.path.join(directory, "results.jsonl")),
                "--json",
                *client_args,
            ]
            run = run_client(command, directory, timeout_s)
        run.sink = sink.totals
        check(run, corpus)
        if verify:
            check_digests(run, corpus, files, digests)
    return run


def figures(runs: Sequence[Run], corpus: Corpus) -> dict[str, Any]:
    """The figures of the runs that were right: the best one and the median of each.

    Rates are of the client process's whole life, its start included; GB and MB are decimal.
    """
    best_and_median = {}
    for name, values, best in (
        ("wall_s", [run.wall_s for run in runs], min),
        ("mb_per_s", [corpus.bytes / 1e6 / run.wall_s for run in runs], max),
        ("instances_per_s", [corpus.files / run.wall_s for run in runs], max),
        ("cpu_s_per_gb", [run.cpu_s / (corpus.bytes / 1e9) for run in runs], min),
        ("cpu_s_per_1000", [run.cpu_s / (corpus.files / 1e3) for run in runs], min),
        ("peak_rss_mib", [run.peak_rss_mib for run in runs], min),
        ("sink_cpu_s", [float(run.sink["cpu_s"]) for run in runs], min),
        ("requests", [float(run.sink["requests"]) for run in runs], min),
    ):
        best_and_median[name] = {
            "best": round(best(values), 4),
            "median": round(statistics.median(values), 4),
        }
    return best_and_median


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Where and of what the record is: commit, processor, Python and libraries, no host name."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return {
        "commit": _git("rev-parse", "--verify", "HEAD"),
        "dirty": changed is None or bool(changed),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions,
    }


def record(corpus: Corpus, runs: Sequence[Run], options: argparse.Namespace) -> dict[str, Any]:
    """One line of the results: a tier, all its runs, and the machine."""
    right = [run for run in runs if not run.problems]
    kept = ("requests", "retries", "elapsed_s", "mb_per_s", "instances_per_s", "peak_rss_mib")
    return {
        "benchmark": "end_to_end",
        "corpus": {**asdict(corpus), "bytes": corpus.bytes},
        "client_args": options.client_args,
        "sink_latency_ms": options.sink_latency_ms,
        "verify": options.verify,
        **machine(),
        "figures": figures(right, corpus) if right else None,
        "runs": [
            {
                "wall_s": round(run.wall_s, 4),
                "cpu_s": round(run.cpu_s, 4),
                "peak_rss_mib": round(run.peak_rss_mib, 1),
                "exit_code": run.exit_code,
                "client": {key: run.summary[key] for key in kept if key in run.summary},
                "sink": run.sink,
                "problems": run.problems,
            }
            for run in runs
        ],
    }


_COLUMNS: Final = (
    ("MB/s", "mb_per_s", "{:.0f}"),
    ("inst/s", "instances_per_s", "{:.0f}"),
    ("CPU s/GB", "cpu_s_per_gb", "{:.2f}"),
    ("CPU s/1000", "cpu_s_per_1000", "{:.3f}"),
    ("RSS MiB", "peak_rss_mib", "{:.0f}"),
    ("requests", "requests", "{:.0f}"),
)


def table(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table for people: the best of the runs, and the median after a slash."""
    yield "".join(
        [
            f"{'tier':<8}{'files':>8}{'MB':>8}{'runs':>6}",
            *(f"{title:>16}" for title, _, _ in _COLUMNS),
        ]
    )
    for line in records:
        corpus, runs = line["corpus"], line["runs"]
        right = sum(not run["problems"] for run in runs)
        start = f"{corpus['name']:<8}{corpus['files']:>8}{corpus['bytes'] / 1e6:>8.0f}"
        start += f"{f'{right}/{len(runs)}':>6}"
        cells = [
            f"{form.format(value['best'])} / {form.format(value['median'])}"
            for value, form in (
                (line["figures"][key], form) for _, key, form in _COLUMNS if line["figures"]
            )
        ]
        yield start + "".join(f"{cell:>16}" for cell in cells)


def _options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[Corpus]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    add_corpus_options(parser)
    parser.add_argument("--work", metavar="DIR", help="keeps the corpora (default: a temporary)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one run")
    parser.add_argument("--client-args", default="", help="more options of `ingester run`")
    parser.add_argument("--sink-latency-ms", type=float, default=0.0)
    parser.add_argument("--verify", action="store_true", help="compare every byte that arrived")
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout, no table")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/results/")
    options = parser.parse_args(arguments)
    if not 1 <= options.repeats <= _REPEATS_MAX:
        parser.error(f"--repeats is from 1 to {_REPEATS_MAX}")
    try:
        return options, chosen(options)
    except ValueError as error:
        parser.error(str(error))


def _measure_all(
    corpora: Sequence[Corpus], options: argparse.Namespace, work: str
) -> list[list[Run]]:
    places = []
    for corpus in corpora:
        print(f"corpus {corpus.directory}", file=sys.stderr)
        places.append(make(corpus, work))
    runs: list[list[Run]] = [[] for _ in corpora]
    for turn in range(options.repeats):
        for corpus, files, done in zip(corpora, places, runs, strict=True):
            run = measure(
                corpus,
                files,
                work=work,
                client_args=shlex.split(options.client_args),
                sink_latency_ms=options.sink_latency_ms,
                verify=options.verify,
                timeout_s=options.timeout_s,
            )
            done.append(run)
            words = "; ".join(run.problems) or f"{corpus.bytes / 1e6 / run.wall_s:.0f} MB/s"
            print(f"run {turn + 1}/{options.repeats} {corpus.name}: {words}", file=sys.stderr)
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the options ask for; returns the exit status."""
    options, corpora = _options(arguments)
    # An ordinary SIGTERM would leave sink, client and corpora behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        work = options.work
        if work is None:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="ingester-bench-"))
        os.makedirs(work, exist_ok=True)
        work = os.path.abspath(work)
        runs = _measure_all(corpora, options, work)
    records = [record(corpus, done, options) for corpus, done in zip(corpora, runs, strict=True)]
    lines = [json.dumps(line) for line in records]
    if options.record:
        results = os.path.join(ROOT, "benchmarks", "results")
        os.makedirs(results, exist_ok=True)
        with open(os.path.join(results, "end_to_end.jsonl"), "a", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
    for line in lines if options.json else table(records):
        print(line)
    return int(any(run.problems for done in runs for run in done))


if __name__ == "__main__":
    sys.exit(main())

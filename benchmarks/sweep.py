"""How defaults were chosen: `ingester run` with each of some sets of options, by turns.

Takes: a tier and sets of options, each one argument; the empty set is the defaults.
Gives: a line for each set: rate, CPU and memory by medians, and the best rate.
Ends: with status 1 when any run was wrong.

    python -m benchmarks.sweep --work DIR archive "" "--max-batch-bytes 4MiB" "--readers 8"
"""

import argparse
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.compare import work_directory
from benchmarks.endings import leave_nothing_behind
from benchmarks.entries import Entry
from benchmarks.figures import Start, of_run
from benchmarks.subjects import TLS_LITERAL
from benchmarks.tiers import TIERS
from benchmarks.turns import WrongStartError, measure_group
from ingester.bench.measure import Run


def _line(name: str, runs: Sequence[Run], start: Start) -> str:
    problems = {problem for run in runs for problem in run.problems}
    if problems:
        return f"{name:<40}{'; '.join(sorted(problems))}"
    figures = [of_run(run, start, None) for run in runs]
    rate, cpu, rss = (
        statistics.median(one[figure] for one in figures)
        for figure in ("instances_per_s", "cpu_us_per_file", "peak_rss_mib")
    )
    best = max(one["instances_per_s"] for one in figures)
    return f"{name:<40}{rate:7.0f} instances/s, best {best:.0f}, {cpu:.0f} µs/file, {rss:.0f} MiB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("tier", choices=list(TIERS))
    parser.add_argument("options", nargs="+", help='of `ingester run`, in quotes; "": none')
    parser.add_argument("--work", metavar="DIR", help="keeps the corpora (default: a temporary)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the tier")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of each answer")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="for one run")
    given = parser.parse_args(arguments)
    corpus = TIERS[given.tier].scaled(given.scale)
    entries = [
        Entry(
            replace(TLS_LITERAL, name=words or "defaults", options=tuple(shlex.split(words))),
            corpus,
            latency_ms=given.latency_ms,
        )
        for words in given.options
    ]
    leave_nothing_behind()
    try:
        with work_directory(given.work) as work:
            runs, starts = measure_group(
                entries, work, repeats=given.repeats, timeout_s=given.timeout_s
            )
    except WrongStartError as error:
        parser.error(str(error))
    for entry in entries:
        print(_line(entry.subject.name, runs[entry], starts[entry]), flush=True)
    return int(any(run.problems for some in runs.values() for run in some))


if __name__ == "__main__":
    sys.exit(main())

"""Where the CPU of a run goes: the event loop, its threads, the processes that read, and the sink.

Takes: a tier, a way to send, and options of `ingester run`.
Gives: user and system time of each, in µs a file, the rate, and what the event loop's thread was
found in a hundred times a second: on a core or about to be, waiting for another thread (for the
interpreter, nearly always), or with nothing to do. Linux only.
Ends: with status 1 when the run was wrong.

    python -m benchmarks.threads --work DIR --scale 4 archive tls-literal -- --checksums none
"""

import argparse
import os
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from typing import Final

from benchmarks.compare import work_directory
from benchmarks.endings import leave_nothing_behind
from benchmarks.entries import Entry
from benchmarks.subjects import PLAIN, TLS, TLS_LITERAL, TLS_SHA256
from benchmarks.tiers import TIERS
from benchmarks.turns import measure
from ingester.bench.processes import Children

SUBJECTS: Final = {one.name: one for one in (PLAIN, TLS, TLS_LITERAL, TLS_SHA256)}
_EVERY_S: Final = 0.01
_LOOKS_A_SWEEP: Final = 5  # of the loop, for each of all threads and processes
_TICK_US: Final = 1e6 / os.sysconf("SC_CLK_TCK")

Times = dict[tuple[str, str], tuple[float, float]]
"""User and system µs, by who it is and its id."""


def _times_of(pid: int) -> Times:
    """Of a process by its threads, and of its children as a whole."""
    times: Times = {}
    for path in glob(f"/proc/{pid}/task/*/stat"):
        thread = path.split("/")[4]
        times["loop" if thread == str(pid) else "threads", thread] = _read(path)
    for path in glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as children:
                for child in children.read().split():
                    times["processes", child] = _read(f"/proc/{child}/stat")
        except OSError:
            continue
    return times


def _stat(path: str) -> list[str]:
    """The fields after the name; none when it has ended."""
    try:
        with open(path, encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return []


def _read(path: str) -> tuple[float, float]:
    fields = _stat(path)
    return (int(fields[11]) * _TICK_US, int(fields[12]) * _TICK_US) if fields else (0.0, 0.0)


def _doing(pid: int) -> str:
    """What the event loop's thread is in, by the state and the place that the kernel shows."""
    try:
        with open(f"/proc/{pid}/task/{pid}/wchan", encoding="ascii") as place:
            waits_in = place.read()
    except OSError:  # it has ended
        return ""
    if _stat(f"/proc/{pid}/task/{pid}/stat")[:1] == ["R"]:
        return "on a core or about to be"
    if "futex" in waits_in:
        return "waiting for another thread"
    return "with nothing to do" if "poll" in waits_in else "elsewhere"


def _watch(children: Children, times: Times, doing: Counter[str], ended: threading.Event) -> None:
    """Keep the last that was seen of each, and count what the loop was in, until the end."""
    looks = 0
    while not ended.wait(_EVERY_S):
        looks += 1
        for pid in children.pids:
            doing[_doing(pid)] += 1
            if looks % _LOOKS_A_SWEEP == 0:
                times.update({who: each for who, each in _times_of(pid).items() if any(each)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("tier", choices=list(TIERS))
    parser.add_argument("subject", choices=list(SUBJECTS))
    parser.add_argument("options", nargs="*", help="of `ingester run`, after --")
    parser.add_argument("--work", metavar="DIR", help="keeps the corpus (default: a temporary)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the tier")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="for the run")
    given = parser.parse_args(arguments)
    subject = replace(SUBJECTS[given.subject], options=tuple(given.options))
    entry = Entry(subject, TIERS[given.tier].scaled(given.scale))
    children, ended, times, doing = Children(), threading.Event(), Times(), Counter[str]()
    watcher = threading.Thread(target=_watch, args=(children, times, doing, ended))
    leave_nothing_behind()
    watcher.start()
    try:
        with work_directory(given.work) as work:
            run = measure(entry, work, timeout_s=given.timeout_s, children=children)
    finally:
        ended.set()
        watcher.join()
    for problem in run.problems:
        print(problem, file=sys.stderr)
    print(f"{run.files / run.wall_s:.0f} instances/s, exit code {run.exit_code}")
    _tell(times, run.files)
    print(f"{'sink':<10}{run.sink['cpu_s'] / run.files * 1e6:6.0f} µs")
    del doing[""]
    shares = (f"{what} {count / doing.total():.0%}" for what, count in doing.most_common())
    print(f"the loop's thread: {', '.join(shares)}")
    return int(bool(run.problems))


def _tell(times: Times, files: int) -> None:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for (who, _), (user, system) in times.items():
        sums[who][0] += user / files
        sums[who][1] += system / files
    for who, (user, system) in sums.items():
        print(f"{who:<10}{user:6.0f} µs user, {system:6.0f} µs system a file")


if __name__ == "__main__":
    sys.exit(main())

"""From runs to figures, and from figures to the value of a row.

Takes: the runs of an entry, and what the start of its process costs.
Gives: each figure's median and best; a row's value by both, and whether its target is reached.

Rates are of the client process's whole life, its start included; GB and MB are decimal, of files
and not of bodies.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingester.bench.measure import Run

HIGH_IS_GOOD: Final = frozenset({"mb_per_s", "instances_per_s", "allowance_used"})


@dataclass(frozen=True, slots=True)
class Start:
    """What a subject costs before it has anything to do: the medians of runs on one file."""

    wall_s: float
    cpu_s: float


def start_of(runs: Sequence[Run]) -> Start:
    """The start's cost. The first run is a warm-up and does not count."""
    counted = runs[1:]
    return Start(
        wall_s=statistics.median(run.wall_s for run in counted),
        cpu_s=statistics.median(run.cpu_s for run in counted),
    )


def of_run(run: Run, start: Start, max_rps: float | None) -> dict[str, float]:
    """The figures of one run that was right.

    Args:
        run: with the sink's totals.
        start: of its subject.
        max_rps: what the sink allowed, with a bucket of one second; None: no limit.
    """
    sink = run.sink
    figures = {
        "wall_s": run.wall_s,
        "mb_per_s": run.content_bytes / 1e6 / run.wall_s,
        "instances_per_s": run.files / run.wall_s,
        "cpu_s_per_gb": run.cpu_s / (run.content_bytes / 1e9),
        "cpu_us_per_file": max(0.0, run.cpu_s - start.cpu_s) / run.files * 1e6,
        "peak_rss_mib": run.peak_rss_mib,
        "requests": float(sink["requests"]),
        "sink_cpu_s": float(sink["cpu_s"]),
        "sink_cpu_share": sink["cpu_s"] / (sink["cpu_s"] + run.cpu_s),
        "start_share": start.wall_s / run.wall_s,
        "wasted_share": sink["wasted_bytes"] / max(1, sink["bytes"] + sink["wasted_bytes"]),
    }
    if max_rps is not None:
        figures["allowance_used"] = sink["requests"] / (max_rps * (1 + sink["span_s"]))
    return figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of several runs."""

    median: float
    best: float
    worst: float


def summarized(figures: Sequence[dict[str, float]]) -> dict[str, Figure]:
    """Each figure of the runs of one entry."""
    return {name: _summary(name, [run[name] for run in figures]) for name in figures[0]}


def _summary(name: str, values: Sequence[float]) -> Figure:
    good, bad = (max, min) if name in HIGH_IS_GOOD else (min, max)
    return Figure(statistics.median(values), good(values), bad(values))


def ratio(subject: Figure, rival: Figure) -> Figure:
    """A row against a rival: medians by medians, best by best; the worst case is not known."""
    median = subject.median / rival.median
    return Figure(median, subject.best / rival.best, median)


def reached(value: Figure, target: float | None, *, at_most: bool) -> bool | None:
    """Whether the target is reached: by a ratio's median, by the worst run of a plain figure."""
    if target is None:
        return None
    return value.worst <= target if at_most else value.worst >= target


def rounded(value: Figure) -> dict[str, Any]:
    """As records have it."""
    return {name: float(f"{getattr(value, name):.5g}") for name in ("median", "best", "worst")}

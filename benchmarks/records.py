"""What is kept of a row: one JSON object, and a line for people.

A record has the row's value by medians, best and worst, or null when any of its runs was wrong; for
subject and rival the corpus with its seed, the figures and every run, right or wrong; and the
machine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.entries import Entry, Row
from benchmarks.figures import Figure, Start, of_run, ratio, reached, rounded, summarized
from ingester.bench.measure import Run

START_SHARE_MAX: Final = 0.05  # above it a row speaks of the interpreter rather than of the work
_KEPT: Final = ("requests", "retries", "elapsed_s", "mb_per_s", "instances_per_s", "peak_rss_mib")


def record(
    row: Row,
    runs: Mapping[Entry, Sequence[Run]],
    starts: Mapping[Entry, Start],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a row whose entries were measured."""
    figures = {
        entry: _figures(entry, runs[entry], starts[entry])
        for entry in (row.subject, row.rival)
        if entry is not None
    }
    value = None
    if all(figures.values()):
        value = figures[row.subject][row.figure]
        if row.rival is not None:
            value = ratio(value, figures[row.rival][row.figure])
    sides = {
        side: entry and _side(entry, figures[entry], runs[entry], starts[entry])
        for side, entry in (("subject", row.subject), ("rival", row.rival))
    }
    return {
        "row": row.name,
        "says": row.says,
        "figure": row.figure,
        "target": row.target,
        "at_most": row.at_most,
        "value": value and rounded(value),
        "start_share": value and max(_start_shares(figures.values())),
        "reached": value and reached(value, row.target, at_most=row.at_most),
        **sides,
        **machine,
    }


def _figures(entry: Entry, runs: Sequence[Run], start: Start) -> dict[str, Figure]:
    """Empty when any run was wrong."""
    if any(run.problems for run in runs):
        return {}
    return summarized([of_run(run, start, entry.max_rps) for run in runs])


def _start_shares(figures: Iterable[Mapping[str, Figure]]) -> Iterator[float]:
    return (float(f"{one['start_share'].median:.3g}") for one in figures)


def _side(
    entry: Entry, figures: Mapping[str, Figure], runs: Sequence[Run], start: Start
) -> dict[str, Any]:
    return {
        "name": entry.subject.name,
        "corpus": {**asdict(entry.corpus), "bytes": entry.corpus.bytes},
        "sink_options": asdict(entry.sink),
        "start": {"wall_s": round(start.wall_s, 4), "cpu_s": round(start.cpu_s, 4)},
        "figures": {name: rounded(figure) for name, figure in figures.items()},
        "runs": [
            {
                "wall_s": round(run.wall_s, 4),
                "cpu_s": round(run.cpu_s, 4),
                "peak_rss_mib": round(run.peak_rss_mib, 1),
                "files": run.files,
                "bytes": run.content_bytes,
                "exit_code": run.exit_code,
                "client": {key: run.summary[key] for key in _KEPT if key in run.summary},
                "sink": run.sink,
                "problems": run.problems,
            }
            for run in runs
        ],
    }


def line_of(record: Mapping[str, Any]) -> str:
    """A row for people: its value by medians and by best, its target, or its problems."""
    name = f"{record['row']:<24}"
    if record["value"] is None:
        sides = [record[side] for side in ("subject", "rival") if record[side]]
        problems = {
            f"{side['name']}: {problem}"
            for side in sides
            for run in side["runs"]
            for problem in run["problems"]
        }
        return f"{name}no value: {'; '.join(sorted(problems))}"
    value, target = record["value"], record["target"]
    words = f"{name}median {value['median']:.4g}, best {value['best']:.4g}"
    if record["rival"] is None:
        words += f", worst {value['worst']:.4g}"
    if record["start_share"] > START_SHARE_MAX:
        words += f", of which the start is {record['start_share']:.0%}: too small a scale"
    if target is None:
        return f"{words}, no target"
    bound = "at most" if record["at_most"] else "at least"
    return f"{words}, wanted {bound} {target:g}: {'reached' if record['reached'] else 'missed'}"

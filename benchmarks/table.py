"""Writes the table of the README from the stored records.

Takes: `benchmarks/results/compare.jsonl`; the last record of a row counts.
Gives: the lines between the markers in `benchmarks/README.md`; rows that were never recorded, or
whose last record has no value, have none in the table.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from benchmarks.compare import RESULTS
from benchmarks.entries import Row
from benchmarks.environment import ROOT
from benchmarks.rows import Rows

README: Final = os.path.join(ROOT, "benchmarks", "README.md")
BEGIN: Final = "<!-- table: python -m benchmarks.table -->"
END: Final = "<!-- end of table -->"
_COLUMNS: Final = (
    *("row", "subject; rival", "wanted", "median", "best"),
    *("subject", "rival", "start", "runs", "commit"),
)
_UNITS: Final = {
    "mb_per_s": "MB/s",
    "instances_per_s": "instances/s",
    "cpu_us_per_file": "µs/file",
    "peak_rss_mib": "MiB",
    "allowance_used": "of the allowance",
    "wasted_share": "of the bytes",
}


def last_records(path: str) -> dict[str, dict[str, Any]]:
    """The last record of each row in the file; none where there is no file."""
    records: dict[str, dict[str, Any]] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                records[record["row"]] = record
    return records


def table(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The lines of the table, and below it where its figures were measured."""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    for row in Rows().all():
        yield _line(row, records.get(row.name))
    places = {
        f"{record['cpu']}, {record['cores']} cores, {record['system']}, Python {record['python']}"
        for record in records.values()
    }
    if places:
        yield ""
        yield f"Measured on: {'; '.join(sorted(places))}."


def _line(row: Row, record: Mapping[str, Any] | None) -> str:
    wanted = "" if row.target is None else f"{'≤' if row.at_most else '≥'} {row.target:g}"
    cells = [f"`{row.name}`", row.says, wanted]
    if record is None or record["value"] is None:
        cells += ["not measured" if record is None else "a run was wrong", *[""] * 6]
    else:
        value, subject, rival = record["value"], record["subject"], record["rival"]
        missed = " (missed)" if record["reached"] is False else ""
        runs = len(subject["runs"])
        dirty = "+" if record["dirty"] else ""
        cells += [
            f"{value['median']:.3g}{missed}",
            f"{value['best']:.3g}",
            _figure(record["figure"], subject),
            _figure(record["figure"], rival) if rival else "",
            f"{record['start_share']:.1%}",
            str(runs),
            f"{(record['commit'] or '?')[:10]}{dirty}",
        ]
    return f"| {' | '.join(cells)} |"


def _figure(name: str, side: Mapping[str, Any]) -> str:
    return f"{side['figures'][name]['median']:.4g} {_UNITS[name]}"


def with_table(readme: str, lines: Iterator[str]) -> str:
    """The README's text with another table.

    Raises:
        ValueError: it has no markers.
    """
    before, _, rest = readme.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError("the README has no place for a table")
    return "".join((before, f"{BEGIN}\n", *(f"{line}\n" for line in lines), END, after))


def main() -> int:
    """Rewrites the README; returns the exit status."""
    with open(README, encoding="utf-8") as text:
        readme = text.read()
    with open(README, "w", encoding="utf-8") as out:
        out.write(with_table(readme, table(last_records(RESULTS))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

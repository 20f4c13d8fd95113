"""What is said of a benchmark: a table and sentences for people, an object, and a chart.

Takes: a `Bench`, as far as it went, and where it sent to.
Gives: lines; the object of `bench.json` and `--json`; the text of `bench.svg`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from ingester.bench.chart import Line, Panel, chart
from ingester.bench.corpus_files import SYNTHETIC_NAME
from ingester.bench.job import Bench, Options
from ingester.bench.plan import FILE_BYTES, LeftOut, Point
from ingester.bench.points import Measured
from ingester.bench.verdict import Verdict, short
from ingester.version import VERSION

_COLUMNS = (
    *("tier", "at a time", "a request", "MB/s", "instances/s", "CPU s/GB", "peak MiB"),
    *("requests", "retries", "seconds", "bottleneck"),
)
_TEXT_COLUMNS = frozenset({"tier", "bottleneck"})


@dataclass(frozen=True, slots=True)
class Where:
    """Where it was sent."""

    url: str  # "": a sink on this machine
    server: str

    def how_to_delete(self) -> str:
        """What was sent to a store, and who takes it out again: PS3.18 has no service for it."""
        each = "each study that bench.json lists under studies"
        if self.server == "healthimaging":
            return (
                "to delete it: DeleteImageSet for the image sets that SearchImageSets finds by the "
                f"DICOMStudyInstanceUID of {each}"
            )
        if self.server == "orthanc":
            root = re.sub(r"/[^/]*$", "", self.url)
            return (
                f"to delete it, for {each}: POST {root}/tools/lookup with its UID gives an ID, "
                f"then DELETE {root}/studies/ID"
            )
        return f"to delete it, where the store can: DELETE {self.url}/studies/UID for {each}"


def table(bench: Bench) -> Iterator[str]:
    """A line a point, in columns, where there is one; then what was left out."""
    rows = [_COLUMNS, *(_row(one) for one in bench.points)] if bench.points else []
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(len(_COLUMNS))]
    for row in rows:
        cells = [
            f"{cell:<{width}}" if name in _TEXT_COLUMNS else f"{cell:>{width}}"
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()
    late = [one.point.name for one in bench.points if not one.in_time]
    for name in late:
        yield f"stopped when its time was over, rates are of what it had stored: {name}"
    for (tier, batch, _), same in groupby(bench.left_out, _kind):
        left = list(same)
        at_a_time = ", ".join(str(one.point.concurrency) for one in left)
        yield f"not measured: {tier}, {at_a_time} at a time, {batch} a request: {left[-1].reason}"


def _kind(left: LeftOut) -> tuple[str, int, str]:
    """What a line may say of several at once."""
    return left.point.tier, left.point.batch_instances, left.reason.rstrip("0123456789")


def sentences(options: Options, bench: Bench) -> Iterator[str]:
    """What holds a load up, of each tier."""
    found = verdicts(options, bench)
    for tier, verdict in found.items():
        yield verdict.sentence if len(found) == 1 else f"{tier}: {verdict.sentence}"


def _row(one: Measured) -> tuple[str, ...]:
    data = one.to_data()
    cpu = data["cpu_s_per_gb"]
    return (
        one.point.tier,
        str(one.point.concurrency),
        str(one.point.batch_instances),
        f"{one.rate.mb_per_s:,.1f}",
        f"{one.rate.instances_per_s:,.0f}",
        "" if cpu is None else f"{cpu:.2f}",
        f"{data['peak_rss_mib']:,.0f}",
        f"{data['requests']:,}",
        f"{data['retries']:,}",
        f"{one.elapsed_s:.1f}",
        data["bottleneck"],
    )


def verdicts(options: Options, bench: Bench) -> dict[str, Verdict]:
    """What the bottleneck of each tier is."""
    latency_ms = 0.0 if options.to_store else options.sink.latency_ms
    found = {
        tier: bench.verdict(tier, latency_ms)
        for tier in dict.fromkeys(one.point.tier for one in bench.points)
    }
    return {tier: verdict for tier, verdict in found.items() if verdict is not None}


def apart_lines(bench: Bench) -> Iterator[str]:
    """What was measured apart from the points."""
    for tier, apart in bench.apart.items():
        where = "the disk" if apart.read_cold else "memory (it could not be read cold)"
        yield f"{tier}: read from {where} at {apart.read}"
        yield f"{tier}: scanned, without sending, at {short(apart.scanned_per_s)} instances/s"
        if tier in bench.alone:
            yield f"{tier}: this machine to itself {bench.alone[tier].rate}"


def to_data(options: Options, bench: Bench, where: Where) -> dict[str, Any]:
    """The object of ``bench.json``."""
    sink = options.sink
    found = verdicts(options, bench)
    return {
        "version": VERSION,
        "machine": bench.machine,
        "target": {
            "kind": "store" if options.to_store else "sink",
            "url": where.url or None,
            "server": where.server,
            "sink": {
                "tls": sink.tls,
                "payload_signing": sink.payload_signing,
                "latency_ms": sink.latency_ms,
            },
        },
        "start": None
        if bench.start is None
        else {"wall_s": round(bench.start.wall_s, 3), "cpu_s": round(bench.start.cpu_s, 3)},
        "tiers": [
            {
                "tier": tier,
                "file_bytes": FILE_BYTES[tier],
                "read": asdict(apart.read),
                "read_cold": apart.read_cold,
                "scanned_per_s": apart.scanned_per_s,
                "alone": asdict(bench.alone[tier].rate) if tier in bench.alone else None,
                "bottleneck": asdict(found[tier]) if tier in found else None,
            }
            for tier, apart in bench.apart.items()
        ],
        "points": [one.to_data() for one in bench.points],
        "not_measured": [{**_names(left.point), "reason": left.reason} for left in bench.left_out],
        "uid_root": options.uid_root if options.to_store else None,
        "patient_name": SYNTHETIC_NAME if options.to_store else None,
        "studies": bench.studies,
        "how_to_delete": where.how_to_delete() if bench.studies else None,
    }


def _names(point: Point) -> dict[str, Any]:
    names = ("tier", "concurrency", "batch_instances")
    return {name: getattr(point, name) for name in names}


def to_svg(options: Options, bench: Bench, where: Where) -> str:
    """The chart: a plot a tier, a line a batch size."""
    machine = bench.machine
    place = where.url or "a server on this machine that stores nothing"
    found = verdicts(options, bench)
    panels = []
    for tier in dict.fromkeys(one.point.tier for one in bench.points):
        ours = [one for one in bench.points if one.point.tier == tier]
        lines = [
            Line(
                f"{batch} a request",
                tuple(
                    sorted(
                        (one.point.concurrency, one.rate.mb_per_s)
                        for one in ours
                        if one.point.batch_instances == batch
                    )
                ),
            )
            for batch in sorted({one.point.batch_instances for one in ours})
        ]
        title = f"{tier}: files of {FILE_BYTES[tier]:,} bytes"
        words = found[tier].sentence if tier in found else ""
        panels.append(Panel(title, words, tuple(lines)))
    words = f"{place}; {machine['cpu']}, {machine['cores']} cores; {machine['at'][:10]}"
    return chart(f"ingester {VERSION}: throughput by requests under way", words, panels)


def paths_in(directory: str) -> tuple[str, str]:
    """Where ``bench.json`` and ``bench.svg`` go."""
    json, svg = (
        os.path.normpath(os.path.join(directory, name)) for name in ("bench.json", "bench.svg")
    )
    return json, svg

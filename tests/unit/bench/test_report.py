"""What is said of a benchmark is what was measured, and what was not."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ingester.bench.apart import Apart
from ingester.bench.environment import busy_share, cpu_times
from ingester.bench.job import Bench, Options
from ingester.bench.measure import Run
from ingester.bench.plan import LeftOut, Plan, Point
from ingester.bench.points import Measured, ToSink, ToStore, stored_of
from ingester.bench.report import Where, sentences, table, to_data, to_svg
from ingester.bench.verdict import Rate

SINK = ToSink()
HERE = Where("", "generic")
LATE = Point("archive", 8, 10)


def measured(point: Point, mb_per_s: float, *, stored: int = 100) -> Measured:
    summary: dict[str, Any] = {
        "outcomes": {"stored": stored, "pending": 100 - stored},
        "bytes_stored": stored * 1_000_000,
        "elapsed_s": 2.0,
        "mb_per_s": mb_per_s,
        "instances_per_s": mb_per_s * 10,
        "peak_rss_mib": 101.0,
        "requests": 10,
        "retries": 0,
        "bottleneck": "cpu",
    }
    run = Run(wall_s=3.0, cpu_s=1.5, summary=summary, sink={"cpu_s": 0.4})
    return Measured(point, 100, stored, stored == 100, 0.5, 0.5, run)


def bench() -> Bench:
    made = Bench(machine={"cpu": "A CPU", "cores": 2, "at": "2026-01-02T03:04:05+00:00"})
    made.points = [
        measured(Point("archive", 1, 10), 100.0),
        measured(LATE, 300.0, stored=40),
        measured(Point("archive", 1, 100), 200.0),
        measured(Point("ct", 1, 10), 500.0),
    ]
    for tier in ("archive", "ct"):
        made.apart[tier] = Apart(Rate(9000, 900), read_cold=True, scanned_per_s=9e4)
    made.left_out = [
        LeftOut(Point("ct", 2, 100), "needs --size-mb 380"),
        LeftOut(Point("ct", 4, 100), "needs --size-mb 760"),
        LeftOut(Point("ct", 8, 100), "the time was over, --time-limit-s"),
    ]
    return made


def options(*, to_store: bool = False) -> Options:
    return Options(Plan((), (), 1), 60.0, ToStore(()) if to_store else SINK, SINK)


class TestTheTable:
    def test_has_a_line_a_point_and_says_what_was_not_measured(self) -> None:
        heading, first, second, *others = table(bench())
        assert heading.split()[-1] == "bottleneck"
        assert first.split() == [
            *("archive", "1", "10", "100.0", "1,000", "10.00", "101", "10", "0", "2.0", "cpu"),
        ]
        assert second.split()[3:6] == ["300.0", "3,000", "25.00"]
        assert others[2:] == [
            f"stopped when its time was over, rates are of what it had stored: {LATE.name}",
            "not measured: ct, 2, 4 at a time, 100 a request: needs --size-mb 760",
            "not measured: ct, 8 at a time, 100 a request: the time was over, --time-limit-s",
        ]

    def test_goes_with_a_sentence_a_tier_of_its_best_point(self) -> None:
        archive, ct = sentences(options(), bench())
        assert archive.startswith("archive: ")
        assert "3,000 instances/s (300 MB/s)" in archive
        assert ct.startswith("ct: ")
        assert "5,000 instances/s (500 MB/s)" in ct


class TestTheObject:
    def test_is_json_with_every_point(self) -> None:
        data = json.loads(json.dumps(to_data(options(), bench(), HERE)))
        second = data["points"][1]
        assert (second["stored"], second["in_time"]) == (40, False)
        assert (second["cpu_s"], second["cpu_s_per_gb"]) == (1.0, 25.0)
        assert (second["client_cores"], second["sink_cores"], second["busy"]) == (0.5, 0.2, 0.5)
        assert [tier["tier"] for tier in data["tiers"]] == ["archive", "ct"]
        assert len(data["not_measured"]) == 3
        assert data["how_to_delete"] is None

    def test_has_no_cpu_of_a_run_that_was_hardly_more_than_its_start(self) -> None:
        short = measured(LATE, 300.0)
        short.run.cpu_s = 0.59
        assert short.cpu_s is None
        assert {short.to_data()[name] for name in ("cpu_s", "cpu_s_per_gb", "client_cores")} == {
            None
        }
        short.run.cpu_s = 0.61
        assert short.to_data()["cpu_s"] == 0.11

    @pytest.mark.parametrize(
        ("where", "words"),
        [
            (Where("https://pacs/dicom", "generic"), "DELETE https://pacs/dicom/studies/UID"),
            (Where("http://o:8042/dicom-web", "orthanc"), "DELETE http://o:8042/studies/ID"),
            (Where("https://h/datastore/0", "healthimaging"), "DeleteImageSet"),
        ],
    )
    def test_says_how_to_delete_what_a_store_was_sent(self, where: Where, words: str) -> None:
        made = bench()
        made.studies = ["2.25.1.101.1.1000000"]
        chosen = options(to_store=True)
        data = to_data(chosen, made, where)
        assert words in data["how_to_delete"]
        assert data["studies"] == made.studies
        assert (data["uid_root"], data["patient_name"]) == (chosen.uid_root, "INGESTER^BENCH")


class TestTheChart:
    def test_has_a_plot_a_tier_and_a_line_a_batch_size(self) -> None:
        root = ET.fromstring(to_svg(options(), bench(), HERE))  # noqa: S314 - our own
        lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
        assert [len(line.attrib["points"].split()) for line in lines] == [2, 1, 1]


class TestWhatIsStored:
    def test_is_whatever_the_store_holds(self) -> None:
        outcomes = {"stored": 3, "stored_with_warning": 2, "rejected": 1, "pending": 4}
        assert stored_of(Run(summary={"outcomes": outcomes})) == 5
        assert stored_of(Run()) == 0


class TestTheMachine:
    def test_is_busy_for_the_share_of_time_that_it_is_not_idle(self) -> None:
        assert busy_share((100, 400), (125, 500)) == 0.75
        assert busy_share((100, 400), (100, 400)) is None
        assert busy_share(None, (1, 2)) is None

    def test_is_asked_where_it_can_be(self) -> None:
        times = cpu_times()
        assert times is None or 0 < times[0] < times[1]

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.dicomweb.outcome import Outcome
from ingester.progress import Clock, Waits, bottleneck_of, peak_rss_mib, progress_line
from tests.support.snapshots import snapshot

LINE = re.compile(r"progress( [a-z_]+=[A-Za-z0-9._]+)+")


def fields(line: str) -> dict[str, str]:
    assert LINE.fullmatch(line), line
    return dict(pair.split("=") for pair in line.split()[1:])


class TestTheLine:
    def test_says_it_all(self) -> None:
        assert progress_line(snapshot()) == (
            "progress elapsed_s=10 files=500 met=1000 known=1000 percent=50 bytes_met=5000000000"
            " bytes_stored=4000000000 mb_per_s=400.0 instances_per_s=40.0 in_flight=8 requests=12"
            " retries=3 stored=400 invalid=100 bottleneck=server_or_network"
        )

    def test_has_no_percentage_while_files_are_discovered(self) -> None:
        found = fields(progress_line(snapshot(all_met=False)))
        assert found["known"] == "discovering"
        assert "percent" not in found

    def test_has_no_percentage_of_nothing(self) -> None:
        assert "percent" not in fields(
            progress_line(snapshot(files_met=0, committed=0, outcomes={}))
        )

    @pytest.mark.parametrize(
        ("committed", "percent"), [(0, "0"), (9, "0"), (999, "99"), (1000, "100")]
    )
    def test_says_100_only_when_everything_is_committed(self, committed: int, percent: str) -> None:
        assert fields(progress_line(snapshot(committed=committed)))["percent"] == percent

    @given(st.integers(1, 10**9), st.integers(0, 10**9))
    def test_never_says_100_before(self, met: int, left: int) -> None:
        committed = max(0, met - left)
        percent = int(
            fields(progress_line(snapshot(files_met=met, committed=committed)))["percent"]
        )
        assert (percent == 100) is (committed == met)

    def test_has_the_rates_since_the_one_before(self) -> None:
        later = snapshot(elapsed_s=12.0, bytes_stored=10_000_000_000, instances_stored=500)
        found = fields(progress_line(later, snapshot()))
        assert (found["mb_per_s"], found["instances_per_s"]) == ("3000.0", "50.0")

    def test_may_be_said_twice_in_a_moment(self) -> None:
        found = fields(progress_line(snapshot(), snapshot()))
        assert (found["mb_per_s"], found["instances_per_s"]) == ("0.0", "0.0")

    @pytest.mark.parametrize(
        "bottleneck",
        ["journal", "cpu", "server or network", "grouping", "reading files", "listing directories"],
    )
    def test_can_be_parsed_whatever_holds_it_up(self, bottleneck: str) -> None:
        outcomes = {outcome.value: 5 for outcome in Outcome}
        found = fields(progress_line(snapshot(bottleneck=bottleneck, outcomes=outcomes)))
        assert found["bottleneck"] == bottleneck.replace(" ", "_")
        assert outcomes.keys() <= found.keys()

    def test_says_how_long_a_server_has_been_away_and_nothing_else(self) -> None:
        assert fields(progress_line(snapshot(away_s=754.2)))["away_s"] == "754"
        assert "away_s" not in fields(progress_line(snapshot()))


def waits(**seconds: float) -> Waits:
    start = Waits(10, 0, 0, 0, 0, 0)
    return dataclasses.replace(start, **seconds)


class TestTheBottleneck:
    @pytest.mark.parametrize(
        ("now", "name"),
        [
            (waits(), "listing directories"),
            (waits(reading_s=3), "reading files"),
            (waits(reading_s=2.9), "listing directories"),
            (waits(grouping_s=5, reading_s=9), "grouping"),
            (waits(server_s=5, grouping_s=9, reading_s=9), "server or network"),
            (waits(server_s=5, cpu_s=9.5), "cpu"),
            (waits(journal_s=4, server_s=9, cpu_s=9.5), "journal"),
            (waits(cpu_s=6), "cpu"),
            (waits(listed_s=6), "server or network"),
            (waits(listed_s=2.9), "listing directories"),
            (waits(listed_s=9, cpu_s=6), "cpu"),
        ],
    )
    def test_is_the_last_stage_that_others_waited_for(self, now: Waits, name: str) -> None:
        assert bottleneck_of(now) == name

    def test_is_of_the_time_since_the_moment_before(self) -> None:
        before = waits(server_s=9)
        now = Waits(20, 0, 9, 0, 8, 0)
        assert bottleneck_of(now) == "server or network"
        assert bottleneck_of(now, before) == "reading files"

    def test_of_no_time_is_no_crash(self) -> None:
        assert bottleneck_of(waits(), waits()) == "listing directories"


class TestTheProcess:
    def test_has_used_memory(self) -> None:
        assert 5 < peak_rss_mib() < 100_000

    def test_has_a_clock(self) -> None:
        clock = Clock()
        sum(range(200_000))
        assert clock.elapsed_s > 0
        assert clock.cpu_s > 0

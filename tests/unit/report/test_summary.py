from __future__ import annotations

import json
import signal

import msgspec
import pytest

from ingester.dicomweb.outcome import INCOMPLETE, Outcome
from ingester.report.summary import RunSummary, all_outcomes, exit_code_of, to_json, to_lines

CONTRACT = [
    "run_id",
    "started_at",
    "finished_at",
    "version",
    "files",
    "unreadable_directories",
    "skipped_directories",
    "outcomes",
    "studies",
    "bytes_stored",
    "requests",
    "retries",
    "elapsed_s",
    "mb_per_s",
    "instances_per_s",
    "peak_rss_mib",
    "bottleneck",
    "journal",
    "exit_code",
    "insecure",
]


def summary(
    unreadable_directories: int = 0,
    outcomes: dict[Outcome, int] | None = None,
    *,
    skipped_directories: int = 0,
) -> RunSummary:
    return RunSummary(
        run_id=3, started_at="2024-02-29T12:00:00Z", finished_at="2024-02-29T12:00:05Z", version="1",
        files=1234, unreadable_directories=unreadable_directories,
        skipped_directories=skipped_directories,
        outcomes=all_outcomes({Outcome.STORED: 1230, Outcome.INVALID: 4} if outcomes is None else outcomes),
        studies=7, bytes_stored=5_000_000, requests=20, retries=1, elapsed_s=5.0, mb_per_s=1.0,
        instances_per_s=246.0, peak_rss_mib=90.5, bottleneck="cpu", journal="ingester.db", insecure=False,
        exit_code=3,
    )  # fmt: skip


class TestTheSummary:
    def test_has_the_fields_of_the_contract_in_their_order(self) -> None:
        assert list(json.loads(to_json(summary()))) == CONTRACT

    def test_has_every_outcome_also_those_that_did_not_happen(self) -> None:
        found = json.loads(to_json(summary()))["outcomes"]
        assert list(found) == [outcome.value for outcome in Outcome]
        assert (found["stored"], found["invalid"], found["failed"]) == (1230, 4, 0)

    def test_is_one_line_for_programs(self) -> None:
        assert "\n" not in to_json(summary())

    def test_is_a_few_lines_for_people(self) -> None:
        assert to_lines(summary()) == [
            "1,234 files: stored 1,230, invalid 4",
            "5.0 MB stored in 5.0 s (1.0 MB/s, 246.0 instances/s, 20 requests, 1 retries); bottleneck: cpu",
            "journal: ingester.db, run 3",
            (
                "not everything is stored (exit code 3); for the files: "
                "ingester status --exceptions --journal ingester.db"
            ),
        ]

    @pytest.mark.parametrize(
        ("count", "what"),
        [
            (1, "1 directory could not be read; for its name"),
            (2000, "2,000 directories could not be read; for their names"),
        ],
    )
    def test_says_what_names_directories_that_could_not_be_read(
        self, count: int, what: str
    ) -> None:
        """Here they are not named: it may go anywhere."""
        assert f"{what} start the run again on a terminal" in to_lines(summary(count))

    def test_names_no_command_that_would_list_nothing(self) -> None:
        """Where a directory is all that exit code 3 is about."""
        lines = to_lines(summary(1, {Outcome.STORED: 3, Outcome.NOT_DICOM: 1}))
        assert lines[-1] == "not everything is stored (exit code 3)"
        assert "--exceptions" in to_lines(summary(1, {Outcome.STORED_WITH_WARNING: 3}))[-1]

    def test_says_how_many_directories_were_not_looked_into(self) -> None:
        line = "not listed again: 1,000 complete directories"
        assert line in to_lines(summary(skipped_directories=1000))

    def test_of_nothing_says_none(self) -> None:
        assert to_lines(summary(outcomes={}))[0].endswith("files: none")

    def test_of_no_file_at_all_asks_whether_that_is_right(self) -> None:
        line = "nothing was met: is this the right directory, and is it mounted?"
        assert line in to_lines(msgspec.structs.replace(summary(), files=0))
        assert line not in to_lines(summary())


def code(
    outcomes: dict[Outcome, int] | None = None,
    *,
    fatal: bool = False,
    signal_number: int | None = None,
    pixel_warnings: int = 0,
    unreadable_directories: int = 0,
) -> int:
    return exit_code_of(
        outcomes or {},
        fatal=fatal,
        signal_number=signal_number,
        pixel_warnings=pixel_warnings,
        unreadable_directories=unreadable_directories,
    )


class TestTheExitCode:
    @pytest.mark.parametrize("outcome", sorted(set(Outcome) - INCOMPLETE))
    def test_is_0_for(self, outcome: Outcome) -> None:
        assert code({outcome: 5}) == 0

    @pytest.mark.parametrize("outcome", sorted(INCOMPLETE))
    def test_is_3_for(self, outcome: Outcome) -> None:
        assert code({Outcome.STORED: 10**6, outcome: 1}) == 3

    def test_is_3_for_a_pixel_warning_or_a_directory(self) -> None:
        assert code(pixel_warnings=1) == 3
        assert code(unreadable_directories=1) == 3

    @pytest.mark.parametrize(
        ("number", "expected"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
    )
    def test_is_that_of_the_signal(self, number: signal.Signals, expected: int) -> None:
        assert code(signal_number=number) == expected

    def test_is_1_before_the_signals_and_that_before_3(self) -> None:
        failed = {Outcome.FAILED: 1}
        assert code(failed, fatal=True, signal_number=15, pixel_warnings=1) == 1
        assert code(failed, signal_number=15, unreadable_directories=1) == 143
        assert code(failed) == 3

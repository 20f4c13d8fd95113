"""What is counted while a run goes, and who is told of it: results file, log, and a person.

The journal's thread brings what it committed; everything else is on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from ingester.catalog import UnreadableDirectory
from ingester.dicomweb.outcome import IN_THE_STORE, INCOMPLETE, Outcome
from ingester.items import Result
from ingester.journal import Journal, RunFigures
from ingester.ledger import Ledger
from ingester.logs import DEBUG, INFO, WARNING, log, wanted
from ingester.progress import Clock, Snapshot, Waits, bottleneck_of, peak_rss_mib
from ingester.report.results import ResultsFile
from ingester.transport.sender import Sender
from ingester.wiring import Stages

Watch = Callable[[Snapshot], None]
Warn = Callable[[UnreadableDirectory], None]

NotTaken = Callable[[Result], None]

NOT_TAKEN = frozenset({Outcome.REJECTED, Outcome.FAILED})
"""What the server will not have: the first of a run may be of a wrong setting, and is told."""


class Course(NamedTuple):
    """What a run consists of once it goes."""

    journal: Journal
    ledger: Ledger
    sender: Sender
    stages: Stages


class RunReport:
    """Of one run.

    ``watch`` gets a snapshot every ``watch_every_s`` while ``keep_watching`` runs, ``warn`` each
    directory that cannot be listed, ``not_taken`` the first file that the server would not have.
    """

    def __init__(
        self,
        watch: Watch | None,
        watch_every_s: float,
        warn: Warn | None,
        not_taken: NotTaken | None,
    ) -> None:
        self._watch = watch
        self._watch_every_s = watch_every_s
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._clock = Clock()
        self._results: ResultsFile | None = None
        self._course: Course | None = None
        self._all_met_at_s: float | None = None
        self._unreadable_directories = 0
        self._waits_before: Waits | None = None
        self._first_not_taken: Result | None = None
        self._not_taken = not_taken
        self.instances_stored = 0
        self._bytes_stored = 0

    def open_results(self, path: str | None) -> None:
        """Write a line for each file that is decided, to this file. Raises FatalError."""
        if path is not None:
            self._results = ResultsFile(path)

    def begin(self, run_id: int) -> None:
        """The run has its number."""
        if self._results is not None:
            self._results.run_id = run_id

    def follow(self, course: Course) -> None:
        """From now on there is something to see."""
        self._course = course

    def close(self) -> None:
        """Let go of the results file."""
        if self._results is not None:
            self._results.close()

    def unreadable_directories(self, found: Collection[UnreadableDirectory]) -> None:
        """Directories that could not be listed: counted apart from files."""
        self._unreadable_directories += len(found)
        for each in found:
            log(WARNING, "unreadable_directory", reason=each.reason)
            if self._warn is not None:
                self._warn(each)

    def discovered_all(self) -> None:
        """How many files there are is known now."""
        self._all_met_at_s = self._clock.elapsed_s

    def committed_in_thread(self, results: Sequence[Result]) -> None:
        """Called in the journal's thread, after the commit: results file, then the loop."""
        if self._results is not None:
            self._results.write([result for result in results if not result.unchanged])
        for result in results:
            _log_result(result)
            if self._first_not_taken is None and result.outcome in NOT_TAKEN:
                self._first_not_taken = None if result.unchanged else result
            if result.attempts and result.outcome in IN_THE_STORE:
                self.instances_stored += 1
                self._bytes_stored += result.size or 0
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._committed, results)

    def _committed(self, results: Sequence[Result]) -> None:
        self._tell_first_not_taken()
        if self._course is not None:
            self._course.stages.group.claims.committed(results)

    def _tell_first_not_taken(self) -> None:
        if self._first_not_taken is not None and self._not_taken is not None:
            self._not_taken(self._first_not_taken)
            self._not_taken = None

    async def keep_watching(self) -> None:
        """Tell of the run at intervals, until it is cancelled."""
        while self._watch is not None:
            await asyncio.sleep(self._watch_every_s)
            self.tell()

    def tell(self) -> None:
        """Tell once."""
        self._tell_first_not_taken()
        if self._watch is not None and self._course is not None:
            self._watch(self._snapshot(self._course))

    def figures(self) -> RunFigures:
        """What the journal keeps of the run, as of now."""
        assert self._course is not None  # noqa: S101 - nothing is recorded of what did not go
        return RunFigures(
            unreadable_directories=self._unreadable_directories,
            requests=self._course.sender.requests,
            retries=self._course.stages.upload.retries,
            bytes_stored=self._bytes_stored,
            elapsed_s=round(self._clock.elapsed_s, 3),
            peak_rss_mib=round(peak_rss_mib(), 1),
            bottleneck=bottleneck_of(self._waits(self._course)),
        )

    def _snapshot(self, course: Course) -> Snapshot:
        journal, ledger, sender, stages = course
        totals = journal.run_totals
        waits, before = self._waits(course), self._waits_before
        self._waits_before = waits
        return Snapshot(
            elapsed_s=waits.elapsed_s,
            files_met=ledger.files_met,
            all_met=self._all_met_at_s is not None,
            bytes_met=ledger.bytes_met,
            committed=totals.files,
            outcomes={name.value: count.files for name, count in totals.outcomes.items()},
            bytes_stored=self._bytes_stored,
            instances_stored=self.instances_stored,
            requests=sender.requests,
            retries=stages.upload.retries,
            in_flight=sender.in_flight,
            bottleneck=bottleneck_of(waits, before),
            away_s=stages.upload.admission.away_s,
        )

    def _waits(self, course: Course) -> Waits:
        stages = course.stages
        elapsed_s, met_at_s = self._clock.elapsed_s, self._all_met_at_s
        return Waits(
            elapsed_s=elapsed_s,
            journal_s=course.ledger.room_wait_s,
            server_s=stages.batches.put_wait_s,
            grouping_s=stages.scanned.put_wait_s / stages.scan_workers,
            reading_s=sum(each.put_wait_s for each in stages.files) / len(stages.files),
            cpu_s=self._clock.cpu_s,
            listed_s=0.0 if met_at_s is None else elapsed_s - met_at_s,
        )


def _log_result(result: Result) -> None:
    """A file by its journal id: one of each is for debugging, what is not in the store is not."""
    level = INFO if result.outcome in INCOMPLETE else DEBUG
    if wanted(level):
        log(
            level,
            "file",
            file_id=result.row_id,
            outcome=result.outcome.value,
            reason_code=result.reason_code,
        )

"""Runs a job: journal outermost, then the HTTP session, then one flat group of tasks.

Memory, by default about 310 MiB::

    95 MiB base + memory_budget + max_concurrency x 1.5 MiB + max_open_instances x 1.5 KiB

A root that does not answer is paused and costs the exit code at the end: the others go on first.
On the first stop the producers are cancelled and the workers finish what is on the wire; on the
second, or after the drain time-out, they are cancelled too. What was met and is not decided then
is recorded as pending, what may have been stored without a word as in doubt.

Why one flat group: a nested TaskGroup can swallow an outer cancel on 3.11 and 3.12 (gh-116720).
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from ingester.auth.chain import Resolve
from ingester.budget import Budget
from ingester.config import Config
from ingester.control import StopControl
from ingester.dicomweb.outcome import IN_THE_STORE, Outcome
from ingester.errors import FatalError, JournalError
from ingester.items import pending
from ingester.journal import Journal, RunInfo, read_status
from ingester.ledger import Ledger
from ingester.logs import INFO, log
from ingester.readers import Readers
from ingester.report.results import escaped
from ingester.report.summary import RunSummary, all_outcomes, exit_code_of
from ingester.run_report import Course, NotTaken, RunReport, Warn, Watch
from ingester.scan_pool import scan_pool
from ingester.sources import Source, as_root, resolve_sources
from ingester.transport.authorizer import Authorizer
from ingester.transport.sender import Sender, SenderOptions
from ingester.version import VERSION
from ingester.wiring import Stages, Task, build_stages, open_authorizer, sender_options

PENDING_AT_ONCE = 1000


async def ingest(
    config: Config,
    sources: Sequence[Source],
    *,
    stop: StopControl | None = None,
    watch: Watch | None = None,
    watch_every_s: float = 10.0,
    warn: Warn | None = None,
    not_taken: NotTaken | None = None,
    resolve: Resolve | None = None,
) -> RunSummary:
    """Load ``sources`` into the target: the whole job of ``ingester run``.

    ``watch`` gets a snapshot every ``watch_every_s`` and at the end, ``warn`` each directory that
    cannot be listed, ``not_taken`` the first file that the server would not have. ``resolve`` gives
    AWS credentials instead of botocore's chain. A run that had to stop gives its summary too, and
    ``stop.cause`` says why.

    Raises:
        UsageError: a source is missing, or a file that was named cannot be used.
        FatalError: nothing was started: the journal or the results file cannot be opened, a known
            source is gone, there are no credentials, or ``stop`` was asked for meanwhile.
    """
    options = sender_options(config)
    stop = StopControl() if stop is None else stop
    report = RunReport(watch, watch_every_s, warn, not_taken)
    run = Run(config, stop, report)
    async with AsyncExitStack() as until_the_end:
        async with stop.ends_the_start():
            authorizer = await until_the_end.enter_async_context(
                open_authorizer(config, stop, resolve)
            )
        with Journal.open(
            config.journal,
            target=config.url,
            rebind=config.rebind,
            on_commit=report.committed_in_thread,
            on_failure=run.journal_failed_in_thread,
        ) as journal:
            try:
                return await run.execute(journal, sources, options, authorizer)
            finally:
                report.close()


class Run:
    """One run of the stages."""

    def __init__(self, config: Config, stop: StopControl, report: RunReport) -> None:
        self._config = config
        self._stop = stop
        self._report = report
        self._loop = asyncio.get_running_loop()

    async def execute(
        self,
        journal: Journal,
        sources: Sequence[Source],
        options: SenderOptions,
        authorizer: Authorizer,
    ) -> RunSummary:
        """See ``ingest``."""
        config = self._config
        self._journal = journal
        self._ledger = Ledger(journal)
        known = journal.known_files(frozenset(Outcome(name) for name in config.retry))
        async with self._stop.ends_the_start():
            resolved = await resolve_sources(sources, known.has_files, config.read_timeout_s)
        before = read_status(config.journal).totals.outcomes
        stored_before = sum(count.files for name, count in before.items() if name in IN_THE_STORE)
        self._report.open_results(config.results)
        run_id = journal.start_run(
            RunInfo(config.name, config.operator, platform.node(), VERSION, config.digest)
        )
        self._report.begin(run_id)
        log(INFO, "run", run_id=run_id, roots=len(resolved), stored_before=stored_before)
        root_ids = journal.register_roots([(source.name, source.path) for source in resolved])
        roots = [as_root(*each) for each in zip(resolved, root_ids, strict=True)]
        budget = Budget(config.memory_budget)
        pool = scan_pool(
            config.scan_processes, budget.arena.fd, checksums=config.checksums == "sha256"
        )
        self._readers = readers = Readers(roots, config.readers, pool, budget.arena)
        async with Sender(options, authorizer) as sender:
            stages = build_stages(
                config, roots, journal=journal, known=known, ledger=self._ledger, sender=sender,
                readers=readers, budget=budget, stop=self._stop, report=self._report,
                stored_before=stored_before,
            )  # fmt: skip
            self._report.follow(Course(journal, self._ledger, sender, stages))
            try:
                await self._run(stages)
            except BaseException:  # a bug, or whoever called us gave up
                await self._record_what_is_left(stages)
                with suppress(JournalError):
                    journal.finish_run(run_id, 1, self._report.figures())
                raise
            finally:
                for threads in stages.threads:
                    threads.shutdown()
            await self._record_what_is_left(stages)
        return self._finish(journal, run_id)

    async def _run(self, stages: Stages) -> None:
        async with asyncio.TaskGroup() as tasks:
            producers = [tasks.create_task(self._or_stop(task)) for task in stages.producers]
            workers = [tasks.create_task(self._or_stop(task)) for task in stages.workers]
            helpers = [
                tasks.create_task(self._end_when_stopped(producers, workers)),
                tasks.create_task(self._report.keep_watching()),
                tasks.create_task(
                    self._readers.watch(self._config.read_timeout_s, self._stop.request)
                ),
            ]
            await asyncio.wait([*producers, *workers])
            for cause in self._readers.causes[:1]:  # last of all: the others went on
                self._stop.request(cause)
            for helper in helpers:
                helper.cancel()

    async def _or_stop(self, task: Task) -> None:
        """A fatal finding of one stage lets the others finish what is on the wire."""
        try:
            await task
        except JournalError as error:
            self._stop.abandon(error)
        except FatalError as error:
            self._stop.request(error)

    async def _end_when_stopped(
        self, producers: Sequence[asyncio.Task[None]], workers: Sequence[asyncio.Task[None]]
    ) -> None:
        await self._stop.wait_requested()
        for task in producers:
            task.cancel()
        await self._stop.wait_abandoned(self._config.drain_timeout_s)
        for task in workers:
            task.cancel()

    async def _record_what_is_left(self, stages: Stages) -> None:
        """Pending and in doubt: every file that was met has an end in this run's record."""
        if self._journal.failure is not None:
            return
        stages.upload.leave()
        left = self._ledger.undecided
        if left and self._stop.cause is None:
            self._stop.request(FatalError("files were left undecided: a bug of this program"))
        with suppress(JournalError):  # the journal has told the stop already
            for start in range(0, len(left), PENDING_AT_ONCE):
                await self._ledger.wait_for_room()
                self._ledger.decide(
                    [pending(file, "not_finished") for file in left[start:][:PENDING_AT_ONCE]]
                )

    def _finish(self, journal: Journal, run_id: int) -> RunSummary:
        failed = journal.failure
        if failed is not None:
            raise failed
        # First without a code: what the code depends on is complete when this is committed.
        journal.finish_run(run_id, None, self._report.figures())
        totals = journal.run_totals
        outcomes = {name: count.files for name, count in totals.outcomes.items()}
        figures = self._report.figures()
        cause = self._stop.cause
        exit_code = exit_code_of(
            outcomes,
            fatal=isinstance(cause, FatalError),
            signal_number=cause.value if isinstance(cause, signal.Signals) else None,
            pixel_warnings=totals.pixel_warnings,
            unreadable_directories=figures.unreadable_directories,
        )
        journal.finish_run(run_id, exit_code, figures)
        self._report.tell()
        run = read_status(self._config.journal).run
        assert run is not None  # noqa: S101 - it was started
        seconds = max(figures.elapsed_s, 1e-3)
        return RunSummary(
            run_id=run_id,
            started_at=run.started_at,
            finished_at=run.finished_at or "",
            version=VERSION,
            files=totals.files,
            unreadable_directories=figures.unreadable_directories,
            skipped_directories=self._ledger.directories_skipped,
            outcomes=all_outcomes(outcomes),
            studies=run.studies,
            bytes_stored=figures.bytes_stored,
            requests=figures.requests,
            retries=figures.retries,
            elapsed_s=figures.elapsed_s,
            mb_per_s=round(figures.bytes_stored / 1e6 / seconds, 3),
            instances_per_s=round(self._report.instances_stored / seconds, 3),
            peak_rss_mib=figures.peak_rss_mib,
            bottleneck=figures.bottleneck,
            journal=escaped(os.fsencode(self._config.journal)),
            exit_code=exit_code,
            insecure=self._config.insecure,
        )

    def journal_failed_in_thread(self, error: JournalError) -> None:
        """Called in a thread of the journal: nothing may be sent that cannot be recorded."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._stop.abandon, error)

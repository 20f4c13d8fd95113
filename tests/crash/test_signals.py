"""A run that is asked to stop: it drains, says so, and the same command goes on."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ingester.dicomweb.outcome import IN_THE_STORE, Outcome
from tests.crash.job import Job, Moment, Serve, Summary, how_refused, key_of
from tests.support.exchange import Exchange
from tests.support.process import PROGRESS, Completed, Process, wait_for_turns

SHOWS_TURNS = dict([PROGRESS.split("=")])


def stopped_at(job: Job, moment: Moment, number: signal.Signals) -> None:
    """Signals a run, and checks that what was on the wire then is recorded and nothing is lost.

    It may have met fewer files than the run before: those are as that one left them.
    """
    ended = job.signal_at(moment, number)
    assert ended.returncode == 128 + number, ended.stderr
    summary = summary_of(ended)
    job.check()
    rows = job.rows()
    assert {key_of(row) for row in rows if row.outcome in IN_THE_STORE} == job.stored().keys()
    assert not job.in_flight()
    counts = Counter(row.outcome.value for row in rows)
    failed = sum(how_refused(row) == "failed" for row in rows)
    assert counts["in_doubt"] == failed == counts["unreadable"] == 0
    met = [row for row in rows if row.seen_run_id == summary["run_id"]]
    told = Counter(row.outcome.value for row in met)
    assert told == {name: count for name, count in summary["outcomes"].items() if count}
    assert summary["files"] == len(met) <= len(rows) <= len(job.archive.files)
    assert f" files={len(met)} met={len(met)} " in ended.stderr.splitlines()[-1]
    assert {line["file_id"] for line in job.lines()} == {row.file_id for row in rows}


def summary_of(ended: Completed) -> Summary:
    """The object on stdout; its exit code is the process's."""
    summary: Summary = json.loads(ended.stdout)
    assert summary["exit_code"] == ended.returncode
    assert summary["files"] == sum(summary["outcomes"].values())
    return summary


class TestTheFirstSignalDrainsAndNothingIsSentTwice:
    def test_sigterm_exits_with_143(self, signal_seed: int, job: Job) -> None:
        del signal_seed
        stopped_at(job, job.moment(certain=True), signal.SIGTERM)
        job.finish()
        assert all(len(digests) == 1 for digests in job.stored().values())

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
    def test_sigint_exits_with_130_and_sighup_with_129(
        self, number: signal.Signals, some_seed: int, job: Job
    ) -> None:
        del some_seed
        stopped_at(job, job.moment(certain=True), number)
        job.finish()
        assert all(len(digests) == 1 for digests in job.stored().values())

    def test_one_signal_after_the_other_on_one_journal(self, some_seed: int, job: Job) -> None:
        del some_seed
        for number in (signal.SIGTERM, signal.SIGINT):
            stopped_at(job, Moment("before_answer", 1), number)
        job.finish()
        assert all(len(digests) == 1 for digests in job.stored().values())

    def test_it_takes_up_no_new_request(self, some_seed: int, job: Job) -> None:
        """Each request under way is answered, and no other comes."""
        del some_seed
        job.options |= SHOWS_TURNS

        def stop(process: Process) -> None:
            process.signal(signal.SIGTERM)
            wait_for_turns(process)

        assert job.run(Moment("before_answer", 2), stop).returncode == 143
        # The first was answered; the others wait for their answers until the signal is seen.
        assert len(job.server.posts) <= 1 + job.concurrency
        assert all(post.status for post in job.server.posts)


@dataclass(frozen=True, slots=True)
class Silent:
    """Stores everything from some request on, and does not answer before it is told."""

    serve: Serve
    from_request: int
    until: threading.Event
    entered: Callable[[], None]

    def play(self, exchange: Exchange) -> None:
        """Reads, and answers or waits."""
        exchange.read_body(keep_all=True)
        if exchange.request.number >= self.from_request:
            self.entered()
            while not self.until.is_set():
                exchange.pause(0.005)
        self.serve.play(exchange)


class TestADrainThatDoesNotEnd:
    @pytest.mark.parametrize("how", ["a second signal", "the drain time-out"])
    def test_leaves_what_was_on_the_wire_in_doubt_and_the_rest_pending(
        self, how: str, some_seed: int, job: Job
    ) -> None:
        del some_seed
        until, entered = threading.Event(), threading.Event()
        job.server.default = Silent(Serve(job.archive, 0), 1, until, entered.set)
        job.options["--drain-timeout-s"] = "0.2" if how == "the drain time-out" else "3600"
        job.options |= SHOWS_TURNS
        with job.start() as process:
            assert entered.wait(60)
            process.signal(signal.SIGTERM)
            if how == "a second signal":
                wait_for_turns(process)
                process.signal(signal.SIGTERM)
            ended = process.wait()
        until.set()
        job.server.settle()
        assert ended.returncode == 143, ended.stderr
        summary = summary_of(ended)
        whole = [post for post in job.server.posts[1:] if post.complete]
        assert summary["outcomes"]["in_doubt"] > 0
        assert summary["outcomes"]["pending"] > 0
        rows = job.rows()
        in_doubt = {key_of(row) for row in rows if row.outcome is Outcome.IN_DOUBT}
        assert len(in_doubt) == summary["outcomes"]["in_doubt"]
        unseen = [
            key for key in in_doubt
            if not any(all(uid.encode() in post.body for uid in key) for post in whole)
        ]  # fmt: skip
        # What a connection had when it was broken off, and the server had not read, is in doubt too.
        assert len(unseen) <= (summary["requests"] - 1 - len(whole)) * job.batch
        job.check()
        assert job.in_flight() <= in_doubt

        job.server.default = Serve(job.archive, 0)
        job.finish()
        for key, digests in job.stored().items():
            assert len(digests) == 1 or key in in_doubt, key

    def test_a_kill_during_the_drain_loses_nothing(self, kills_seed: int, job: Job) -> None:
        """The drain waits for an answer that is held back until the kill."""
        del kills_seed
        moment = job.moment(certain=True)
        pause_s = job.chance.uniform(0.0, 0.05)

        def stop_and_kill(process: Process) -> None:
            process.signal(signal.SIGTERM)
            time.sleep(pause_s)
            process.kill()

        assert job.run(moment, stop_and_kill).returncode == -signal.SIGKILL
        job.check()
        job.finish()

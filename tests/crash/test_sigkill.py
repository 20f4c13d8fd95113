"""A run that is killed, and the same command again."""

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from ingester.dicomweb.outcome import SETTLED
from ingester.journal import iter_files
from tests.crash.archive import LONG_AGO, Key, add_study
from tests.crash.job import NEVER, Job, Moment, Serve, key_of, stored_by
from tests.support.exchange import Exchange
from tests.support.process import Process
from tests.support.scripted import Answer, Reset, Step, StoreThenDrop
from tests.support.waiting import wait_until

IN_THE_STORE = {"stored", "stored_with_warning", "already_stored"}


class TestAfterASigkillTheSameCommandCompletesTheJob:
    def test_at_any_moment(self, kill_seed: int, job: Job) -> None:
        moment = job.moment()
        print(f"seed {kill_seed}: {moment} {job.options}")  # noqa: T201 - shown with a failure
        assert job.kill_at(moment) or moment.kind == "after_answer"
        in_flight = job.in_flight()
        job.finish()
        doubles = {key for key, digests in job.stored().items() if len(digests) > 1}
        assert doubles <= in_flight
        assert all(len(digests) <= 2 for digests in job.stored().values())

    def test_when_it_is_killed_again_and_again(self, kills_seed: int, job: Job) -> None:
        assert job.kill_at(job.moment(certain=True, early=True))
        kills = 1
        while kills < 2 + kills_seed % 3 and job.kill_at(job.moment(early=True)):
            kills += 1
        job.finish()
        assert all(len(digests) <= 1 + kills for digests in job.stored().values())

    def test_and_a_third_run_sends_nothing(self, some_seed: int, job: Job) -> None:
        del some_seed
        assert job.kill_at(job.moment(certain=True))
        first = job.finish()
        requests = len(job.server.requests)
        second = job.finish()
        assert second["requests"] == 0
        assert len(job.server.requests) == requests
        assert second["outcomes"] == first["outcomes"]

    def test_with_the_first_request_half_sent_nothing_is_claimed(
        self, some_seed: int, job: Job
    ) -> None:
        del some_seed
        job.options["--max-concurrency"] = "1"
        assert job.kill_at(Moment("body", 1))
        assert len(job.server.posts) == 1
        assert not [row for row in job.rows() if row.outcome in IN_THE_STORE]
        in_flight = job.in_flight()  # the rest may have been in the server's buffers
        job.finish()
        assert {key for key, digests in job.stored().items() if len(digests) > 1} == in_flight

    def test_when_studies_were_renamed_and_added_meanwhile(self, some_seed: int, job: Job) -> None:
        job.options["--checksums"] = "sha256"  # without, a renamed file cannot be compared
        assert job.kill_at(job.moment(certain=True))
        root = job.archive.root
        job.archive.rename(root / "study2", root / "renamed")
        add_study(job.archive, random.Random(some_seed), "new", 12)
        job.finish()


class TestWhatWasCompleteWhenItWasKilled:
    def test_is_skipped_and_counts_all_the_same(self, some_seed: int, job: Job) -> None:
        """All files of a directory were committed before the kill, by a request of that study."""
        del some_seed
        for path in job.archive.files:
            os.utime(path, (LONG_AGO, LONG_AGO))
            os.utime(path.parent, (LONG_AGO, LONG_AGO))
        complete: list[int] = []

        def wait_and_kill(process: Process) -> None:
            wait_until(lambda: complete_directories(job))  # of answers before it
            complete.append(len(complete_directories(job)))
            process.kill()

        job.options |= {"--max-concurrency": "1", "--max-batch-instances": "1000"}
        last = Moment("before_answer", len({study for study, _ in job.archive.storable}))
        assert job.run(last, wait_and_kill).returncode == -signal.SIGKILL
        job.check()
        summary = job.finish()
        assert summary["skipped_directories"] >= complete[0] > 0
        again = job.finish()
        assert again["skipped_directories"] == 0
        assert again["outcomes"] == summary["outcomes"]


def complete_directories(job: Job) -> set[Path]:
    """Those of which every file is recorded, with an outcome that is not looked at again."""
    rows = iter_files(str(job.journal))
    settled = {Path(row.path.decode()) for row in rows if row.outcome in SETTLED}
    directories = {path.parent for path in job.archive.files} - {job.archive.root}
    return {
        each
        for each in directories
        if all(path in settled for path in job.archive.files if path.parent == each)
    }


class TestWhatIsStoredTwiceIsBoundedByWhatWasInFlight:
    def test_with_one_request_at_a_time_it_is_that_request(self, some_seed: int, job: Job) -> None:
        """What was answered before it is committed without another answer that would cause it."""
        del some_seed
        job.options["--max-concurrency"] = "1"
        on_the_wire: set[Key] = set()

        def wait_and_kill(process: Process) -> None:
            last = [request for request in job.server.posts if request.complete][-1]
            stored = set(job.stored())
            on_the_wire.update(
                key for key in stored if all(uid.encode() in last.body for uid in key)
            )
            wait_until(lambda: committed(job) >= stored - on_the_wire)
            process.kill()

        moment = Moment("before_answer", job.archive.least_requests(job.batch) // 2)
        assert job.run(moment, wait_and_kill).returncode == -signal.SIGKILL
        job.check()
        assert job.in_flight() == on_the_wire
        job.finish()
        doubles = {key for key, digests in job.stored().items() if len(digests) > 1}
        assert doubles == on_the_wire


def committed(job: Job) -> set[Key]:
    """What the journal of a run that is going on says of the store."""
    return {key_of(row) for row in iter_files(str(job.journal)) if row.outcome in IN_THE_STORE}


class TestNothingIsClaimedThatIsNotStored:
    def test_at_every_answer_of_a_whole_run(self, some_seed: int, job: Job) -> None:
        del some_seed
        job.server.default = Serve(job.archive, 0.01)
        looked_at: list[int] = []
        at_least = job.archive.least_requests(job.batch)

        def look(number: int) -> None:
            claimed: set[Key] = set()
            deadline = time.monotonic() + 60
            while True:
                rows = iter_files(str(job.journal))
                claimed = {key_of(row) for row in rows if row.outcome in IN_THE_STORE}
                assert claimed <= stored_by(job.server).keys()
                if claimed or number < at_least:
                    break
                assert time.monotonic() < deadline, "of all answers before it nothing is committed"
            looked_at.append(len(claimed))

        job.server.before_answer(look)
        with job.start() as process:
            assert process.wait().returncode == 3
        assert len(looked_at) >= at_least
        assert max(looked_at) > 0


@dataclass(slots=True)
class Faulty:
    """A server that refuses, breaks and loses answers; a request's fate follows from the seed."""

    seed: int
    serve: Serve
    lost: list[bytes] = field(default_factory=list)  # bodies stored without an answer

    def play(self, exchange: Exchange) -> None:
        """Reads, and plays the request's fate."""
        exchange.read_body(keep_all=True)
        chance = random.Random(f"{self.seed}/{exchange.request.number}")
        fate = chance.random()
        step: Step = self.serve
        if fate < 0.1:
            step = Answer(503)
        elif fate < 0.2:
            step = Reset()
        elif fate < 0.3 and not self._has_odd(exchange.request.body):
            self.lost.append(exchange.request.body)
            step = StoreThenDrop(answer_bytes=chance.choice([0, 40, 200]))
        step.play(exchange)

    def _has_odd(self, body: bytes) -> bool:
        odd = self.serve.archive.refused | self.serve.archive.poison
        return any(uid.encode() in body for uid in odd)


class TestAServerWithFaultsOfItsOwn:
    def test_every_instance_stored_twice_had_no_answer_or_no_commit(
        self, fault_seed: int, job: Job
    ) -> None:
        faulty = Faulty(fault_seed, Serve(job.archive, 0.0))
        job.server.default = faulty
        job.options |= {
            "--backoff-base-s": "0.01",
            "--backoff-cap-s": "0.05",
            "--max-attempts": "20",
        }
        ended = job.run(job.moment(early=True), Process.kill)
        assert ended.returncode in {-signal.SIGKILL, 3}, ended.stderr
        rows = job.rows()
        safe = {key_of(row) for row in rows if row.outcome in IN_THE_STORE}
        assert safe <= job.stored().keys()
        in_flight = job.stored().keys() - safe

        ended = job.run(NEVER, lambda _: None)
        assert ended.returncode == 3, ended.stderr
        assert job.stored().keys() == job.archive.storable.keys()
        claimed = {key_of(row) for row in job.rows() if row.outcome in IN_THE_STORE}
        assert claimed == job.archive.storable.keys()
        again = []
        for key, digests in job.stored().items():
            lost = sum(all(uid.encode() in body for uid in key) for body in faulty.lost)
            if len(digests) > 1 + lost + (key in in_flight):
                again.append(key)
        # Of each run one file at most: it was sent again to see whether the server is well.
        assert len(again) <= 2, again


def test_journal_and_results_of_a_killed_run_are_its_owners_alone(job: Job) -> None:
    """And the lock went with the process: the next run needs no help from anybody."""
    assert job.kill_at(Moment("before_answer", 2))
    assert job.journal.stat().st_mode & 0o777 == 0o600
    assert job.results.stat().st_mode & 0o777 == 0o600
    job.finish()

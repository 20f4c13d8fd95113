"""Signals and a journal that cannot be written: what was met is recorded, the rest goes on later.

Moments at random are the matter of the crash tests; these are the ones that can be named.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from tests.pipeline.job import Job, uid_of
from tests.support.faults import Faults
from tests.support.process import (
    PROGRESS,
    Completed,
    Process,
    start_ingester,
    wait_for_turns,
)
from tests.support.scripted import (
    Answer,
    AnswerAndSee,
    Choose,
    NeverAnswer,
    NeverRead,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)
from tests.support.waiting import wait_until

QUICK = [
    "--backoff-base-s=0.01", "--backoff-cap-s=0.05", "--readers=1", "--batch-age-s=60", PROGRESS,
]  # fmt: skip
ENDLESS = "--drain-timeout-s=3600"


def start(
    job: Job,
    *flags: str,
    ignored: tuple[signal.Signals, ...] = (),
    env: Mapping[str, str] = {},
) -> Process:
    """Starts the command on the archive of a job."""
    return start_ingester(
        "run", job.archive, "--url", job.server.url, "--journal", job.journal,
        "--results", job.results, *QUICK, *flags,
        cwd=job.archive.parent, ignored_signals=ignored, env=env,
    )  # fmt: skip


class TestASignalWhileARunBegins:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_a_wait_for_a_token(self, job: Job, number: signal.Signals) -> None:
        job.write("a.dcm")
        started = job.archive.parent / "started"
        code = f"import time; open({str(started)!r}, 'w').close(); time.sleep(600)"
        command = shlex.join([sys.executable, "-c", code])
        with start(job, "--auth=bearer", f"--token-command={command}") as process:
            wait_until(started.exists)
            process.signal(number)
            ended = process.wait(20)
        assert ended.returncode == 128 + number
        assert said(process) == ["ingester: stopped before anything was read"]
        assert "Traceback" not in ended.stderr
        assert job.server.requests == []

    def test_ends_a_wait_for_a_source(self, job: Job, faults: Faults) -> None:
        job.write("a.dcm")
        faults.rule("list hang archive")
        with start(job, env=faults.environment) as process:
            faults.wait_for("list", "archive")
            process.signal(signal.SIGTERM)
            ended = process.wait(20)
        assert ended.returncode == 143
        assert said(process) == ["ingester: stopped before anything was read"]
        assert job.server.requests == []


def outcomes(job: Job) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in job.rows().values():
        counts[row.outcome.value] = counts.get(row.outcome.value, 0) + 1
    return counts


def assert_resumes(job: Job, files: int, doubles: int) -> None:
    """The same command completes; so many instances at most were sent twice."""
    job.server.default = StoreAll()
    job.server.default_get = Answer(404)
    with start(job) as process:
        assert process.wait().returncode == 0
    assert outcomes(job) == {"stored": files}
    job.check_nothing_is_claimed_falsely()
    copies = job.server.stored
    assert len(copies) == files
    assert sum(len(each) - 1 for each in copies.values()) <= doubles


def said(process: Process) -> list[str]:
    """Lines beside the progress so far."""
    return [line for line in process.stderr_so_far().splitlines() if "progress " not in line]


def acknowledged(number: signal.Signals, drain_s: int) -> str:
    """What a first signal is answered with."""
    return (
        f"stopping on {number.name}: requests under way get {drain_s} s to finish; "
        "a second signal ends them at once and leaves their files in doubt"
    )


class TestTheFirstSignal:
    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
    )
    def test_lets_the_request_finish_and_leaves_the_rest_pending(
        self, job: Job, server: ScriptedServer, number: signal.Signals, code: int
    ) -> None:
        job.write_studies(12, 2)
        gate = threading.Event()
        server.push(StoreAll(), Wait(gate))
        with start(job, "--max-concurrency=1") as process:
            server.wait_until(lambda: len(server.posts) == 2 and server.posts[1].complete)
            process.signal(number)
            wait_for_turns(process)
            assert process.running
            assert said(process) == [acknowledged(number, 20)]
            gate.set()
            assert process.wait().returncode == code
            assert said(process) == [acknowledged(number, 20)]
        assert outcomes(job) == {"stored": 4, "pending": 20}
        assert len(server.posts) == 2
        job.check_nothing_is_claimed_falsely()
        assert_resumes(job, 24, doubles=0)

    def test_ends_a_wait_at_once(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(3)
        read = threading.Event()
        server.push(AnswerAndSee(read, 503, {"Retry-After": "3000"}))
        with start(job, "--max-concurrency=1") as process:
            assert read.wait(60)
            process.signal(signal.SIGTERM)
            assert process.wait().returncode == 143
        assert outcomes(job) == {"pending": 3}
        assert len(server.posts) == 1

    def test_ends_a_second_look_at_a_refusal_and_is_what_ended_the_run(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """A stored file is sent again to see, and the server is not well: nothing came of it."""
        good, bad = job.write_studies(2)
        looked = threading.Event()

        def pick(request: Request) -> Step:
            if uid_of(bad).encode() in request.body:
                return Answer(403)
            if server.stored.get(uid_of(good)):
                return AnswerAndSee(looked, 503, {})
            return StoreAll()

        server.default = Choose(pick)
        with start(job, "--max-concurrency=1") as process:
            assert looked.wait(60)
            process.signal(signal.SIGINT)
            assert process.wait().returncode == 130
        assert outcomes(job) == {"stored": 1, "pending": 1}

    def test_that_was_ignored_at_the_start_stays_ignored(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(4)
        gate = threading.Event()
        server.push(Wait(gate))
        with start(job, ignored=(signal.SIGHUP,)) as process:
            server.wait_until(lambda: bool(server.posts))
            process.signal(signal.SIGHUP)
            wait_for_turns(process)
            gate.set()
            assert process.wait().returncode == 0
            assert said(process) == []
        assert outcomes(job) == {"stored": 4}

    def test_drains_for_so_long_and_no_longer(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(3)
        server.push(NeverAnswer())
        with start(job, "--drain-timeout-s=0.5", "--max-concurrency=1") as process:
            server.wait_until(lambda: bool(server.posts) and server.posts[0].complete)
            began = time.monotonic()
            process.signal(signal.SIGTERM)
            assert process.wait().returncode == 143  # an answer may take 10 minutes
            assert time.monotonic() - began >= 0.5
        assert outcomes(job) == {"in_doubt": 1, "pending": 2}
        assert_resumes(job, 3, doubles=1)


class TestTheSecondSignal:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_gives_up_what_is_on_the_wire(
        self, job: Job, server: ScriptedServer, event_loop: str
    ) -> None:
        job.write_studies(6, 2)
        server.push(StoreAll(), NeverAnswer())
        flags = ("--max-concurrency=1", ENDLESS, f"--event-loop={event_loop}")
        with start(job, *flags) as process:
            server.wait_until(lambda: len(server.posts) == 2 and server.posts[1].complete)
            process.signal(signal.SIGTERM)
            wait_for_turns(process)
            assert process.running
            process.signal(signal.SIGTERM)
            assert process.wait().returncode == 143
            assert said(process) == [acknowledged(signal.SIGTERM, 3600)]
        assert outcomes(job) == {"stored": 2, "in_doubt": 2, "pending": 8}
        assert_resumes(job, 12, doubles=2)

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_ends_it_when_the_server_does_not_even_read(
        self, job: Job, server: ScriptedServer, event_loop: str
    ) -> None:
        for number in range(2):
            job.write(f"{number}.dcm", payload_bytes=7_000_000)
        server.push(NeverRead())
        with start(job, ENDLESS, f"--event-loop={event_loop}") as process:
            server.wait_until(lambda: bool(server.posts))
            time.sleep(0.5)  # until what lies between the two is full
            process.signal(signal.SIGTERM)
            wait_for_turns(process)
            process.signal(signal.SIGTERM)
            assert process.wait().returncode == 143
        assert outcomes(job) == {"in_doubt": 2}
        assert_resumes(job, 2, doubles=0)

    def test_in_a_look_up_loses_nothing(self, job: Job, server: ScriptedServer) -> None:
        """Some of a request are decided already, others are just being asked for."""
        names = job.write_many(12)
        kept = {uid_of(name) for name in names[:10]}
        server.push(StoreThenDrop(store=StoreAll(only=lambda uid: uid in kept)))
        server.default = StoreAll(failures=lambda uid: 0x0110 if uid in kept else None)
        server.default_get = NeverAnswer()
        with start(job, "--max-concurrency=1", ENDLESS) as process:
            server.wait_until(lambda: any(r.method == "GET" for r in server.requests))
            process.signal(signal.SIGTERM)
            wait_for_turns(process)
            process.signal(signal.SIGTERM)
            done = process.wait()
        assert done.returncode == 143, done.stderr
        assert set(outcomes(job)) <= {"stored", "in_doubt", "pending"}
        assert sum(outcomes(job).values()) == 12
        assert_resumes(job, 12, doubles=10)


class TestAJournalThatCannotBeWritten:
    def run_with_a_limit(self, job: Job, limit_bytes: int) -> Completed:
        """Runs the command under RLIMIT_FSIZE: a disk that is full, for this process."""
        with start_ingester(
            "run", job.archive, "--url", job.server.url, "--journal", job.journal,
            *QUICK, "--max-batch-instances=2", "--max-concurrency=1",
            cwd=job.archive.parent, max_file_bytes=limit_bytes,
        ) as process:  # fmt: skip
            return process.wait()

    def test_stops_the_run_and_claims_only_what_is_committed(
        self, job: Job, server: ScriptedServer
    ) -> None:
        files = len(job.write_many(800))
        done = self.run_with_a_limit(job, 200_000)
        assert done.returncode == 1
        assert "journal" in done.stderr
        assert "Traceback" not in done.stderr
        rows = outcomes(job)
        committed = rows.get("stored", 0)
        assert 0 < committed < files
        job.check_nothing_is_claimed_falsely()
        sent = len(server.stored)
        assert sent < files, "it went on sending what it could not record"
        assert sent - committed <= 2 * 64 + 2
        with start(job) as process:
            assert process.wait().returncode == 0
        assert outcomes(job) == {"stored": files}
        copies = sum(len(each) for each in server.stored.values())
        assert copies - files <= sent - committed

    def test_sends_nothing_where_it_cannot_be_made(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        done = self.run_with_a_limit(job, 2000)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert server.requests == []

    def test_a_results_file_that_is_full_stops_it_too(
        self, job: Job, server: ScriptedServer
    ) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("there is no /dev/full")
        job.write_studies(30)
        with start_ingester(
            "run", job.archive, "--url", server.url, "--journal", job.journal, *QUICK,
            "--results", "/dev/full", "--max-concurrency=1", cwd=job.archive.parent,
        ) as process:  # fmt: skip
            done = process.wait()
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        job.check_nothing_is_claimed_falsely()


class TestASourceThatFails:
    @pytest.mark.parametrize("when", ["body", "answer"])
    def test_a_root_that_vanishes_under_a_run_is_fatal(
        self, job: Job, server: ScriptedServer, when: str
    ) -> None:
        job.write_studies(40)
        away = job.archive.with_name("away")

        def vanish() -> None:
            if job.archive.exists():
                job.archive.rename(away)

        act: Callable[[int], None] = lambda _number: vanish()  # noqa: E731
        if when == "body":
            server.at_body_bytes(10, vanish)
        else:
            server.after_answer(act)
        ran = job.run(check=False, inline_limit="1")
        assert ran.exit_code in (1, 3)
        assert set(ran.outcomes) <= {"stored", "unreadable", "pending", "in_doubt"}
        server.after_answer(lambda _number: None)
        away.rename(job.archive)
        again = job.run()
        assert again.outcomes == {"stored": 40}
        assert all(len(copies) <= 2 for copies in server.stored.values())


def test_requests_after_a_fatal_finding_are_none(job: Job, server: ScriptedServer) -> None:
    """Others finish what is on the wire; nobody starts anything."""
    job.write_studies(30)
    read = threading.Event()
    server.push(Wait(read), AnswerAndSee(read, 302, {"Location": "http://127.0.0.1:9/"}))
    ran = job.run(max_concurrency=2)
    assert ran.exit_code == 1
    assert len(server.posts) == 2
    assert ran.outcomes["stored"] == 1

"""A file system that hangs or fails: it costs the file, or the root, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.memory import write_many
from ingester.listing import CHUNK_NAMES
from ingester.wiring import MAX_LANES
from tests.pipeline.job import Job
from tests.support.faults import Faults
from tests.support.leases import leased
from tests.support.process import Process, start_python
from tests.support.scripted import Answer, EarlyAnswer, ReadSlowly, ScriptedServer, StoreAll, Wait
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the library is made for Linux")

TIMEOUT_S = 2
"""Of a read. A run that has one to give up takes a little longer."""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
CHUNKED = ("--auth=sigv4", "--region=us-east-1", "--payload-signing=aws-chunked")
SIGNED = ("--auth=sigv4", "--region=us-east-1", "--payload-signing=sha256")

NO_THREAD = """
import re, runpy, sys, threading
import ingester.threads
ingester.threads.IDLE_S = float(sys.argv.pop(1))
start, refused = threading.Thread.start, re.compile(sys.argv.pop(1))
def limited(thread):
    if refused.match(thread.name):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = limited
runpy.run_module("ingester", run_name="__main__", alter_sys=True)
"""
NO_OTHER_READER = ("-c", NO_THREAD, "60", "reader-[1-9]")


@pytest.fixture(params=[0, 1], ids=["threads", "processes"], autouse=True)
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many read. What one cannot read, a thread of the run reads once more."""
    number: int = request.param
    monkeypatch.setitem(KEYS, "INGESTER_SCAN_PROCESSES", str(number))
    return number


def start(
    job: Job,
    faults: Faults,
    *flags: str,
    roots: tuple[str, ...] = ("",),
    timeout_s: int = TIMEOUT_S,
    how: tuple[str, ...] = ("-m", "ingester"),
) -> Process:
    """Starts the command on these directories of the archive."""
    return start_python(
        *how, "run", *(job.archive / root for root in roots), "--json",
        "--url", job.server.url, "--journal", job.journal, "--results", job.results,
        f"--read-timeout-s={timeout_s}", "--backoff-base-s=0.01", *flags,
        env={**faults.environment, **KEYS},
    )  # fmt: skip


def outcomes(job: Job) -> Counter[str]:
    return Counter(row.outcome.value for row in job.rows().values())


def assert_completes(job: Job, faults: Faults, files: int, roots: tuple[str, ...] = ("",)) -> None:
    """Once the file system answers, the same command does the rest."""
    faults.rule()
    job.server.default = StoreAll()
    with start(job, faults, roots=roots) as process:
        ended = process.wait()
    assert ended.returncode == 0, ended.stderr
    assert outcomes(job) == {"stored": files}
    job.check_nothing_is_claimed_falsely()


class TestADirectoryThatListsEachNameTwice:
    """As some do while they are changed, over a network above all."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("known", [False, True], ids=["new files", "files of an earlier run"])
    def test_has_each_file_once(
        self, job: Job, server: ScriptedServer, faults: Faults, *, known: bool
    ) -> None:
        """So many files that the second listing is not in the same chunk; all wait in a batch."""
        files = CHUNK_NAMES + 40
        write_many(str(job.archive), files)
        together = ("--max-batch-instances=100000", "--batch-age-s=600", "--idle-slot-s=600")
        if known:
            server.push(Answer(404))
            with start(job, faults, *together) as process:
                assert process.wait().returncode == 1
            assert outcomes(job) == {"pending": files}
        faults.rule("again once:5 archive")
        with start(job, faults, *together) as process:
            ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert faults.count("again", "archive") == 1
        assert outcomes(job) == {"stored": files}
        assert json.loads(ended.stdout)["files"] == files
        assert all(len(copies) == 1 for copies in server.stored.values())


class TestAFileThatDoesNotAnswer:
    @pytest.mark.parametrize(("call", "position"), [("open", 0), ("preadv", 5), ("open", 9)])
    def test_is_given_up_and_its_neighbours_are_stored(
        self, job: Job, faults: Faults, call: str, position: int
    ) -> None:
        """It hangs to the end of the run and beyond: the process ends all the same."""
        names = job.write_many(10)
        faults.rule(f"{call} hang {names[position]}")
        with start(job, faults, "--readers=1") as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": 9, "unreadable": 1}
        row = job.rows()[names[position]]
        assert (row.outcome.value, row.reason_code) == ("unreadable", "read_timed_out")
        assert faults.count(call, names[position]) == 1
        assert json.loads(ended.stdout)["files"] == 10
        job.check_nothing_is_claimed_falsely()
        assert_completes(job, faults, 10)

    @pytest.mark.parametrize("signing", [(), SIGNED], ids=["unsigned", "sha256"])
    @pytest.mark.parametrize("payload_bytes", [300, 3_000_000])
    def test_when_it_is_sent_costs_its_neighbours_nothing(
        self,
        job: Job,
        server: ScriptedServer,
        faults: Faults,
        payload_bytes: int,
        signing: tuple[str, ...],
    ) -> None:
        """Nothing is cached: all are opened again. It begins to hang after it was scanned."""
        job.write("0/first.dcm", study="first")
        names = [f"1/{number:02d}.dcm" for number in range(5)]
        for name in names:
            job.write(name, payload_bytes=payload_bytes)

        def before(number: int) -> None:
            if number == 1:
                faults.rule(f"open hang {names[2]}")

        server.before_answer(before)
        one_by_one = ("--readers=1", "--max-concurrency=1", "--batch-age-s=0.01")
        flags = ("--inline-limit=1", *one_by_one, *signing)
        with start(job, faults, *flags) as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": 5, "unreadable": 1}
        assert job.rows()[names[2]].reason_code == "read_timed_out"
        job.check_nothing_is_claimed_falsely()

    def test_that_is_compared_with_another_is_looked_at_next_time(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        """Files with one UID meet: the second is read again, and does not answer."""
        job.write("0.dcm", sop="one", seed=1)
        job.write("1.dcm", sop="one", seed=2)
        job.write("2.dcm")
        server.before_answer(lambda number: faults.rule("open hang 1.dcm") if number == 1 else None)
        with start(job, faults, "--readers=1") as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": 2, "unreadable": 1}
        assert job.rows()["1.dcm"].reason_code == "read_timed_out"

    def test_that_answers_too_late_is_recorded_once(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        """Its thread comes back while the run still goes on: nobody is told."""
        names = job.write_many(10)
        faults.rule(f"preadv hang {names[3]}")
        gate = threading.Event()
        server.push(Wait(gate))
        with start(job, faults, "--readers=1", "--batch-age-s=0.01") as process:
            faults.wait_for("preadv", names[3])
            server.wait_until(lambda: bool(server.posts) and server.posts[0].complete)
            while f'/{names[3]}"' not in (job.results.read_text() if job.results.exists() else ""):
                assert process.running
                time.sleep(0.01)
            faults.rule("preadv 5 never")
            gate.set()
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        lines = [json.loads(line) for line in job.results.read_text().splitlines()]
        assert Counter(Path(line["path"]).name for line in lines) == Counter(names)
        assert outcomes(job) == {"stored": 9, "unreadable": 1}
        job.check_nothing_is_claimed_falsely()

    def test_and_leaves_no_thread_to_be_had_stops_the_run_which_drains(
        self, job: Job, server: ScriptedServer, faults: Faults, tmp_path: Path
    ) -> None:
        """One request waits for its answer; of two files that are sent, one hangs, one waits."""
        job.write("1/good.dcm", study="good")
        for name in ("2/a.dcm", "2/b.dcm"):
            job.write(name, study=name, payload_bytes=3_000_000)
        faults.rule("read hang /2/")
        gate, log = threading.Event(), tmp_path / "log"
        server.default = Wait(gate)
        flags = ("--readers=1", "--batch-age-s=0.01", f"--log-file={log}")
        with start(job, faults, *flags, how=NO_OTHER_READER) as process:
            wait_until(lambda: log.exists() and '"event":"stop"' in log.read_text(), process)
            gate.set()
            ended = process.wait()
        assert ended.returncode == 1
        assert "ingester: the system gives this process no thread\n  hint: raise " in ended.stderr
        assert "  at " not in ended.stderr
        assert ended.elapsed_s < 20  # --drain-timeout-s: what cannot be read is not waited for
        assert job.rows()["1/good.dcm"].outcome.value == "stored"
        job.check_nothing_is_claimed_falsely()
        assert_completes(job, faults, 3)


class TestAThreadThatIsNotToBeHad:
    @pytest.mark.parametrize(
        ("refused", "payload_bytes", "signing"),
        [
            ("reader-[1-9]", 300, ()),
            ("reader-[1-9]", 3_000_000, ()),
            ("hash-", 300, CHUNKED),
        ],
        ids=["small", "large", "chunked"],
    )
    def test_to_read_or_to_sign_a_body_is_not_taken_for_a_lost_server(
        self, job: Job, faults: Faults, refused: str, payload_bytes: int, signing: tuple[str, ...]
    ) -> None:
        """The thread that scanned has ended for want of work."""
        job.write("a.dcm", payload_bytes=payload_bytes)
        flags = ("--readers=1", "--inline-limit=1", "--batch-age-s=1", "--idle-slot-s=600")
        with start(job, faults, *flags, *signing, how=("-c", NO_THREAD, "0", refused)) as process:
            ended = process.wait(30)
        assert ended.returncode == 1
        assert "ingester: the system gives this process no thread\n  hint: raise " in ended.stderr
        assert "  at " not in ended.stderr
        assert outcomes(job) in ({"pending": 1}, {"in_doubt": 1})
        assert_completes(job, faults, 1)


class TestASourceThatTheSystemKeepsFromThisProgram:
    """As macOS does, whatever the modes are."""

    @pytest.mark.parametrize("known", [False, True])
    def test_is_told_with_what_to_do(self, job: Job, faults: Faults, *, known: bool) -> None:
        job.write("a.dcm")
        if known:
            assert_completes(job, faults, 1)
        faults.rule(f"list {errno.EPERM} archive")
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == (1 if known else 2)
        *_, line, hint = ended.stderr.splitlines()
        shown = f"(Operation not permitted): {job.archive}"
        assert line == f"ingester: a source cannot be read {shown}"
        assert hint.startswith("  hint: let this user list and enter it, and enter each directory")
        assert "or the system keeps it from this program (macOS: Full Disk Access)" in hint


class TestAMountThatDoesNotAnswer:
    """One of two roots, while the first request of the other is answered."""

    @pytest.mark.parametrize("calls", [("open", "stat", "list"), ("preadv", "stat", "list")])
    def test_is_paused_and_the_others_go_on(
        self, job: Job, server: ScriptedServer, faults: Faults, calls: tuple[str, ...]
    ) -> None:
        """Its files stay pending, exit 1, and the process ends with its threads still stuck."""
        for number in range(30):
            job.write(f"good/{number:02d}.dcm", study=f"good{number}")
            job.write(f"hung/{number:02d}.dcm", study="hung")
        faults.rule(f"{calls[0]} hang /hung/0")

        def before(number: int) -> None:
            if number == 1:  # the source was there when the run started, and is not any more
                faults.wait_for(calls[0], "/hung/0")
                faults.rule(*(f"{call} hang {job.archive}/hung" for call in calls))

        server.before_answer(before)
        flags = ("--readers=3", "--max-batch-instances=2", "--batch-age-s=0.01")
        with start(job, faults, *flags, roots=("good", "hung")) as process:
            ended = process.wait()
        assert ended.returncode == 1, ended.stderr
        assert f"it does not answer: {job.archive}/hung" in ended.stderr
        ends: dict[str, Counter[str]] = {"good": Counter(), "hung": Counter()}
        for name, row in job.rows().items():
            ends[name.split("/")[0]][row.reason_code or row.outcome.value] += 1
        assert ends["good"] == {"stored": 30}
        assert set(ends["hung"]) == {"read_timed_out", "source_paused"}
        assert ends["hung"].total() == 30
        assert json.loads(ended.stdout)["exit_code"] == 1
        job.check_nothing_is_claimed_falsely()
        server.before_answer(lambda _number: None)
        assert_completes(job, faults, 60, ("good", "hung"))

    @pytest.mark.parametrize("call", ["open", "preadv", "list"])
    def test_holds_nobody_up_even_before_it_is_given_up(
        self, job: Job, server: ScriptedServer, faults: Faults, call: str
    ) -> None:
        """Nothing is given up here: the other root is loaded while all readers of this one hang."""
        for number in range(200):
            job.write(f"hung/sub/{number:03d}.dcm", study="hung")
        job.write_many(200, study="good", prefix="good/sub/")
        hung = f"{call} hang {job.archive}/hung/sub"
        faults.rule(hung, f"list hang {job.archive}/good/sub")  # until the other one hangs
        flags = ("--readers=2", "--batch-age-s=0.01")
        roots = ("hung", "good")
        with start(job, faults, *flags, roots=roots, timeout_s=600) as process:
            faults.wait_for(call, "/hung/sub", 1 if call == "list" else 2)
            faults.rule(hung)
            server.wait_until(lambda: len(server.stored) == 200, 30)
            process.signal(signal.SIGTERM)
            ended = process.wait()
        assert ended.returncode == 143, ended.stderr
        assert outcomes(job)["stored"] == 200
        job.check_nothing_is_claimed_falsely()
        assert_completes(job, faults, 400, ("hung", "good"))

    def test_from_the_start_ends_the_run_before_it_begins(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        job.write("hung/0.dcm")
        faults.rule(f"stat hang {job.archive}/hung")
        with start(job, faults, roots=("hung",)) as process:
            ended = process.wait()
        assert ended.returncode == 1
        assert f"a source does not answer: {job.archive}/hung" in ended.stderr
        assert server.requests == []
        assert_completes(job, faults, 1, ("hung",))

    def test_when_its_files_are_sent_leaves_them_pending(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        """All was scanned: what is to be read again is not there, and the other root's is."""
        for number in range(12):
            job.write(f"good/{number:02d}.dcm", study=f"good{number}")
            job.write(f"hung/{number:02d}.dcm", study=f"hung{number}")
        job.write("good/first.dcm", study="first")

        def before(number: int) -> None:
            if number == 1:
                faults.rule(*(f"{call} hang {job.archive}/hung" for call in ("open", "stat")))

        server.before_answer(before)
        flags = ("--inline-limit=1", "--max-concurrency=2", "--readers=3", "--batch-age-s=0.01")
        with start(job, faults, *flags, roots=("good", "hung")) as process:
            ended = process.wait()
        assert ended.returncode == 1, ended.stderr
        rows = job.rows()
        good = {row.outcome.value for name, row in rows.items() if name.startswith("good")}
        hung = {row.reason_code for name, row in rows.items() if name.startswith("hung")}
        assert good == {"stored"}
        assert hung <= {"", "read_timed_out", "source_paused"}
        assert "source_paused" in hung
        job.check_nothing_is_claimed_falsely()
        server.before_answer(lambda _number: None)
        assert_completes(job, faults, 25, ("good", "hung"))


class TestMoreRootsThanAreWalkedAtATime:
    def test_are_all_loaded_but_the_one_that_fails(self, job: Job, faults: Faults) -> None:
        """What comes after it in its lane is loaded, too."""
        roots = tuple(f"{number:02d}" for number in range(3 * MAX_LANES + 1))
        for root in roots:
            job.write(f"{root}/sub/a.dcm", study=root)
        faults.rule(f"list {errno.EIO} {job.archive}/03/sub")
        with start(job, faults, roots=roots) as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": len(roots) - 1}
        assert json.loads(ended.stdout)["unreadable_directories"] == 1
        assert_completes(job, faults, len(roots), roots)


class TestADirectoryThatDoesNotAnswer:
    @pytest.mark.parametrize("call", ["list", "stat"])
    def test_is_counted_and_the_rest_of_its_root_is_loaded(
        self, job: Job, faults: Faults, call: str
    ) -> None:
        """It is given up whether its names do not come or it cannot even be asked."""
        for name in ("a/0.dcm", "b/0.dcm", "b/c/0.dcm", "d/0.dcm", "e.dcm"):
            job.write(name)
        faults.rule(f"{call} hang {job.archive}/b")
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode in (1, 3), ended.stderr
        summary = json.loads(ended.stdout)
        stored = {name for name, row in job.rows().items() if row.outcome == "stored"}
        assert stored == {"a/0.dcm", "d/0.dcm", "e.dcm"}
        assert summary["unreadable_directories"] == 1
        assert "does not answer" in ended.stderr
        assert str(job.archive) not in ended.stderr
        assert_completes(job, faults, 5)


class TestADirectoryThatFailsHalfWay:
    def test_is_counted_and_what_it_told_until_then_is_loaded(
        self, job: Job, faults: Faults
    ) -> None:
        """Of the five entries that are read two may be itself and its parent."""
        names = [f"b/{number}.dcm" for number in range(6)]
        for name in (*names, "c/0.dcm"):
            job.write(name)
        faults.rule(f"list from:6:{errno.EIO} {job.archive}/b")
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert json.loads(ended.stdout)["unreadable_directories"] == 1
        stored = {name for name, row in job.rows().items() if row.outcome == "stored"}
        assert stored <= {*names, "c/0.dcm"}
        assert 1 + 3 <= len(stored) <= 1 + 5
        assert_completes(job, faults, 7)


class TestABatchThatIsNotComplete:
    def test_goes_out_when_a_request_could_have_been_under_way_for_long_enough(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        """The file that would complete it does not come, and it is not old enough."""
        job.write_many(4, prefix="quick/")
        job.write("slow/last.dcm")
        faults.rule("open hang last.dcm")
        flags = ("--batch-age-s=600", "--idle-slot-s=0.1")
        with start(job, faults, *flags, roots=("quick", "slow"), timeout_s=300) as process:
            wait_until(lambda: len(server.stored) >= 4)
            assert len(server.stored) == 4
            faults.rule()
            ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert outcomes(job) == {"stored": 5}


class TestAnErrorThatMayPass:
    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    @pytest.mark.parametrize("call", ["open", "preadv"])
    def test_is_tried_once_more(
        self, job: Job, faults: Faults, call: str, number: int, processes: int
    ) -> None:
        job.write_many(5)
        faults.rule(f"{call} once:{number} 0003.dcm")
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert outcomes(job) == {"stored": 5}
        assert faults.count(call, "0003.dcm") == 1 + processes  # once in each

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    def test_when_a_file_is_sent_is_tried_once_more(
        self, job: Job, server: ScriptedServer, faults: Faults, number: int, processes: int
    ) -> None:
        """The large one is read by threads alone."""
        job.write("0.dcm", study="first")
        job.write("1/small.dcm")
        job.write("1/large.dcm", payload_bytes=3_000_000)
        rules = (f"open once:{number} small", f"open once:{number} large")
        server.before_answer(lambda answer: faults.rule(*rules) if answer == 1 else None)
        flags = ("--inline-limit=1", "--readers=1", "--max-concurrency=1", "--batch-age-s=0.01")
        with start(job, faults, *flags) as process:
            ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert faults.count("open", "small") == 1 + processes  # once in each
        assert faults.count("open", "large") == 1
        assert outcomes(job) == {"stored": 3}

    def test_that_does_not_pass_is_the_files_own(
        self, job: Job, faults: Faults, processes: int
    ) -> None:
        job.write_many(5)
        faults.rule(f"preadv {errno.EIO} 0003.dcm")
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": 4, "unreadable": 1}
        assert job.rows()["0003.dcm"].reason_code == "read_error"
        assert faults.count("preadv", "0003.dcm") == 2 + processes
        assert_completes(job, faults, 5)

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    def test_of_every_file_of_a_root_pauses_it(self, job: Job, faults: Faults, number: int) -> None:
        """A disk that is gone: a hundred files tell, the other thousand stay pending."""
        roots = ("bad", "good")
        for root, count in (("bad", 1100), ("good", 50)):
            job.write_many(count, study=root, prefix=f"{root}/")
        faults.rule(f"open {number} {job.archive}/bad/")
        with start(job, faults, "--readers=1", roots=roots) as process:
            ended = process.wait()
        assert ended.returncode == 1, ended.stderr
        assert f"every read fails ({os.strerror(number)}): {job.archive}/bad" in ended.stderr
        assert outcomes(job) == {"stored": 50, "unreadable": 99, "pending": 1001}
        assert_completes(job, faults, 1150, roots)

    def test_of_many_files_among_others_does_not(self, job: Job, faults: Faults) -> None:
        """A damaged place: every second file of three hundred."""
        job.write_many(300)
        faults.rule(*(f"open {errno.EIO} {digit}.dcm" for digit in (1, 3, 5, 7, 9)))
        with start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        assert outcomes(job) == {"stored": 150, "unreadable": 150}


class TestAFileOfWhichAnotherProgramHasALease:
    """It gives the lease up a moment after somebody opens the file."""

    def test_is_stored(self, job: Job, faults: Faults) -> None:
        paths = [job.write(f"{number}.dcm") for number in range(3)]
        with leased(paths[1]), start(job, faults) as process:
            ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert outcomes(job) == {"stored": 3}

    def test_when_it_is_sent_is_stored(
        self, job: Job, server: ScriptedServer, faults: Faults
    ) -> None:
        """Nothing is cached: it is opened again."""
        job.write("0/first.dcm", study="first")
        path = job.write("1/second.dcm", study="second", payload_bytes=3_000_000)
        with ExitStack() as held:
            server.before_answer(
                lambda number: held.enter_context(leased(path)) if number == 1 else None
            )
            flags = ("--inline-limit=1", "--readers=1", "--max-concurrency=1")
            with start(job, faults, *flags) as process:
                ended = process.wait()
        assert ended.returncode == 0, ended.stderr
        assert outcomes(job) == {"stored": 2}
        job.check_nothing_is_claimed_falsely()


class TestAThreadThatComesBackTooLate:
    """It still reads into a piece of memory, while another request is on the wire."""

    @pytest.mark.parametrize("given_up_by", ["an early answer", "a timeout"])
    def test_writes_into_no_buffer_that_others_use(
        self, tmp_path: Path, faults: Faults, given_up_by: str
    ) -> None:
        with ScriptedServer(receive_buffer=65_536) as server:
            job = Job(tmp_path / "job", server)
            for number, payload_bytes in enumerate((100, 8_000_000, 8_000_000)):
                job.write(f"{number}.dcm", payload_bytes=payload_bytes, seed=number)
            faults.rule("read once:hang 1.dcm")

            def before(number: int) -> None:
                if number == 1:
                    faults.wait_for("read", "1.dcm")

            def release() -> None:
                faults.rule()
                time.sleep(0.2)  # not for the result, only for a fault to show

            slowly = ReadSlowly(100_000_000, chunk=65_536)
            if given_up_by == "an early answer":
                server.before_answer(before)
                server.push(EarlyAnswer(503, afterwards="close"))
            else:
                server.push(slowly)
            server.push(slowly, slowly)
            server.at_body_bytes(4_000_000, release)
            flags = ("--max-concurrency=1", "--readers=1", "--idle-slot-s=60")  # one batch
            with start(job, faults, *flags) as process:
                ended = process.wait()
            lost = given_up_by == "a timeout"
            assert ended.returncode == (3 if lost else 0), ended.stderr
            assert outcomes(job) == ({"stored": 2, "unreadable": 1} if lost else {"stored": 3})
            assert faults.count("read", "1.dcm") == 1
            # What had gone out before the file that is given up goes again by itself.
            assert len(server.posts) == (3 if lost else 2)
            job.check_nothing_is_claimed_falsely()

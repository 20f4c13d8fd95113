"""A file that is not any more what was scanned is an outcome, never a mixture."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingester.dicomweb.profiles import PROFILES, ServerProfile
from tests.pipeline.job import Job, Ran, age, uid_of
from tests.support.faults import Faults
from tests.support.process import Process, start_ingester
from tests.support.scripted import ReadSlowly, ScriptedServer, StoreAll, StoreThenDrop

Change = Callable[[Path], None]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite_the_end(path: Path) -> None:
    """With the old time stamp: only ctime tells."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"x" * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """By another file of the same size and time stamp."""
    other = path.with_name("other.tmp")
    other.write_bytes(path.read_bytes()[:-4] + b"abcd")
    age(other)
    other.replace(path)


def vanish(path: Path) -> None:
    path.unlink()


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def start(job: Job, faults: Faults, *flags: str) -> Process:
    """Starts the command on the archive of a job, one reader and one request at a time."""
    return start_ingester(
        "run", job.archive, "--url", job.server.url, "--journal", job.journal,
        "--readers=1", "--max-concurrency=1", *flags, env=faults.environment,
    )  # fmt: skip


CHANGES = [
    truncate, append, overwrite_the_end, replace, vanish, become_a_fifo, become_a_directory,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
class TestAFileThatChangesBetweenScanAndSend:
    @pytest.mark.parametrize("position", [0, 4, 9])
    @pytest.mark.parametrize("payload_bytes", [300, 200_000])
    def test_its_neighbours_are_stored(
        self, job: Job, server: ScriptedServer, change: Change, position: int, payload_bytes: int
    ) -> None:
        """Nothing is cached: all are opened a second time when they are sent."""
        job.write("0/first.dcm", study="first")
        names = [f"1/{number:02d}.dcm" for number in range(10)]
        for name in names:
            job.write(name, payload_bytes=payload_bytes)
        victim = names[position]
        whole = job.sha256(victim)

        def before(number: int) -> None:
            if number == 1:  # the second batch waits: there is one request at a time
                change(job.archive / victim)

        server.before_answer(before)
        ran = job.run(inline_limit="1", check=False)
        assert ran.outcome(victim) == "unreadable"
        assert ran.outcomes == {"stored": 10, "unreadable": 1}
        assert ran.exit_code == 3
        assert job.stored(victim) == []
        for name in names:
            if name != victim:
                assert job.stored(name) == [job.sha256(name)]
        assert all(whole not in copies for copies in server.stored.values())
        broken = [post for post in server.posts if not post.complete]
        assert len(broken) <= 1


@pytest.mark.parametrize("change", CHANGES[:3], ids=lambda change: change.__name__)
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
class TestALargeFileThatChangesWhileItIsSent:
    def test_the_request_is_never_completed(
        self, tmp_path: Path, change: Change, event_loop: str
    ) -> None:
        with ScriptedServer(receive_buffer=65_536) as server:
            job = Job(tmp_path, server)
            job.write("0.dcm")
            large = job.write("1.dcm", payload_bytes=15_000_000)
            job.write("2.dcm")
            server.push(ReadSlowly(100_000_000, chunk=65_536))
            server.at_body_bytes(1_000_000, lambda: change(large))
            ran = job.run(event_loop=event_loop, check=False)
            assert ran.outcome("1.dcm") == "unreadable"
            assert ran.rows["1.dcm"].reason_code == "changed_while_sent"
            assert ran.outcomes == {"stored": 2, "unreadable": 1}
            first, *others = server.posts
            assert not first.complete
            assert [post.complete for post in others] == [True, True]
            assert job.stored("1.dcm") == []
            # It is looked at again, and sent if it can be sent now.
            again = job.run(event_loop=event_loop, check=False)
            assert again.outcome("1.dcm") in ("stored", "invalid")


class TestAFileThatIsGoneAndMayHaveBeenStored:
    """Nobody can tell any more: it is in doubt, and keeps its claim."""

    def test_because_the_server_did_not_name_it(self, job: Job, server: ScriptedServer) -> None:
        """Else the other file with its UIDs is called stored where the first is kept."""
        gone = job.write("a.dcm", sop="x")
        job.write("b.dcm", sop="x", seed=2)
        job.write("c.dcm")
        server.push(StoreAll(named=lambda uid: uid != uid_of("x")))
        server.before_answer(lambda number: gone.unlink() if number == 1 else None)
        ran = job.run(server="orthanc", check=False)
        assert len(job.stored("x")) == 1
        assert [ran.outcome(name) for name in ("a.dcm", "b.dcm", "c.dcm")] == [
            "in_doubt", "failed", "stored",
        ]  # fmt: skip
        again = job.run(server="orthanc", check=False)
        assert again.outcome("b.dcm") == "already_stored"

    def test_because_it_had_gone_out_whole_before_the_request_was_abandoned(
        self, tmp_path: Path
    ) -> None:
        with ScriptedServer(receive_buffer=65_536) as server:
            job = Job(tmp_path, server)
            names = job.write_many(5)
            for name in names:
                job.write(name, payload_bytes=8_000_000)

            def vanish_three() -> None:
                for number in (0, 2, 4):
                    (job.archive / names[number]).unlink()

            server.push(ReadSlowly(100_000_000, chunk=65_536))
            server.at_body_bytes(8_500_000, vanish_three)
            ran = job.run(max_batch_bytes=100_000_000, check=False)
            assert [ran.outcome(name) for name in names] == [
                "in_doubt", "stored", "unreadable", "stored", "unreadable",
            ]  # fmt: skip


class TestAFileThatChangesBetweenWalkAndScan:
    """It was listed; the file before it in its list does not answer until it has changed."""

    @pytest.mark.parametrize(
        ("change", "outcome", "reason_code"),
        [
            (append, "stored", ""),
            (truncate, "stored", ""),
            (replace, "stored", ""),
            (vanish, "unreadable", "vanished"),
            (become_a_fifo, "unreadable", "read_error"),
            (become_a_directory, "unreadable", "read_error"),
        ],
    )
    def test_is_what_it_is_when_it_is_read(
        self, job: Job, faults: Faults, change: Change, outcome: str, reason_code: str
    ) -> None:
        job.write_many(5)
        victim = job.write("0003.dcm", payload_bytes=10_000)
        faults.rule("open hang 0000.dcm")
        with start(job, faults) as process:
            faults.wait_for("open", "0000.dcm")
            change(victim)
            faults.rule()
            ended = process.wait()
        assert ended.returncode == (0 if outcome == "stored" else 3), ended.stderr
        rows = job.rows()
        assert (rows["0003.dcm"].outcome, rows["0003.dcm"].reason_code) == (outcome, reason_code)
        others = {row.outcome.value for name, row in rows.items() if name != "0003.dcm"}
        assert others <= {"stored"}
        job.check_nothing_is_claimed_falsely()


class TestAFileThatMayNotBeReadAnyMore:
    @pytest.mark.parametrize("when", ["scanned", "sent"])
    def test_is_unreadable_and_its_neighbours_are_stored(
        self, job: Job, server: ScriptedServer, faults: Faults, when: str
    ) -> None:
        """EACCES, which a process of the super-user never gets from a mode."""
        job.write("0/first.dcm", study="first")
        job.write_many(5, prefix="1/")
        denied = f"open {errno.EACCES} 1/0002.dcm"
        if when == "scanned":
            faults.rule(denied)
        else:
            server.before_answer(lambda number: faults.rule(denied) if number == 1 else None)
        with start(job, faults, "--inline-limit=1", "--batch-age-s=0.01") as process:
            ended = process.wait()
        assert ended.returncode == 3, ended.stderr
        rows = job.rows()
        assert rows.pop("1/0002.dcm").reason_code == "read_error"
        assert {row.outcome.value for row in rows.values()} == {"stored"}
        job.check_nothing_is_claimed_falsely()


class TestCachedFiles:
    def test_are_sent_as_they_were_scanned(self, job: Job, server: ScriptedServer) -> None:
        job.write("0/first.dcm", study="first")
        job.write("1/a.dcm")
        old = job.sha256("1/a.dcm")

        def before(number: int) -> None:
            if number == 1:
                job.write("1/a.dcm", seed=9)

        server.before_answer(before)
        ran = job.run(check=False)
        assert ran.outcomes == {"stored": 2}
        assert job.stored("1/a.dcm") == [old]
        server.before_answer(lambda _number: None)
        age(job.archive / "1/a.dcm", 60)
        again = job.run()
        assert again.outcomes == {"stored": 2}
        assert job.stored("1/a.dcm") == [old, job.sha256("1/a.dcm")]

    def test_a_retry_does_not_mix_old_and_new_bytes(self, job: Job, server: ScriptedServer) -> None:
        """The cache was given back after the first attempt: the second reads the file again."""
        names = job.write_many(4)
        server.push(StoreAll(only_answer_bytes=10))

        def before(number: int) -> None:
            if number == 1:
                job.write(names[1], seed=9)

        server.before_answer(before)
        sent = {name: job.sha256(name) for name in names}
        ran = job.run(check=False, answer_timeout_s=3)
        # The first attempt had all its bytes: nobody knows what became of them.
        assert ran.outcome(names[1]) == "in_doubt"
        assert all(ran.outcome(name) == "stored" for name in names if name != names[1])
        assert all(set(copies) <= {sent[name]} for name in names for copies in [job.stored(name)])


class TestAStoredFileThatChanges:
    """Sent again under the same UIDs: what the store then has depends on the kind of server."""

    def change_and_run_again(self, job: Job, kind: str) -> Ran:
        job.write("a.dcm")
        assert job.run(server=kind).outcomes == {"stored": 1}
        age(job.write("a.dcm", seed=1), seconds=60)
        return job.run(server=kind)

    @pytest.mark.parametrize("kind", ["generic", "healthimaging"])
    def test_is_stored_where_the_last_one_counts(self, job: Job, kind: str) -> None:
        assert self.change_and_run_again(job, kind).outcomes == {"stored": 1}
        assert job.stored("a.dcm")[-1] == job.sha256("a.dcm")

    def test_is_not_claimed_where_the_first_one_is_kept(self, job: Job) -> None:
        ran = self.change_and_run_again(job, "orthanc")
        assert (ran.exit_code, ran.outcomes) == (0, {"already_stored": 1})
        (line,) = ran.lines
        assert line["reason_code"] == "earlier_version_kept"
        assert line["reason"] == "orthanc has an earlier version of this file, and keeps it"

    def test_nor_after_a_doubt_where_no_digest_was_kept_of_the_first(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        assert job.run(server="orthanc", checksums="none").outcomes == {"stored": 1}
        age(job.write("a.dcm", seed=1), seconds=60)
        server.default = StoreThenDrop(store=StoreAll(only=lambda _uid: False))
        assert job.run(server="orthanc", max_outage_s=0.1, check=False).exit_code == 1
        server.default = StoreAll()
        assert job.run(server="orthanc").outcomes == {"already_stored": 1}

    def test_sent_again_unchanged_it_is_what_the_store_has(self, job: Job) -> None:
        job.write("a.dcm")
        job.run(server="orthanc")
        assert job.run(server="orthanc", retry="stored").outcomes == {"stored": 1}
        ran = job.run(server="orthanc", retry="stored", checksums="none")
        assert ran.outcomes == {"stored": 1}


class TestAConflict:
    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_is_told_which_of_two_the_store_keeps(self, job: Job, profile: ServerProfile) -> None:
        job.write("a.dcm", sop="x", seed=1)
        job.write("b.dcm", sop="x", seed=2)
        ran = job.run(server=profile.name)
        assert ran.outcomes == {"stored": 1, "conflict": 1}
        (line,) = (line for line in ran.lines if line["outcome"] == "conflict")
        assert str(line["reason"]).startswith("another data set has these UIDs: ")
        assert str(line["reason"]).endswith(f"SOPInstanceUID {profile.name} {profile.second_copy}")

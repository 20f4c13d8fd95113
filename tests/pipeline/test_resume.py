"""A run that resumes one that did not come to its end: what it looks at again, and what not."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.pipeline.job import Job, Ran, age, uid_of
from tests.support.faults import Faults
from tests.support.process import PROGRESS, Completed, start_ingester, wait_for_turns
from tests.support.scripted import Answer, ScriptedServer, StoreAll, Wait
from tests.support.waiting import wait_until

STUDIES, INSTANCES = 5, 3
AWAY = Answer(302, {"Location": "http://127.0.0.1:9/"})
"""An answer that ends every run with exit 1."""


@pytest.fixture
def names(job: Job) -> list[str]:
    """Of files in a directory a study."""
    return job.write_studies(STUDIES, INSTANCES)


def stop_after(job: Job, requests: int, **options: object) -> Ran:
    """A run that stores so many studies, and ends with exit 1."""
    job.server.push(*[StoreAll()] * requests, AWAY)
    ran = job.run(options, check=False)
    assert ran.exit_code == 1
    return ran


def skipped(ran: Ran) -> int:
    return ran.summary.skipped_directories


def seen(ran: Ran) -> dict[str, int]:
    return {name: row.seen_run_id for name, row in ran.rows.items()}


class TestARunAfterOneThatWasStopped:
    def test_skips_what_is_complete_and_counts_it_as_met(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        first = stop_after(job, 2)
        assert first.outcomes == {"stored": 2 * INSTANCES, "pending": 3 * INSTANCES}
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 2)
        assert ran.outcomes == {"stored": len(names)}
        assert ran.summary.studies == STUDIES
        assert set(seen(ran).values()) == {ran.summary.run_id}
        assert len(ran.lines) == 3 * INSTANCES
        last = ran.snapshots[-1]
        assert last.files_met == last.committed == len(names)
        assert last.bytes_met == sum((job.archive / name).stat().st_size for name in names)
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_and_so_does_the_next_if_that_is_stopped_too(self, job: Job, names: list[str]) -> None:
        stop_after(job, 1)
        for run in (1, 2, 3):
            ran = stop_after(job, 1)
            assert skipped(ran) == run
            assert ran.summary.files == len(names)
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 4)
        assert ran.outcomes == {"stored": len(names)}

    def test_says_so_to_people_and_in_the_log(self, job: Job, tmp_path: Path) -> None:
        job.write_studies(STUDIES, INSTANCES)
        stop_after(job, 2)
        log = tmp_path / "log.jsonl"
        done = run_command(job, f"--log-file={log}")
        assert "not listed again: 2 complete directories" in done.stdout.splitlines()
        last = json.loads(log.read_text().splitlines()[-1])
        assert (last["event"], last["skipped_directories"]) == ("end", 2)

    def test_has_the_exit_code_of_what_it_skips(self, job: Job, names: list[str]) -> None:
        server = job.server
        server.push(StoreAll(failures={uid_of(names[0]): 0xC122}), StoreAll(), AWAY)
        first = job.run(check=False)
        assert first.outcomes["rejected"] == 1
        ran = job.run(check=False)
        assert skipped(ran) == 2
        assert ran.outcomes == {"stored": len(names) - 1, "rejected": 1}
        assert ran.exit_code == 3

    def test_counts_what_it_skipped_before_a_directory_that_does_not_answer(
        self, job: Job, faults: Faults
    ) -> None:
        job.write_studies(STUDIES, INSTANCES)
        stop_after(job, 2)
        complete = {name[:3] for name, row in job.rows().items() if row.outcome == "stored"}
        assert complete == {"000", "001"}
        faults.rule(f"stat hang {job.archive}/002")
        done = run_command(job, "--read-timeout-s=2", "--json", env=faults.environment)
        summary = json.loads(done.stdout)
        assert (done.returncode, summary["unreadable_directories"]) == (3, 1)
        assert summary["skipped_directories"] == 2
        assert summary["files"] == summary["outcomes"]["stored"] == 4 * INSTANCES


class TestARunAfterOneThatEnded:
    @pytest.mark.parametrize("exit_code", [0, 3])
    def test_skips_nothing(self, job: Job, names: list[str], exit_code: int) -> None:
        if exit_code == 3:
            (job.archive / names[0]).write_bytes(b"no preamble".ljust(200) + b"\x08\x00\x16\x00UI")
        assert job.run(check=False).exit_code in (0, 3)
        job.server.push(AWAY)
        assert skipped(job.run(check=False)) == 0


class TestHoweverARunWasStopped:
    @pytest.mark.parametrize(
        "how", ["SIGTERM", "the drain time-out", "SIGKILL", "SIGKILL in a run that resumes"]
    )
    def test_the_next_skips_what_is_complete(
        self, job: Job, server: ScriptedServer, names: list[str], how: str
    ) -> None:
        gate = threading.Event()
        if how.endswith("resumes"):
            stop_after(job, 1)
        server.push(StoreAll(), Wait(gate))
        posts = len(server.posts)
        with start_ingester(*command(job, PROGRESS, "--drain-timeout-s=0.3")) as process:
            server.wait_until(lambda: len(server.posts) == posts + 2 and server.posts[-1].complete)
            stored = (2 if how.endswith("resumes") else 1) * INSTANCES
            wait_until(lambda: outcomes(job).get("stored") == stored)
            if how.startswith("SIGKILL"):
                process.kill()
                gate.set()
            else:
                process.signal(signal.SIGTERM)
                wait_for_turns(process)
                if how == "SIGTERM":
                    gate.set()
            ended = process.wait()
        gate.set()
        assert ended.returncode == (-signal.SIGKILL if how.startswith("SIGKILL") else 143)
        complete = sum(
            all(job.rows()[name].outcome == "stored" for name in names[start:][:INSTANCES])
            for start in range(0, len(names), INSTANCES)
            if names[start] in job.rows()
        )
        assert complete >= 1
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, complete)
        assert ran.outcomes == {"stored": len(names)}

    def test_by_sigkill_when_only_its_listing_was_recorded_all_is_sent(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        """Of all directories but one, whose results the listings have come with."""
        gate = threading.Event()
        server.push(StoreAll(), Wait(gate))
        with start_ingester(*command(job)) as process:
            server.wait_until(lambda: len(server.posts) == 2 and server.posts[1].complete)
            wait_until(lambda: listings(job) == STUDIES)
            process.kill()
            process.wait()
        gate.set()
        assert job.rows().keys() == set(names[:INSTANCES])
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 1)
        assert ran.outcomes == {"stored": len(names)}


def another_file(job: Job, name: str) -> None:
    job.write(f"{os.path.dirname(name)}/new.dcm", study=0)


def a_file_gone(job: Job, name: str) -> None:
    (job.archive / name).unlink()


def a_file_renamed(job: Job, name: str) -> None:
    (job.archive / name).rename((job.archive / name).with_name("renamed.dcm"))


def a_file_replaced(job: Job, name: str) -> None:
    """By another of the same size and time stamp, with the old time stamp of the directory."""
    path = job.archive / name
    other = path.with_name("other.tmp")
    other.write_bytes(path.read_bytes()[:-4] + b"abcd")
    os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns + 1))
    other.replace(path)


def a_directory_in_it(job: Job, name: str) -> None:
    directory = os.path.dirname(name)
    job.write(f"{directory}/sub/new.dcm", study=0)


CHANGES: list[tuple[Callable[[Job, str], None], int]] = [
    (another_file, 1),
    (a_file_gone, -1),
    (a_file_renamed, 0),
    (a_file_replaced, 0),
    (a_directory_in_it, 1),
]


class TestADirectoryThatChangedMeanwhile:
    @pytest.mark.parametrize(
        ("change", "more"), CHANGES, ids=[each[0].__name__ for each in CHANGES]
    )
    @pytest.mark.parametrize("restored", [False, True], ids=["", "with its old time stamp"])
    def test_is_listed_again(
        self,
        job: Job,
        names: list[str],
        change: Callable[[Job, str], None],
        more: int,
        *,
        restored: bool,
    ) -> None:
        stop_after(job, 2)
        directory = (job.archive / names[0]).parent
        before = directory.stat().st_mtime_ns
        change(job, names[0])
        if restored:
            os.utime(directory, ns=(before, before))
        ran = job.run(check=False, max_resend="100%")
        assert (ran.exit_code, skipped(ran)) == (0, 1)
        assert ran.summary.files == len(names) + more
        assert set(ran.outcomes) == {"stored"}
        on_disk = {str(path.relative_to(job.archive)) for path in job.archive.rglob("*.dcm")}
        met = {name for name, run_id in seen(ran).items() if run_id == ran.summary.run_id}
        assert met == on_disk
        if change is a_file_replaced:
            assert job.stored(names[0])[-1] == job.sha256(names[0])

    def test_does_not_lose_sight_of_a_file_that_moved_elsewhere(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        stop_after(job, 2)
        (job.archive / names[0]).rename(job.archive / "moved.dcm")
        ran = job.run()
        assert (skipped(ran), ran.outcomes) == (1, {"stored": len(names)})
        assert names[0] not in ran.rows
        assert ran.rows["moved.dcm"].seen_run_id == ran.summary.run_id
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_does_not_count_a_copy_elsewhere_for_its_own(self, job: Job, names: list[str]) -> None:
        """The row of the file in the skipped directory stays where it is, and counts once."""
        stop_after(job, 2)
        copy = job.archive / "zzz" / "copy.dcm"
        copy.parent.mkdir()
        copy.write_bytes((job.archive / names[0]).read_bytes())
        age(copy)
        ran = job.run(check=False)
        assert skipped(ran) == 2
        assert ran.outcomes == {"stored": len(names), "duplicate": 1}
        assert ran.rows["zzz/copy.dcm"].other_file_id == ran.rows[names[0]].file_id

    def test_of_a_file_that_is_gone_it_is_known_until_when_it_was_seen(
        self, job: Job, names: list[str]
    ) -> None:
        stop_after(job, 2)
        assert skipped(stop_after(job, 0)) == 2
        gone = job.archive / names[0]
        gone.unlink()
        age(gone.parent)
        assert skipped(stop_after(job, 0)) == 1
        ran = job.run(check=False)
        assert skipped(ran) == 2
        assert seen(ran) == dict.fromkeys(names, 4) | {names[0]: 2}
        assert ran.summary.files == len(names) - 1


class TestAFileChangedWhereItLies:
    def change(self, job: Job, name: str) -> None:
        path = job.archive / name
        data = path.read_bytes()
        path.write_bytes(data[:-4] + b"abcd")
        age(path, seconds=60)

    def test_is_not_noticed_by_the_run_that_resumes_but_by_the_next(
        self, job: Job, names: list[str]
    ) -> None:
        stop_after(job, 2)
        self.change(job, names[0])
        ran = job.run(check=False)
        assert (ran.exit_code, skipped(ran)) == (0, 2)
        assert job.sha256(names[0]) not in job.stored(names[0])
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 0)
        assert job.stored(names[0])[-1] == job.sha256(names[0])

    def test_is_noticed_with_recheck(self, job: Job, names: list[str]) -> None:
        stop_after(job, 2)
        self.change(job, names[0])
        ran = job.run(recheck=True)
        assert (ran.exit_code, skipped(ran)) == (0, 0)
        assert job.stored(names[0])[-1] == job.sha256(names[0])

    def test_is_noticed_where_its_time_stamp_was_not_to_be_trusted(
        self, job: Job, names: list[str]
    ) -> None:
        (job.archive / names[0]).touch()
        stop_after(job, 2)
        self.change(job, names[0])
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 1)
        assert job.stored(names[0])[-1] == job.sha256(names[0])


class TestADirectoryWithAFileThatIsNotDone:
    @pytest.mark.parametrize("outcome", ["failed", "in_doubt", "unreadable"])
    def test_is_listed_and_the_file_goes_again(
        self, job: Job, server: ScriptedServer, names: list[str], faults: Faults, outcome: str
    ) -> None:
        flags = ["--max-attempts=1", "--max-outage-s=0.1", "--backoff-base-s=0.01"]
        if outcome == "failed":
            server.push(StoreAll(failures={uid_of(names[1]): 0xA700}))
        elif outcome == "in_doubt":
            server.push(StoreAll(only=lambda uid: uid != uid_of(names[1])))
            server.push(StoreAll(only=lambda _uid: False))
        else:
            faults.rule(f"open 13 {names[1]}")
            server.push(StoreAll())
        server.push(AWAY)
        done = run_command(job, *flags, env=faults.environment)
        assert done.returncode == 1
        assert job.rows()[names[1]].outcome == outcome
        faults.rule()
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 0)
        assert ran.outcomes == {"stored": len(names)}

    def test_is_listed_when_a_settled_outcome_is_to_be_sent_again(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        server.push(StoreAll(failures={uid_of(names[1]): 0xC122}), StoreAll(), AWAY)
        assert job.run(check=False).outcomes["rejected"] == 1
        ran = job.run(retry="rejected")
        assert (ran.exit_code, skipped(ran)) == (0, 1)
        assert ran.outcomes == {"stored": len(names)}


class TestSourcesGivenInAnotherWay:
    def test_with_a_name_and_another_path_its_directories_are_known(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        server.push(StoreAll(), AWAY)
        done = run_command(job, "--root", f"pacs={job.archive}", source=False)
        assert done.returncode == 1
        elsewhere = job.archive.with_name("elsewhere")
        job.archive.rename(elsewhere)
        done = run_command(job, "--root", f"pacs={elsewhere}", "--json", source=False)
        summary = json.loads(done.stdout)
        assert summary["skipped_directories"] == 1
        assert summary["outcomes"]["stored"] == summary["files"] == len(names)

    def test_another_directory_at_the_same_path_is_listed(self, job: Job, names: list[str]) -> None:
        """With as many files, of the same names and time stamps."""
        stop_after(job, 2)
        (job.archive / "000").rename(job.archive / "t")
        (job.archive / "001").rename(job.archive / "000")
        (job.archive / "t").rename(job.archive / "001")
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 0)
        assert set(ran.outcomes) <= {"stored", "duplicate"}
        assert ran.summary.files == len(names)

    @pytest.mark.parametrize("other", [".", "000"])
    def test_nested_ones_are_one(self, job: Job, names: list[str], other: str) -> None:
        stop_after(job, 2)
        done = run_command(job, job.archive / other, "--json")
        summary = json.loads(done.stdout)
        assert summary["skipped_directories"] == 2
        assert summary["outcomes"]["stored"] == summary["files"] == len(names)

    def test_a_part_of_what_was_loaded_before(
        self, job: Job, server: ScriptedServer, names: list[str]
    ) -> None:
        """It is a root of its own, of which nothing is known; what it has is not sent again."""
        stop_after(job, 2)
        ran = job.run(source="000", check=False)
        assert (ran.exit_code, skipped(ran)) == (0, 0)
        assert ran.summary.files == INSTANCES
        ran = job.run()
        assert (ran.exit_code, skipped(ran)) == (0, 0)  # the run before had ended
        assert ran.summary.files == ran.outcomes["stored"] == len(names)
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_a_results_file_of_the_run_before_is_met_by_one_that_writes_another(
        self, job: Job, tmp_path: Path
    ) -> None:
        job.write_studies(2)
        own = job.archive / "000" / "results.jsonl"
        own.touch()
        age(own.parent)
        job.server.push(StoreAll(), AWAY)
        assert run_command(job, f"--results={own}").returncode == 1
        age(own.parent)
        done = run_command(job, f"--results={tmp_path / 'other.jsonl'}", "--json")
        summary = json.loads(done.stdout)
        assert summary["skipped_directories"] == 0
        assert (summary["files"], summary["outcomes"]["not_dicom"]) == (3, 1)


def command(job: Job, *flags: object, source: bool = True) -> list[str]:
    """On the archive of a job, one reader and one request at a time, when all is listed."""
    return [
        "run", *([str(job.archive)] if source else []), "--url", job.server.url,
        "--journal", str(job.journal), "--readers=1", "--max-concurrency=1", "--batch-age-s=60",
        *map(str, flags),
    ]  # fmt: skip


def run_command(job: Job, *flags: object, source: bool = True, env: object = None) -> Completed:
    with start_ingester(*command(job, *flags, source=source), env=env) as process:  # type: ignore[arg-type]
        return process.wait()


def outcomes(job: Job) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in job.rows().values():
        counts[row.outcome.value] = counts.get(row.outcome.value, 0) + 1
    return counts


def listings(job: Job) -> int:
    connection = apsw.Connection(str(job.journal), flags=apsw.SQLITE_OPEN_READONLY)
    count = connection.execute("SELECT count(listed_run_id) FROM directories").get
    connection.close()
    assert isinstance(count, int)
    return count

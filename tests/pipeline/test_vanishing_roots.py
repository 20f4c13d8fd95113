"""A root that is not there any more is not an archive without files: exit 1, the rest pending."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.job import Job, Ran
from tests.support.scripted import ScriptedServer

Vanish = Callable[[], None]


@pytest.fixture(params=["unmounted", "renamed"])
def vanish(request: pytest.FixtureRequest, job: Job) -> Iterator[Vanish]:
    """Takes the archive of the job away, from under the run."""
    if request.param == "renamed":
        yield moving(job)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "archive", str(job.archive)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing may be mounted here: {mounted.stderr.decode().strip()}")
    yield lambda: unmount(job.archive)
    unmount(job.archive)


def elsewhere(job: Job) -> Path:
    """Where a directory of the archive, or the whole, is moved to."""
    return job.archive.with_name("elsewhere")


def moving(job: Job, name: str = "") -> Vanish:
    """Has it moved away."""

    def move() -> None:
        (job.archive / name).rename(elsewhere(job))

    return move


def unmount(path: Path) -> None:
    """Lazily, as a network file system that is taken away with files open."""
    subprocess.run(["umount", "-l", path], capture_output=True, check=False)


def run_until_it_vanishes(
    job: Job, server: ScriptedServer, vanish: Vanish, **options: object
) -> Ran:
    """It vanishes while the first request waits for its answer."""
    gone: list[int] = []

    def before(number: int) -> None:
        if not gone:
            gone.append(number)
            vanish()

    server.before_answer(before)
    return job.run(options, check=False)


class TestARootThatVanishes:
    def test_while_it_is_scanned_leaves_its_files_pending(
        self, job: Job, server: ScriptedServer, vanish: Vanish
    ) -> None:
        job.write_many(5000)  # readers, queue and group hold some 2,500 at most
        ran = run_until_it_vanishes(
            job, server, vanish, max_batch_instances=2, max_open_instances=10
        )
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert ran.cause.message == f"a source vanished during the run: {job.archive}"
        assert set(ran.outcomes) == {"stored", "pending"}
        assert sum(ran.outcomes.values()) == 5000
        assert ran.outcomes["pending"] > 2000

    def test_before_its_files_are_sent_leaves_them_pending(
        self, job: Job, server: ScriptedServer, vanish: Vanish
    ) -> None:
        job.write("0/first.dcm", study="first")
        job.write_many(20, prefix="1/")
        ran = run_until_it_vanishes(job, server, vanish, inline_limit="1", batch_age_s=0.01)
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert "vanished" in ran.cause.message
        assert ran.outcomes == {"stored": 1, "pending": 20}

    def test_is_loaded_when_it_is_back(self, job: Job, server: ScriptedServer) -> None:
        job.write("0/first.dcm", study="first")
        job.write_many(20, prefix="1/")
        ran = run_until_it_vanishes(job, server, moving(job), inline_limit="1")
        assert ran.exit_code == 1
        elsewhere(job).rename(job.archive)
        server.before_answer(lambda _number: None)
        again = job.run()
        assert again.exit_code == 0
        assert again.outcomes == {"stored": 21}
        assert all(len(copies) == 1 for copies in server.stored.values())


class TestADirectoryThatVanishes:
    def test_costs_its_files_only(self, job: Job, server: ScriptedServer) -> None:
        """The root is there: what was in the directory is unreadable, the rest is stored."""
        job.write("0/first.dcm", study="first")
        job.write_many(5, prefix="1/")
        job.write_many(5, prefix="2/", study="second")
        move = moving(job, "1")
        ran = run_until_it_vanishes(job, server, move, inline_limit="1", batch_age_s=0.01)
        assert ran.exit_code == 3
        assert ran.outcomes == {"stored": 6, "unreadable": 5}
        assert {row.reason_code for name, row in ran.rows.items() if name.startswith("1/")} == {
            "vanished"
        }

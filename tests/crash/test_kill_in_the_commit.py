"""A disk that is slow to say that it has written, and a SIGKILL while it is asked."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.crash.job import NEVER, Job
from tests.support.faults import Faults
from tests.support.process import Process


def wait_until_it_hangs(process: Process, faults: Faults) -> None:
    """Or has ended, because it never came so far."""
    while process.running and not faults.happened:
        time.sleep(0.002)


class TestASigkillInsideFsync:
    @pytest.mark.parametrize("file", ["", "-wal", ".announced"])
    def test_loses_nothing_and_the_same_command_completes_the_job(
        self, commit_seed: int, job: Job, faults: Faults, file: str
    ) -> None:
        """The n-th fsync of the journal hangs, and the process is killed in it.

        The first ones are those that make it; the last one may be that of the checkpoint. Where
        commits hang alone, batches are announced meanwhile; where announcements do, the answers to
        those before are committed.
        """
        chance = random.Random(f"commit {commit_seed} {file}")
        number = chance.choice([chance.randint(1, 8), chance.randint(8, 40)])
        faults.rule(f"sync from:{number}:hang {job.journal.name}{file}")
        job.environment = dict(faults.environment)
        with job.start() as process:
            wait_until_it_hangs(process, faults)
            time.sleep(chance.uniform(0, 0.05))  # answers come in that nobody can commit
            process.kill()
            ended = process.wait()
        job.ended(ended, 0)
        assert (ended.returncode == -signal.SIGKILL) is bool(faults.happened), ended.stderr
        job.check()
        in_flight = job.in_flight()
        faults.rule()
        job.finish()
        doubles = {key for key, digests in job.stored().items() if len(digests) > 1}
        assert doubles <= in_flight

    def test_finds_that_nothing_was_sent_before_it_was_written_down(
        self, some_seed: int, job: Job, faults: Faults
    ) -> None:
        """Its record is in the file, and in no kernel's promise yet."""
        del some_seed
        # The first is that of the file when it is made.
        faults.rule(f"sync from:2:hang {job.journal.name}.announced")
        job.environment = dict(faults.environment)
        with job.start() as process:
            wait_until_it_hangs(process, faults)
            assert faults.happened
            time.sleep(0.3)  # what may go out all the same has the time to
            process.kill()
            process.wait()
        assert Path(f"{job.journal}.announced").stat().st_size > 0
        assert job.server.posts == []


class TestASlowDisk:
    @pytest.mark.parametrize("slow_ms", [20, 300])
    def test_costs_time_and_after_a_sigkill_nothing_else(
        self, slow_ms: int, some_seed: int, job: Job, faults: Faults
    ) -> None:
        del some_seed
        faults.rule(f"sync slow:{slow_ms} {job.journal.name}")
        job.environment = dict(faults.environment)
        assert job.kill_at(job.moment(certain=True))
        assert faults.happened
        in_flight = job.in_flight()
        job.finish()
        doubles = {key for key, digests in job.stored().items() if len(digests) > 1}
        assert doubles <= in_flight

    def test_and_a_run_that_nobody_stops_sends_each_instance_once(
        self, some_seed: int, job: Job, faults: Faults
    ) -> None:
        del some_seed
        faults.rule(f"sync slow:20 {job.journal.name}")
        job.environment = dict(faults.environment)
        assert job.run(NEVER, Process.kill).returncode == 3
        job.check()
        assert all(len(digests) == 1 for digests in job.stored().values())

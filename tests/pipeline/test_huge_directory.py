"""A directory is never listed to its end before its first file goes out."""

from __future__ import annotations

import json
import threading

import pytest

from benchmarks.memory import write_many
from tests.pipeline.job import Job
from tests.support.process import start_ingester
from tests.support.scripted import ScriptedServer, StoreAll, Wait

ENTRIES = 30_000
LIMIT_MIB = 200


class TestADirectoryOfVeryManyFiles:
    @pytest.mark.timeout(300)
    def test_is_loaded_while_it_is_listed(self, job: Job, server: ScriptedServer) -> None:
        """The first request waits for its answer, and so does the walk, with most still to meet."""
        write_many(str(job.archive), ENTRIES)
        gate = threading.Event()
        server.push(Wait(gate))
        server.default = StoreAll()
        flags = ("--max-concurrency=1", "--max-open-instances=1000", "--progress-interval-s=0.05")
        with start_ingester(
            "run", job.archive, "--json", "--url", server.url, "--journal", job.journal, *flags
        ) as process:
            server.wait_until(lambda: bool(server.posts) and server.posts[0].complete, 60)
            seen = process.stderr_so_far().count("progress ")
            while process.stderr_so_far().count("progress ") < seen + 3:
                assert process.running
            *_, last = process.stderr_so_far().split("progress ")[:-1]
            gate.set()
            ended = process.wait(200)
        assert "known=discovering" in last
        assert int(last.split(" met=")[1].split()[0]) < ENTRIES // 3
        assert ended.returncode == 0, ended.stderr
        summary = json.loads(ended.stdout)
        assert summary["outcomes"]["stored"] == summary["files"] == ENTRIES
        assert summary["peak_rss_mib"] < LIMIT_MIB

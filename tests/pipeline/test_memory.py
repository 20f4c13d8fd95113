"""What a small memory costs: never a file, and of studies that come one by one no second reading."""

from __future__ import annotations

import sys

import pytest

from tests.pipeline.job import Job
from tests.support.faults import Faults
from tests.support.process import start_ingester
from tests.support.scripted import ScriptedServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the library is made for Linux")

STUDIES = 40
FILES = 10
PAYLOAD_BYTES = 40_000


@pytest.mark.parametrize("processes", [0, 1])
def test_studies_in_directories_of_their_own_are_opened_once(
    job: Job, server: ScriptedServer, faults: Faults, processes: int
) -> None:
    """Of each study a batch goes out and four files are left, for which nothing more will come."""
    for study in range(STUDIES):
        for number in range(FILES):
            job.write(f"{study:02d}/{number}.dcm", study=str(study), payload_bytes=PAYLOAD_BYTES)
    faults.rule("open slow:0 .dcm")  # to be counted
    with start_ingester(
        "run", job.archive, "--json", "--url", server.url, "--journal", job.journal,
        "--memory-budget=1MiB", "--max-batch-bytes=256KiB", f"--scan-processes={processes}",
        "--idle-slot-s=60", "--batch-age-s=60",
        env={**faults.environment, "INGESTER_READERS": "1"},
    ) as process:  # fmt: skip
        ended = process.wait()
    assert ended.returncode == 0, ended.stderr
    assert faults.count("open", ".dcm") == STUDIES * FILES
    assert len(server.posts) == 2 * STUDIES
    assert sum(map(len, server.stored.values())) == STUDIES * FILES


def test_studies_spread_over_all_directories_are_not_sent_in_pairs(
    job: Job, server: ScriptedServer
) -> None:
    """What is open crowds the memory, but each study comes back in the next directory."""
    directories, payload_bytes = 24, 8_000
    for directory in range(directories):
        for study in range(STUDIES):
            for number in range(2):
                name = f"{directory:02d}/{study:02d}-{number}.dcm"
                job.write(name, study=study, payload_bytes=payload_bytes)
    ran = job.run(
        memory_budget=1 << 20, max_batch_bytes=12 * (payload_bytes + 1_000), max_concurrency=4
    )
    files = STUDIES * directories * 2
    assert ran.outcomes == {"stored": files}
    once_too_early = STUDIES + STUDIES // 2  # of all, and until it shows
    assert len(server.posts) <= files // 12 + once_too_early

"""What a failed attempt leaves holds no file and no piece: collections are rare in a run.

A hundred at once would be a hundred open files, and as many MiB.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingester.arena import Region
from ingester.files import PIECE_BYTES
from tests.pipeline.job import Job
from tests.pipeline.test_changed_files import append, overwrite_the_end, vanish
from tests.support.scripted import Reset, ScriptedServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held(directory: Path) -> tuple[list[str], int]:
    """The files of a directory that are open, and how much memory for bytes there is."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    names = [os.readlink(link) for link in links if os.path.lexists(link)]
    regions = [one for one in gc.get_objects() if isinstance(one, Region)]
    return [name for name in names if name.startswith(str(directory))], sum(map(len, regions))


@pytest.mark.parametrize("change", [append, overwrite_the_end, vanish], ids=lambda c: c.__name__)
@pytest.mark.parametrize("payload_bytes", [300, 1_200_000])
def test_by_files_that_changed(
    job: Job, server: ScriptedServer, change: Callable[[Path], None], payload_bytes: int
) -> None:
    job.write("0/first.dcm", study="first")
    names = [f"1/{number}.dcm" for number in range(6)]
    for name in names:
        job.write(name, study=name, payload_bytes=payload_bytes)

    def before(number: int) -> None:
        if number == 1:
            for name in names:
                change(job.archive / name)

    server.before_answer(before)
    ran = job.run(inline_limit="1", check=False)
    assert held(job.archive) == ([], 0)
    assert ran.outcomes == {"stored": 1, "unreadable": 6}


def test_by_requests_that_broke_off(job: Job, server: ScriptedServer) -> None:
    job.write("0.dcm", payload_bytes=8_000_000)
    for after_bytes in (1, 300_000, 1_500_000, 5_000_000):
        server.push(Reset(after_bytes))
    ran = job.run()
    files, size = held(job.archive)
    assert (files, size <= PIECE_BYTES) == ([], True), size  # the worker's own, to be used again
    assert ran.outcomes == {"stored": 1}
    assert len(server.posts) == 5

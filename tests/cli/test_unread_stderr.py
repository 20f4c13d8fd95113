"""A pipe on stderr that nobody reads, as of a parent that only waits: the run goes on without."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dicom_files import write_corpus
from tests.support.process import clean_environment
from tests.support.scripted import ScriptedServer, StoreAll, Wait

FILLING = "x" * 2 * select.PIPE_BUF
PROGRESS = ("--progress-interval-s", "0.002")


class UnreadPipe:
    """One that takes a page or two and no more; ``full`` from the start."""

    def __init__(self, *, full: bool) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, len(FILLING))
        if full:
            os.write(self.writer, FILLING.encode())

    @property
    def is_full(self) -> bool:
        return not select.select([], [self.writer], [], 0)[1]

    def read(self) -> str:
        """All that was written; nobody may write any more."""
        os.close(self.writer)
        self.writer = -1
        said = b""
        while piece := os.read(self.reader, 65536):
            said += piece
        return said.decode()

    def close(self) -> None:
        os.close(self.reader)
        if self.writer >= 0:
            os.close(self.writer)


@contextmanager
def unread(*, full: bool = False) -> Iterator[UnreadPipe]:
    pipe = UnreadPipe(full=full)
    try:
        yield pipe
    finally:
        pipe.close()


@contextmanager
def ingester(
    pipe: UnreadPipe, directory: Path, *arguments: str | Path
) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingester", *arguments], cwd=directory, env=clean_environment(),
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=pipe.writer, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three studies of four instances."""
    write_corpus(tmp_path / "archive", studies=3, instances_per_study=4)
    return tmp_path


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes have one size here")
class TestAnUnreadStderr:
    def test_takes_whole_lines_and_then_no_more(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        server.default = Wait(0.05, StoreAll())
        one_by_one = ("--max-batch-instances", "1", "--max-concurrency", "1")
        with unread() as pipe:
            run = ("run", "archive", "--url", server.url, *PROGRESS, *one_by_one)
            with ingester(pipe, archive, *run) as process:
                assert process.wait(60) == 0
            assert pipe.is_full
            lines = pipe.read().splitlines(keepends=True)
        assert len("".join(lines)) > select.PIPE_BUF
        assert all(line.startswith("progress elapsed_s=") for line in lines)
        assert all(line.endswith("\n") for line in lines)
        assert (archive / "stdout").read_text().startswith("12 files: stored 12\n")

    def test_does_not_hold_up_what_is_told_once(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        refused = iter([0xC122])
        server.default = StoreAll(failures=lambda _: next(refused, None))
        with unread(full=True) as pipe:
            run = ("run", "archive", "--url", server.url, *PROGRESS)
            with ingester(pipe, archive, *run) as process:
                assert process.wait(60) == 3
            assert pipe.read() == FILLING

    def test_does_not_hold_up_a_signal(self, archive: Path, server: ScriptedServer) -> None:
        server.default = Wait(0.2, StoreAll())
        one_by_one = ("--max-batch-instances", "1", "--max-concurrency", "1")
        with unread(full=True) as pipe:
            run = ("run", "archive", "--url", server.url, *PROGRESS, *one_by_one)
            with ingester(pipe, archive, *run) as process:
                server.wait_until(lambda: server.answers >= 2)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 143

    def test_does_not_hold_up_the_end(self, archive: Path) -> None:
        """What a person has to know waits for a while, and is passed over then."""
        with unread(full=True) as pipe:
            with ingester(pipe, archive, "run", "archive") as process:
                assert process.wait(60) == 2
            assert pipe.read() == FILLING

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.journal import iter_files, read_status
from tests.unit.journal.made import Session, recount

REPOSITORY = Path(__file__).parents[3]


def start(path: str, seed: int, limit: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.journal.crasher", path, str(seed), str(limit)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class TestAKilledRun:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_loses_nothing_that_was_acknowledged_and_its_totals_are_a_recount(
        self,
        path: str,
        seed: int,
    ) -> None:
        said: dict[int, str] = {}
        for kill in range(2):
            with start(path, seed * 10 + kill) as process:
                assert process.stdout is not None
                for _ in range(700 * seed + 1500 * kill):
                    words = process.stdout.readline().split()
                    said[int(words[0])] = words[1].decode()
                process.kill()
                # What it said before it died counts; a torn last line does not.
                rest = process.stdout.read().split(b"\n")[:-1]
                said.update((int(line.split()[0]), line.split()[1].decode()) for line in rest)
            recount(path)
            assert read_status(path).pid is None
        rows = {row.file_id: row.outcome.value for row in iter_files(path)}
        assert {file_id: rows.get(file_id) for file_id in said} == said

    def test_leaves_a_journal_that_the_next_run_goes_on_with(self, path: str) -> None:
        with start(path, 5) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        session = Session(path)
        assert session.run_id == 2
        session.end()
        recount(path)
        first = apsw.Connection(path).execute("SELECT finished_at FROM runs WHERE run_id = 1").get
        assert first is None


class TestAFullDisk:
    def test_stops_the_writer_with_one_line_and_claims_nothing_after_it(self, path: str) -> None:
        with start(path, 7, limit=400_000) as process:
            out, err = process.communicate()
        assert process.returncode == 1
        message = err.decode().splitlines()
        assert message[0].startswith("the journal cannot be written: ")
        assert "the same command" in message[1]
        said = dict(line.split() for line in out.decode().splitlines())
        recount(path)
        rows = {str(row.file_id): row.outcome for row in iter_files(path)}
        assert said
        assert {file_id: Outcome(word) for file_id, word in said.items()} == rows


class TestAProcessThatEndsWithoutClosing:
    def test_does_not_hang(self, path: str) -> None:
        script = (
            "from tests.unit.journal.made import Session, stored\n"
            f"session = Session({path!r})\n"
            "session.journal.record(stored(session.ref(b'a')))\n"
        )
        subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, timeout=60)
        recount(path)

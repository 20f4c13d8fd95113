"""What was answered and is not committed: the other half of what is in flight."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from ingester.journal import iter_files
from ingester.journal.writer import MAX_UNCOMMITTED_CALLS
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.journals import Locked, copy_journal
from tests.support.process import Process, run_ingester, start_ingester
from tests.support.scripted import ScriptedServer

CONCURRENCY = 4
LOCKED_AT = 10


@dataclass(frozen=True, slots=True)
class Stalled:
    """A run whose journal cannot commit; the SOP Instance UIDs of what it knows."""

    process: Process
    committed: set[str]  # as stored
    announced: set[str]  # and not committed


@contextmanager
def stalled(server: ScriptedServer, arguments: list[str], journal: Path) -> Iterator[Stalled]:
    """From the tenth answer on; then batches go out as long as their results have room."""
    locks: list[Locked] = []
    held = threading.Event()

    def lock(number: int) -> None:
        if number == LOCKED_AT:
            locks.append(Locked(journal))
            locks[0].begin()
            held.set()
        elif number > LOCKED_AT:
            held.wait(60)  # the journal's writer is quick: or all is done before it is locked out

    server.before_answer(lock)
    with start_ingester(*arguments) as process:
        try:
            assert held.wait(60)
            copied = copy_journal(journal, journal.parent / "locked")
            assert copied is not None
            committed = {row.sop_instance_uid for row in copied.rows() if row.evidence}
            server.wait_until(lambda: server.answers >= len(committed) + MAX_UNCOMMITTED_CALLS)
            time.sleep(0.3)  # what may go out on top of that has the time to
            assert process.running
            copied = copy_journal(journal, journal.parent / "stalled")
            assert copied is not None
            yield Stalled(process, committed, copied.known_to_be_sent() - committed)
        finally:
            for each in locks:
                each.end()
            process.wait()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Each instance is a request of its own below."""
    return write_corpus(tmp_path / "archive", 4, 60, 128)


def arguments(corpus: Corpus, server: ScriptedServer, directory: Path) -> list[str]:
    """One instance a request."""
    return [
        "run",
        str(corpus.root),
        f"--url={server.url}",
        f"--journal={directory / 'journal.db'}",
        f"--results={directory / 'results.jsonl'}",
        f"--max-concurrency={CONCURRENCY}",
        "--max-batch-instances=1",
    ]


class TestWhileTheJournalCannotCommit:
    def test_sending_stops_and_nothing_is_told_and_after_a_kill_nothing_is_lost(
        self, tmp_path: Path, server: ScriptedServer, corpus: Corpus
    ) -> None:
        journal, results = tmp_path / "journal.db", tmp_path / "results.jsonl"
        with stalled(server, arguments(corpus, server, tmp_path), journal) as run:
            told = results.read_text().splitlines()
            run.process.kill()
        assert {json.loads(line)["sop_instance_uid"] for line in told} == run.committed
        in_flight = server.stored.keys() - run.committed
        assert server.stored.keys() >= run.committed
        assert in_flight <= run.announced
        assert len(run.announced - in_flight) <= 2 * CONCURRENCY + 1  # in the channel, at its doors
        assert 0 < len(in_flight) <= MAX_UNCOMMITTED_CALLS + CONCURRENCY
        server.before_answer(lambda _number: None)

        assert run_ingester(*arguments(corpus, server, tmp_path)).returncode == 0
        assert server.stored.keys() == corpus.sop_instance_uids
        doubles = {sop for sop, digests in server.stored.items() if len(digests) > 1}
        assert doubles == in_flight
        for sop, digests in server.stored.items():
            assert set(digests) == {corpus.sha256_by_sop[sop]}

    def test_it_goes_on_when_the_journal_can_and_nothing_is_sent_twice(
        self, tmp_path: Path, server: ScriptedServer, corpus: Corpus
    ) -> None:
        journal = tmp_path / "journal.db"
        with stalled(server, arguments(corpus, server, tmp_path), journal) as run:
            assert len(server.stored) < len(corpus)
        assert run.process.wait().returncode == 0
        assert {sop: [sha] for sop, sha in corpus.sha256_by_sop.items()} == server.stored
        rows = list(iter_files(str(tmp_path / "journal.db")))
        assert {row.sop_instance_uid for row in rows} == corpus.sop_instance_uids
        assert {row.outcome.value for row in rows} == {"stored"}
        assert len((tmp_path / "results.jsonl").read_text().splitlines()) == len(corpus)


class TestAResultsLine:
    def test_is_never_there_before_its_commit(
        self, tmp_path: Path, server: ScriptedServer, corpus: Corpus
    ) -> None:
        """Looked at as often as can be, and between any two answers.

        The file first, then what is committed.
        """
        journal, results = tmp_path / "journal.db", tmp_path / "results.jsonl"
        looks: set[int] = set()
        looked = threading.Event()

        def wait_for_a_look(_number: int) -> None:
            looked.clear()
            looked.wait(60)

        server.before_answer(wait_for_a_look)
        with start_ingester(*arguments(corpus, server, tmp_path)) as process:
            server.wait_until(lambda: server.answers > 0)
            connection = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)
            connection.set_busy_timeout(60_000)
            lines = 0
            while lines < len(corpus):
                lines = results.read_bytes().count(b"\n")
                committed = connection.execute("SELECT count(*) FROM files").get
                assert lines <= committed
                looks.add(lines)
                looked.set()
            connection.close()
            assert process.wait().returncode == 0
        assert len(looks) >= len(corpus) // (MAX_UNCOMMITTED_CALLS + CONCURRENCY)

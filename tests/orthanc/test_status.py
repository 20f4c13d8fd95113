"""`status`, while a run is going on and after it."""

import json
import signal
import threading
from pathlib import Path

import pytest

from ingester.journal import iter_files
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.process import Process, run_ingester, start_ingester
from tests.support.scripted import NeverAnswer, ScriptedServer, StoreAll, Wait
from tests.support.waiting import wait_until


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Four requests of ten instances."""
    return write_corpus(tmp_path / "archive", 4, 10, 128)


def start(corpus: Corpus, server: ScriptedServer, journal: Path) -> Process:
    """One request at a time."""
    return start_ingester(
        "run", corpus.root, f"--url={server.url}", f"--journal={journal}", "--max-concurrency=1"
    )


def wait_for_commit(journal: Path) -> None:
    """Returns when a file has an end in it."""
    wait_until(lambda: list(iter_files(str(journal))))


class TestStatusWhileARunIsGoingOn:
    def test_says_so_and_what_is_committed(
        self, corpus: Corpus, server: ScriptedServer, tmp_path: Path
    ) -> None:
        journal, goes_on = tmp_path / "journal.db", threading.Event()
        server.push(StoreAll())
        server.default = Wait(goes_on)
        with start(corpus, server, journal) as process:
            server.wait_until(lambda: len(server.posts) == 2)
            wait_for_commit(journal)
            status = json.loads(run_ingester("status", "--journal", journal, "--json").stdout)
            assert status["live"] is True
            assert status["pid"] == process.pid
            assert status["run"]["finished_at"] is None
            assert status["run"]["exit_code"] is None
            assert status["outcomes"] == {"stored": 10}
            told = run_ingester("status", "--journal", journal)
            assert told.returncode == 0
            assert f"going on (process {process.pid})" in told.stdout
            study = next(one.study for one in corpus if one.sop in server.stored)
            one = run_ingester("status", "--journal", journal, "--study", study)
            assert one.returncode == 0, one.stderr
            goes_on.set()
            assert process.wait().returncode == 0
        after = json.loads(run_ingester("status", "--journal", journal, "--json").stdout)
        assert (after["live"], after["pid"]) == (False, None)
        assert after["run"]["exit_code"] == 0
        assert after["outcomes"] == {"stored": 40}

    def test_a_second_run_on_its_journal_is_refused_and_harms_nothing(
        self, corpus: Corpus, server: ScriptedServer, tmp_path: Path
    ) -> None:
        journal, goes_on = tmp_path / "journal.db", threading.Event()
        server.default = Wait(goes_on)
        with start(corpus, server, journal) as process:
            server.wait_until(lambda: len(server.posts) == 1)
            with start(corpus, server, journal) as second:
                refused = second.wait()
            assert refused.returncode == 1
            assert str(process.pid) in refused.stderr
            goes_on.set()
            assert process.wait().returncode == 0
        assert {sop: [sha] for sop, sha in corpus.sha256_by_sop.items()} == server.stored


class TestStatusOfARunThatWasKilled:
    def test_says_that_it_was_and_that_it_can_be_resumed(
        self, corpus: Corpus, server: ScriptedServer, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal.db"
        server.push(StoreAll())
        server.default = NeverAnswer()
        with start(corpus, server, journal) as process:
            server.wait_until(lambda: len(server.posts) == 2)
            process.kill()
            assert process.wait().returncode == -signal.SIGKILL
        status = json.loads(run_ingester("status", "--journal", journal, "--json").stdout)
        assert (status["live"], status["pid"]) == (False, None)
        assert status["run"]["exit_code"] is None
        told = run_ingester("status", "--journal", journal).stdout
        assert "did not come to its end; the same command resumes it" in told

"""A journal that cannot be used, or is not all there: what the command says, and what it sends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.journal import iter_files
from ingester.journal.schema import SCHEMA_VERSION
from tests.support.command import Command
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.faults import Faults
from tests.support.journals import take_back
from tests.support.mounts import Mounted, tmpfs
from tests.support.process import Completed, start_ingester
from tests.support.scripted import ScriptedServer

HEADER = 32  # bytes of a WAL before its frames; see the file format of SQLite, 4.1
FRAME = 24  # bytes of a frame before its page
PAGE = 4096


def refused(command: Command, words: str, exit_code: int = 1) -> Completed:
    """The command ends at once, with one line of what happened and one of what to do."""
    with command.start() as process:
        ended = process.wait()
    assert_refused(ended, words, exit_code)
    return ended


def assert_refused(ended: Completed, words: str, exit_code: int = 1) -> None:
    assert ended.returncode == exit_code, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("progress ")]
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("ingester: ")
    assert words in lines[0]
    assert lines[1].startswith("  hint: ")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Each study is a request of its own."""
    return write_corpus(tmp_path / "archive", 40, 3, 128)


@pytest.fixture
def command(tmp_path: Path, server: ScriptedServer, corpus: Corpus) -> Command:
    return Command(corpus.root, server.url, tmp_path / "journal")


@dataclass(slots=True)
class Left:
    """What a run that was killed has left: a database and a WAL."""

    command: Command
    server: ScriptedServer
    corpus: Corpus

    @property
    def wal(self) -> Path:
        return Path(f"{self.command.journal}-wal")

    def assert_completes(self) -> None:
        """The same command does the rest: nothing is missing and nothing is claimed falsely."""
        run = self.command.run()
        assert run.exit_code == 0, run.ended.stderr
        assert run.outcomes == {"stored": len(self.corpus)}
        assert self.server.stored.keys() == self.corpus.sop_instance_uids
        for sop, digests in self.server.stored.items():
            assert set(digests) == {self.corpus.sha256_by_sop[sop]}

    def assert_refused_or_completes(self) -> str:
        """It says that the journal is damaged, or can do without what is damaged."""
        with self.command.start() as process:
            ended = process.wait()
        if ended.returncode == 0:
            assert self.server.stored.keys() == self.corpus.sop_instance_uids
            return "completes"
        assert_refused(ended, "the journal cannot be ")
        assert "damaged" in ended.stderr or "not an ingester journal" in ended.stderr, ended.stderr
        return "refused"


@pytest.fixture
def left(command: Command, server: ScriptedServer, corpus: Corpus) -> Left:
    """A run is killed at its thirtieth answer."""
    with command.start() as process:
        server.before_answer(lambda number: process.kill() if number == 30 else None)
        assert process.wait().returncode == -signal.SIGKILL
    server.before_answer(lambda _number: None)
    made = Left(command, server, corpus)
    assert made.wal.stat().st_size > HEADER + 10 * (FRAME + PAGE)
    return made


def frames(wal: Path) -> list[bool]:
    """Of each frame, whether it ends a commit."""
    data = wal.read_bytes()
    return [
        struct.unpack_from(">I", data, at + 4)[0] > 0
        for at in range(HEADER, len(data) - FRAME, FRAME + PAGE)
    ]


class TestATornWal:
    @pytest.mark.parametrize(
        "within", [0, 1, 8, FRAME, FRAME + 1, FRAME + PAGE // 2, FRAME + PAGE - 1]
    )
    @pytest.mark.parametrize("ends_commit", [True, False])
    def test_is_cut_where_the_last_whole_commit_ends(
        self, within: int, ends_commit: bool, left: Left
    ) -> None:
        found = [n for n, ends in enumerate(frames(left.wal)) if ends is ends_commit]
        number = found[len(found) * 2 // 3]
        os.truncate(left.wal, HEADER + number * (FRAME + PAGE) + within)
        left.assert_completes()

    @pytest.mark.parametrize("size", [0, 1, HEADER - 1, HEADER])
    def test_in_its_header_is_as_none(self, size: int, left: Left) -> None:
        os.truncate(left.wal, size)
        left.assert_completes()

    @pytest.mark.parametrize("offset", [0, 12, HEADER + 5, HEADER + FRAME + 100, -1, -PAGE - 1])
    def test_with_garbage_in_it_ends_before_that(self, offset: int, left: Left) -> None:
        """As when the last blocks did not reach the disk: each frame has a checksum."""
        data = bytearray(left.wal.read_bytes())
        data[offset] ^= 0xFF
        left.wal.write_bytes(data)
        left.assert_completes()


class TestATornJournal:
    @pytest.mark.parametrize("keep", [2, 50, 99, 100, PAGE - 1, PAGE, -PAGE, -PAGE - 7])
    def test_is_refused(self, keep: int, left: Left) -> None:
        taken_over(left.command.journal)
        size = left.command.journal.stat().st_size
        os.truncate(left.command.journal, keep if keep > 0 else size + keep)
        assert left.assert_refused_or_completes() == "refused"

    @pytest.mark.parametrize("size", [0, 1])
    def test_of_which_nothing_is_left_begins_anew(self, size: int, left: Left) -> None:
        """As one whose maker was killed at once: all is sent again, nothing is lost.

        To SQLite one byte is nothing, too.
        """
        taken_over(left.command.journal)
        os.truncate(left.command.journal, size)
        left.assert_completes()

    def test_with_garbage_in_the_middle_of_any_page_never_ends_in_a_traceback(
        self, some_seed: int, left: Left, tmp_path: Path
    ) -> None:
        journal = left.command.journal
        taken_over(journal)
        whole = tmp_path / "whole.db"
        shutil.copyfile(journal, whole)
        shutil.copyfile(f"{journal}.announced", f"{whole}.announced")
        chance = random.Random(some_seed)
        pages = whole.stat().st_size // PAGE
        for page in chance.sample(range(pages), min(pages, 8)):
            data = bytearray(whole.read_bytes())
            at = page * PAGE + chance.randrange(PAGE // 2)
            data[at : at + 600] = chance.randbytes(600)
            journal.write_bytes(data)
            shutil.copyfile(f"{whole}.announced", f"{journal}.announced")
            left.assert_refused_or_completes()


class TestABackupOfAJournal:
    def test_without_what_was_being_sent_is_refused_until_that_is_said_to_be_lost(
        self, left: Left
    ) -> None:
        announced = Path(f"{left.command.journal}.announced")
        announced.unlink()
        left.server.settle()
        requests = len(left.server.requests)
        refused(left.command, f"cannot be opened without what its run was sending: {announced}")
        assert len(left.server.requests) == requests
        announced.touch()
        left.assert_completes()


def taken_over(journal: Path) -> None:
    """What is in the WAL goes to the database, and the WAL goes away."""
    connection = apsw.Connection(str(journal))
    connection.execute("SELECT count(*) FROM files").fetchall()  # only now it looks at the WAL
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    assert journal.stat().st_size > 10 * PAGE


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """A file system that can be made read-only: root ignores modes."""
    with tmpfs(tmp_path / "mounted", "64m") as made:
        yield made


class TestAReadOnlyDirectory:
    def test_of_a_new_journal_is_refused_and_nothing_is_sent(
        self, mounted: Mounted, corpus: Corpus, server: ScriptedServer
    ) -> None:
        command = Command(corpus.root, server.url, mounted.path)
        mounted.remount("ro")
        refused(command, "Read-only file system")
        assert server.requests == []
        mounted.remount("rw")
        assert command.run().outcomes == {"stored": len(corpus)}

    def test_of_an_old_journal_is_refused_and_it_is_as_it_was(
        self, mounted: Mounted, corpus: Corpus, server: ScriptedServer
    ) -> None:
        command = Command(corpus.root, server.url, mounted.path)
        assert command.run().exit_code == 0
        before, requests = command.journal.read_bytes(), len(server.requests)
        mounted.remount("ro")
        refused(command, "Read-only file system")
        assert command.journal.read_bytes() == before
        assert len(server.requests) == requests

    def test_of_the_results_file_is_refused_and_nothing_is_sent(
        self, mounted: Mounted, tmp_path: Path, corpus: Corpus, server: ScriptedServer
    ) -> None:
        mounted.remount("ro")
        with start_ingester(
            "run", corpus.root, f"--url={server.url}", f"--journal={tmp_path / 'journal.db'}",
            f"--results={mounted.path / 'results.jsonl'}",
        ) as process:  # fmt: skip
            ended = process.wait()
        assert ended.returncode == 1
        line, hint = ended.stderr.splitlines()
        assert "the results file cannot be written (Read-only file system)" in line
        assert hint == "  hint: name another with --results"
        assert server.requests == []


class TestADiskThatFails:
    def test_under_what_is_about_to_be_sent_stops_the_run_and_what_was_sent_is_recorded(
        self, command: Command, corpus: Corpus, server: ScriptedServer, faults: Faults
    ) -> None:
        announced = f"{command.journal}.announced"
        faults.rule(f"sync from:9:5 {announced}")
        options = ("--max-batch-instances=1", "--max-concurrency=2")
        broken = replace(command, options=options, environment=faults.environment)
        with broken.start() as process:
            ended = process.wait()
        assert_refused(ended, f"the journal cannot be written: Input/output error: {announced}")
        assert faults.happened
        server.settle()
        rows = list(iter_files(str(command.journal)))
        recorded = {row.sop_instance_uid for row in rows if row.evidence}
        in_doubt = {row.sop_instance_uid for row in rows if row.outcome is Outcome.IN_DOUBT}
        assert recorded <= server.stored.keys() <= recorded | in_doubt
        assert 0 < len(recorded) < len(corpus)
        faults.rule()
        run = command.run()
        assert run.exit_code == 0
        assert server.stored.keys() == corpus.sop_instance_uids
        assert {sop for sop, digests in server.stored.items() if len(digests) > 1} <= in_doubt


class TestAJournalOfALiveRun:
    def test_is_refused_with_the_process_named_and_that_run_goes_on(
        self, command: Command, corpus: Corpus, server: ScriptedServer
    ) -> None:
        ended: list[Completed] = []

        def meanwhile(number: int) -> None:
            if number == 10:
                ended.append(refused(command, f"held by another live run (pid {process.pid})"))

        server.before_answer(meanwhile)
        with command.start() as process:
            first = process.wait()
        assert first.returncode == 0, first.stderr
        assert len(ended) == 1
        assert ended[0].stdout == ""
        assert {sop: [sha] for sop, sha in corpus.sha256_by_sop.items()} == server.stored
        assert json.loads(first.stdout)["run_id"] == 1
        assert command.run().summary["run_id"] == 2


class TestAFileThatIsNoJournalOfOurs:
    def test_but_a_text_is_refused_and_not_touched(
        self, command: Command, server: ScriptedServer
    ) -> None:
        command.directory.mkdir()
        command.journal.write_bytes(b"ISA^not a journal" * 1000)
        refused(command, "not an ingester journal")
        assert command.journal.read_bytes() == b"ISA^not a journal" * 1000
        assert server.requests == []

    def test_but_another_database_is_refused_and_not_touched(
        self, command: Command, server: ScriptedServer
    ) -> None:
        command.directory.mkdir()
        with sqlite3.connect(command.journal) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        before = command.journal.read_bytes()
        refused(command, "not an ingester journal")
        assert command.journal.read_bytes() == before
        assert server.requests == []

    @pytest.mark.parametrize("kind", ["directory", "FIFO", "device"])
    def test_but_something_else_is_refused(
        self, kind: str, command: Command, server: ScriptedServer
    ) -> None:
        command.directory.mkdir()
        if kind == "directory":
            command.journal.mkdir()
        elif kind == "FIFO":
            os.mkfifo(command.journal)
        else:
            command.journal.symlink_to(os.devnull)
        refused(command, "the journal ")
        assert server.requests == []


class TestTheVersionOfAJournal:
    def test_that_is_newer_is_refused_and_not_touched(
        self, command: Command, server: ScriptedServer
    ) -> None:
        assert command.run().exit_code == 0
        requests = len(server.requests)
        set_version(command.journal, SCHEMA_VERSION + 1)
        before = command.journal.read_bytes()
        refused(command, "made by a newer version")
        assert command.journal.read_bytes() == before
        assert len(server.requests) == requests

    @pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
    def test_that_is_older_is_brought_forward_and_nothing_is_sent_again(
        self, command: Command, corpus: Corpus, server: ScriptedServer, version: int
    ) -> None:
        assert command.run().exit_code == 0
        requests = len(server.requests)
        take_back(command.journal, version)
        run = command.run()
        assert run.exit_code == 0
        assert run.outcomes == {"stored": len(corpus)}
        assert len(server.requests) == requests
        assert Path(f"{command.journal}.schema{version}").exists()

    def test_that_is_older_with_no_room_for_its_copy_is_left_as_it_was(
        self, mounted: Mounted, corpus: Corpus, server: ScriptedServer
    ) -> None:
        command = Command(corpus.root, server.url, mounted.path)
        assert command.run().exit_code == 0
        take_back(command.journal, 1)
        filler = mounted.path / "filler"
        mounted.remount("size=1m")
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(2 << 20))
        before = command.journal.read_bytes()
        refused(command, "the journal cannot be opened: the disk is full")
        assert command.journal.read_bytes() == before
        filler.unlink()
        mounted.remount("size=64m")
        assert command.run().outcomes == {"stored": len(corpus)}


def set_version(journal: Path, version: int) -> None:
    """Makes it look as if that version had made it."""
    connection = apsw.Connection(str(journal))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

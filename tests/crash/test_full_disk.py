"""A disk that is full, under the journal and under the results file; then it has space again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.dicom_files import Corpus, write_corpus
from tests.support.journals import copy_journal
from tests.support.mounts import tmpfs
from tests.support.process import Completed, start_ingester
from tests.support.scripted import ScriptedServer

KIB = 1024
BATCH = 2


@dataclass(frozen=True, slots=True)
class Disk:
    """A directory with little space, until it is given more."""

    path: Path
    max_file_bytes: int | None  # None: the file system itself is small
    make_room: Callable[[], None]


@pytest.fixture(params=["tmpfs", "RLIMIT_FSIZE"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A small file system, and a limit on the size of a file where none may be mounted."""
    path = tmp_path / "disk"
    if request.param == "RLIMIT_FSIZE":
        path.mkdir()
        yield Disk(path, 300 * KIB, lambda: None)
        return
    with tmpfs(path, "512k") as mounted:
        yield Disk(path, None, lambda: mounted.remount("size=64m"))


@dataclass(slots=True)
class Load:
    """The command, with journal and results where the test wants them."""

    corpus: Corpus
    server: ScriptedServer
    journal: Path
    results: Path

    def run(self, max_file_bytes: int | None = None) -> Completed:
        """Runs it to its end."""
        with start_ingester(
            "run", self.corpus.root, f"--url={self.server.url}", f"--journal={self.journal}",
            f"--results={self.results}", "--json", f"--max-batch-instances={BATCH}",
            max_file_bytes=max_file_bytes,
        ) as process:  # fmt: skip
            return process.wait()

    def assert_all_sent_is_known(self, directory: Path) -> set[str]:
        """The journal speaks of whatever was sent; returns what it has not committed of that."""
        self.server.settle()
        copied = copy_journal(self.journal, directory)
        assert copied is not None
        committed = {row.sop_instance_uid for row in copied.rows() if row.evidence}
        known, stored = copied.known_to_be_sent(), self.server.stored.keys()
        assert committed <= stored <= known
        assert stored < self.corpus.sop_instance_uids
        return stored - committed

    def assert_completes(self, in_flight: set[str]) -> None:
        """The same command does the rest, and sends again what was in flight at most."""
        ended = self.run()
        assert ended.returncode == 0, ended.stderr
        assert self.server.stored.keys() == self.corpus.sop_instance_uids
        for sop, digests in self.server.stored.items():
            assert set(digests) == {self.corpus.sha256_by_sop[sop]}
            assert len(digests) == 1 or sop in in_flight
        summary = json.loads(ended.stdout)
        assert summary["outcomes"]["stored"] == len(self.corpus)
        lines = [json.loads(line) for line in self.results.read_text().splitlines()]
        told = {line["sop_instance_uid"] for line in lines if line["run_id"] == summary["run_id"]}
        assert len(told) >= len(in_flight)


def assert_says_once(ended: Completed, words: str) -> None:
    """Exit 1, one line of what happened; whatever else is on stderr is progress or a hint."""
    assert ended.returncode == 1, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("progress ")]
    (said,) = [line for line in lines if not line.startswith("  hint: ")]
    assert said.startswith(f"ingester: {words}"), said
    assert len(lines) <= 2


@pytest.fixture
def load(tmp_path: Path, server: ScriptedServer, disk: Disk) -> Load:
    """Journal and results are on the small disk."""
    corpus = write_corpus(tmp_path / "archive", 100, 8, 128)
    return Load(corpus, server, disk.path / "journal.db", disk.path / "results.jsonl")


class TestADiskThatFillsUp:
    def test_under_the_journal_stops_the_run_and_with_space_again_it_completes(
        self, tmp_path: Path, load: Load, disk: Disk
    ) -> None:
        load.results = tmp_path / "results.jsonl"
        assert_says_once(load.run(disk.max_file_bytes), "the journal cannot be written: ")
        in_flight = load.assert_all_sent_is_known(tmp_path / "copy")
        disk.make_room()
        load.assert_completes(in_flight)

    def test_under_the_results_file_does_so_too(
        self, tmp_path: Path, load: Load, disk: Disk
    ) -> None:
        load.journal = tmp_path / "journal.db"
        # A limit on the size of files is one for the journal, too: whichever comes first.
        words = "the results file cannot be written (No space left on device)"
        ended = load.run(disk.max_file_bytes)
        assert_says_once(ended, "the " if disk.max_file_bytes else words)
        in_flight = load.assert_all_sent_is_known(tmp_path / "copy")
        disk.make_room()
        load.assert_completes(in_flight)

    def test_under_both_does_so_too(self, tmp_path: Path, load: Load, disk: Disk) -> None:
        assert_says_once(load.run(disk.max_file_bytes), "the ")
        in_flight = load.assert_all_sent_is_known(tmp_path / "copy")
        disk.make_room()
        load.assert_completes(in_flight)


class TestADiskThatIsFullAtTheStart:
    @pytest.mark.parametrize("free_kib", [0, 8, 40])
    def test_nothing_is_sent_before_its_announcement_has_a_place(
        self, free_kib: int, tmp_path: Path, server: ScriptedServer
    ) -> None:
        corpus = write_corpus(tmp_path / "archive", 20, 8, 128)
        with tmpfs(tmp_path / "disk", "256k") as mounted:
            load = Load(corpus, server, mounted.path / "journal.db", tmp_path / "results.jsonl")
            filler = mounted.path / "filler"
            filler.write_bytes(bytes((256 - free_kib) * KIB))
            ended = load.run()
            assert_says_once(ended, "the journal cannot be ")
            assert "the disk is full" in ended.stderr
            assert server.requests == []
            filler.unlink()
            mounted.remount("size=64m")
            load.assert_completes(set())

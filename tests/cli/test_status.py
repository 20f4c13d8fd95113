"""``ingester status``: before, during and after a run, of all and of one study."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from ingester.journal import Journal
from tests.cli.said import complaint
from tests.support.dicom_files import make_uid, write_corpus, write_instance
from tests.support.process import run_ingester, start_ingester, start_python
from tests.support.scripted import ScriptedServer, StoreAll, Wait

WITHOUT_RIGHTS = """
import ctypes, runpy
version_3, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(version_3, nothing) == 0
runpy.run_module("ingester", run_name="__main__", alter_sys=True)
"""
"""The command without what root may do to files of any mode."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two studies of three instances, and a text."""
    write_corpus(tmp_path / "archive", studies=2, instances_per_study=3)
    (tmp_path / "archive" / "notes.txt").write_text("no DICOM", encoding="utf-8")
    return tmp_path


class TestAfterARun:
    def test_it_says_what_became_of_the_files(self, archive: Path, server: ScriptedServer) -> None:
        assert run_ingester("run", "archive", "--url", server.url, cwd=archive).returncode == 0
        completed = run_ingester("status", cwd=archive)
        assert completed.returncode == 0
        assert completed.stderr == ""
        first, run, met, in_all = completed.stdout.splitlines()
        assert first == f"journal ingester.db, target {server.url}"
        assert run.startswith("run 1, started ")
        assert "ended with exit code 0" in run
        assert met.split() == ["met", *in_all.removeprefix("in all").split()]
        assert in_all == "in all 7 files: stored 6, not_dicom 1"

    def test_it_says_so_in_json(self, archive: Path, server: ScriptedServer) -> None:
        flags = ("--url", server.url, "--name", "first", "--operator", "me")
        run_ingester("run", "archive", *flags, cwd=archive)
        env = {"INGESTER_JOURNAL": str(archive / "ingester.db")}
        completed = run_ingester("status", "--json", env=env)
        status = json.loads(completed.stdout)
        assert status["live"] is False
        assert status["pid"] is None
        assert status["target"] == server.url
        assert status["files"] == sum(status["outcomes"].values()) == 7
        assert {key: status["run"][key] for key in ("name", "operator", "exit_code", "files")} == {
            "name": "first",
            "operator": "me",
            "exit_code": 0,
            "files": 7,
        }

    def test_it_answers_for_one_study(self, archive: Path, server: ScriptedServer) -> None:
        study = make_uid(0, "study", 1)
        server.default = StoreAll(failures={make_uid(study, "sop", 2): 0xC122})
        run_ingester("run", "archive", "--url", server.url, cwd=archive)
        completed = run_ingester("status", "--study", study, cwd=archive)
        lines = completed.stdout.splitlines()
        assert lines[0] == "2 of 3 files stored, 1 exceptions"
        assert lines[1].split()[0] == "CT"
        as_json = run_ingester("status", "--study", study, "--json", cwd=archive)
        answer = json.loads(as_json.stdout)
        assert [answer[key] for key in ("files", "stored", "exceptions")] == [3, 2, 1]
        assert answer["series"][0]["modality"] == "CT"

    def test_it_knows_no_other_study(self, archive: Path, server: ScriptedServer) -> None:
        run_ingester("run", "archive", "--url", server.url, cwd=archive)
        completed = run_ingester("status", "--study", "1.2.3", cwd=archive)
        assert completed.returncode == 2
        assert complaint(completed)[0] == "no file of this study was met by this journal"

    def test_its_journal_cannot_forge_a_line(self, archive: Path, server: ScriptedServer) -> None:
        journal = "j\nin all 0 files\x1b[2J"
        flags = ("--journal", journal)
        run_ingester("run", "archive", "--url", server.url, *flags, cwd=archive)
        completed = run_ingester("status", *flags, cwd=archive)
        assert len(completed.stdout.splitlines()) == 4
        assert "\x1b" not in completed.stdout


class TestDuringARun:
    def test_it_names_the_process(self, archive: Path, server: ScriptedServer) -> None:
        go_on = threading.Event()
        server.default = Wait(go_on)
        with start_ingester("run", "archive", "--url", server.url, cwd=archive) as process:
            try:
                server.wait_until(lambda: bool(server.posts))
                people = run_ingester("status", cwd=archive)
                program = run_ingester("status", "--json", cwd=archive)
            finally:
                go_on.set()
            assert process.wait().returncode == 0
        assert f"going on (process {process.pid})" in people.stdout
        status = json.loads(program.stdout)
        assert (status["live"], status["pid"]) == (True, process.pid)
        assert status["run"]["exit_code"] is None

    def test_one_that_was_killed_is_not_going_on(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        go_on = threading.Event()
        server.default = Wait(go_on)
        with start_ingester("run", "archive", "--url", server.url, cwd=archive) as process:
            try:
                server.wait_until(lambda: bool(server.posts))
                process.signal(signal.SIGKILL)
                process.wait()
            finally:
                go_on.set()
        completed = run_ingester("status", cwd=archive)
        assert "did not come to its end; the same command resumes it" in completed.stdout


class TestAJournalWithoutAName:
    @pytest.mark.parametrize("flags", [(), ("--json",), ("--exceptions",), ("--study", "1.2")])
    @pytest.mark.parametrize(
        ("named", "environment"),
        [
            (("--journal", ""), {}),
            (("--journal", ""), {"INGESTER_JOURNAL": "ingester.db"}),
            ((), {"INGESTER_JOURNAL": ""}),
        ],
    )
    def test_is_not_another_journal(
        self,
        flags: tuple[str, ...],
        named: tuple[str, ...],
        environment: dict[str, str],
        tmp_path: Path,
    ) -> None:
        """As of a variable that is not set; the one in the directory is not asked instead."""
        Journal.open(str(tmp_path / "ingester.db"), target="http://127.0.0.1:9").close()
        completed = run_ingester("status", *named, *flags, env=environment, cwd=tmp_path)
        assert completed.returncode == 2
        assert complaint(completed) == (
            "the journal is empty",
            "is a variable not set? Name a file with --journal",
        )


class TestAFileThatIsNoJournal:
    def test_is_said_to_be_none(self, tmp_path: Path) -> None:
        write_instance(tmp_path / "a.dcm", study="1.2", series="1.2.3", sop="1.2.3.4")
        completed = run_ingester("status", "--journal", "a.dcm", cwd=tmp_path)
        assert completed.returncode == 1
        assert "not an ingester journal" in complaint(completed)[0]


class TestAJournalThatCannotBeOpened:
    @pytest.mark.parametrize("kind", ["directory", "FIFO"])
    def test_as_it_is_no_file_is_said_to_be_none(self, kind: str, tmp_path: Path) -> None:
        if kind == "directory":
            (tmp_path / "j.db").mkdir()
        else:
            os.mkfifo(tmp_path / "j.db")
        completed = run_ingester("status", "--journal", "j.db", cwd=tmp_path, timeout=20)
        assert completed.returncode == 1
        assert complaint(completed) == (
            "the journal is not a regular file: j.db",
            "name another file with --journal",
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="gives its rights up with capset(2)")
    @pytest.mark.parametrize(
        ("name", "mode", "reason", "code"),
        [
            ("j.db", 0, "Permission denied", 1),
            (".", 0, "Permission denied", 2),
        ],
    )
    def test_is_told_why_and_once(
        self, name: str, mode: int, reason: str, code: int, tmp_path: Path
    ) -> None:
        place = tmp_path / "place"
        place.mkdir()
        Journal.open(str(place / "j.db"), target="http://127.0.0.1:9").close()
        (place / name).chmod(mode)
        with start_python(
            "-c", WITHOUT_RIGHTS, "status", "--journal", "place/j.db", cwd=tmp_path
        ) as process:
            completed = process.wait()
        (place / name).chmod(0o700)
        assert completed.returncode == code
        assert complaint(completed) == (
            f"the journal cannot be opened: {reason}: place/j.db",
            "check the permissions of the file and its directory",
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="gives its rights up with capset(2)")
    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_beside_but_was_closed_is_read(
        self, mode: int, archive: Path, server: ScriptedServer
    ) -> None:
        """Nothing can be written beside it, as on a medium that is read-only."""
        place = archive / "place"
        place.mkdir()
        journal = ("--journal", "place/j.db")
        ran = run_ingester("run", "archive", "--url", server.url, *journal, cwd=archive)
        assert ran.returncode == 0
        (place / "j.db").chmod(mode)
        place.chmod(0o500)
        said = []
        for flags in ((), ("--exceptions",), ("--study", make_uid(0, "study", 1))):
            with start_python(
                "-c", WITHOUT_RIGHTS, "status", *journal, *flags, cwd=archive
            ) as process:
                said.append(process.wait())
        place.chmod(0o700)
        assert [(each.returncode, each.stderr) for each in said] == [(0, "")] * 3
        assert said[0].stdout.endswith("in all 7 files: stored 6, not_dicom 1\n")
        assert said[1].stdout == ""
        assert said[2].stdout.startswith("3 of 3 files stored, 0 exceptions\n")

    @pytest.mark.skipif(sys.platform != "linux", reason="gives its rights up with capset(2)")
    def test_beside_and_was_not_closed_is_not_read(self, tmp_path: Path) -> None:
        """What was written last is in its WAL alone."""
        place = tmp_path / "place"
        place.mkdir()
        Journal.open(str(place / "j.db"), target="http://127.0.0.1:9").close()
        (place / "j.db-wal").write_bytes(b"")
        place.chmod(0o500)
        with start_python(
            "-c", WITHOUT_RIGHTS, "status", "--journal", "place/j.db", cwd=tmp_path
        ) as process:
            completed = process.wait()
        place.chmod(0o700)
        assert completed.returncode == 1
        assert complaint(completed) == (
            "the journal cannot be opened: SQLite cannot open it, or a file beside it: place/j.db",
            "check the permissions of the file and its directory",
        )

    def test_for_a_reason_that_is_not_known_is_told_once_too(self, tmp_path: Path) -> None:
        Journal.open(str(tmp_path / "j.db"), target="http://127.0.0.1:9").close()
        (tmp_path / "j.db-wal").mkdir()
        completed = run_ingester("status", "--journal", "j.db", cwd=tmp_path)
        assert completed.returncode == 1
        assert complaint(completed)[0] == (
            "the journal cannot be opened: SQLite cannot open it, or a file beside it: j.db"
        )


class TestExceptions:
    def test_are_the_files_that_exit_code_3_is_about(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        """Also in a run that had nothing to decide any more."""
        study = make_uid(0, "study", 1)
        bad, warned = make_uid(study, "sop", 2), make_uid(study, "sop", 1)
        server.default = StoreAll(failures={bad: 0xC122}, warnings={warned: 0xB110})
        broken = archive / "archive" / "broken\udcf6.dcm"
        write_instance(broken, study=study, series="1.2", sop="1.2.3")
        broken.write_bytes(broken.read_bytes()[:200])
        (archive / "archive" / "gone").symlink_to("nowhere")
        first = run_ingester("run", "archive", "--url", server.url, cwd=archive)
        assert first.returncode == 3
        command = first.stdout.splitlines()[-1].partition("files: ")[2].split()
        assert command == ["ingester", "status", "--exceptions", "--journal", "ingester.db"]
        for _ in range(2):
            completed = run_ingester("status", "--exceptions", cwd=archive)
            assert (completed.returncode, completed.stderr) == (0, "")
            found = {
                line["outcome"]: line for line in map(json.loads, completed.stdout.splitlines())
            }
            assert found.keys() == {"rejected", "stored_with_warning", "invalid"}
            assert found["rejected"]["sop_instance_uid"] == bad
            assert found["rejected"]["reason_code"] == "failure_C122"
            assert found["rejected"]["failure_code"] == 0xC122
            assert found["stored_with_warning"]["sop_instance_uid"] == warned
            assert found["invalid"]["path"].endswith("/archive/broken\\xf6.dcm")
            path = base64.b64decode(found["invalid"]["path_b64"])
            assert path == os.fsencode(broken.resolve())
            assert run_ingester("run", "archive", "--url", server.url, cwd=archive).returncode == 3

    def test_are_none_after_a_run_that_stored_everything(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        run_ingester("run", "archive", "--url", server.url, cwd=archive)
        completed = run_ingester("status", "--exceptions", cwd=archive)
        assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")

    def test_are_of_the_whole_archive(self, archive: Path, server: ScriptedServer) -> None:
        run_ingester("run", "archive", "--url", server.url, cwd=archive)
        completed = run_ingester("status", "--exceptions", "--study", "1.2", cwd=archive)
        assert completed.returncode == 2
        assert complaint(completed)[0] == "both --exceptions and --study"

    @pytest.mark.skipif(sys.platform != "linux", reason="gives its rights up with capset(2)")
    def test_are_no_directories_and_say_so(self, archive: Path, server: ScriptedServer) -> None:
        closed = archive / "archive" / "closed"
        closed.mkdir(mode=0)
        arguments = ("-c", WITHOUT_RIGHTS, "run", "archive", "--url", server.url)
        with start_python(*arguments, cwd=archive) as process:
            ran = process.wait()
        closed.chmod(0o700)
        where_named = (
            "1 directory could not be read; for its name start the run again on a terminal"
        )
        assert ran.returncode == 3
        assert where_named in ran.stdout.splitlines()
        assert "closed" not in ran.stdout + ran.stderr
        completed = run_ingester("status", "--exceptions", cwd=archive)
        assert (completed.returncode, completed.stdout) == (0, "")
        assert completed.stderr == f"not listed here: {where_named}\n"
        standing = run_ingester("status", cwd=archive)
        assert f"  {where_named}" in standing.stdout.splitlines()

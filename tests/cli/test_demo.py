"""``ingester demo``: the whole job, as planned, in one directory, and nothing left running."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest

from ingester.demo.archive import Made, write_archive
from ingester.demo.job import Places, differences_of
from ingester.demo.lookup import Found, look_up
from ingester.dicomweb.outcome import Outcome
from ingester.emulator import Emulator
from ingester.journal import FileRow, iter_files
from ingester.report.summary import RunSummary
from ingester.transport.sender import Sender, SenderOptions
from tests.cli.said import complaint, is_gone, is_listening
from tests.support.process import Completed, run_ingester, start_ingester
from tests.support.waiting import wait_until

OUTCOMES = {
    "stored": 167,
    "duplicate": 1,
    "conflict": 1,
    "invalid": 1,
    "not_dicom": 1,
    "skipped": 2,
}


@dataclass(frozen=True, slots=True)
class Ran:
    """A demonstration that has ended."""

    completed: Completed
    report: Any
    temporary: Path  # where temporary directories are made
    cwd: Path
    left: bool  # something of it is still running


@dataclass(frozen=True, slots=True)
class Again:
    """An archive and what has to become of its files."""

    root: Path
    files: list[Made]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demonstration with its report in JSON."""
    temporary, cwd = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("cwd")
    env = {"TMPDIR": str(temporary), "HOME": str(cwd), "INGESTER_READERS": "nonsense"}
    with start_ingester("demo", "--json", env=env, cwd=cwd) as process:
        completed = process.wait()
        left = not is_gone(process.pid)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return Ran(completed, json.loads(completed.stdout), temporary, cwd, left)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Again:
    """The archive, written once more in this process."""
    root = tmp_path_factory.mktemp("again")
    return Again(root, write_archive(str(root)))


class TestTheDemonstration:
    def test_ends_as_planned(self, ran: Ran) -> None:
        report = ran.report
        assert report["as_planned"] is True
        assert report["differences"] == []
        assert report["studies"] == 7
        assert report["run"]["exit_code"] == 3  # a conflict and a broken file are not stored
        assert {k: v for k, v in report["run"]["outcomes"].items() if v} == OUTCOMES
        assert report["looked_up"] == report["found_by_qido"] == report["equal_by_wado"] == 167
        assert report["run"]["retries"] == 0

    def test_leaves_nothing_running(self, ran: Ran) -> None:
        assert not ran.left
        assert not is_listening(ran.report["url"])

    def test_keeps_everything_in_the_one_directory_it_names(self, ran: Ran) -> None:
        directory = Path(ran.report["directory"])
        assert list(ran.temporary.iterdir()) == [directory]
        assert list(ran.cwd.iterdir()) == []
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert f"everything goes to {directory}" in ran.completed.stderr.splitlines()
        for name in ("archive", "store", "journal", "results"):
            assert os.path.dirname(ran.report[name]) == str(directory)

    def test_has_a_line_in_the_results_for_each_file(self, ran: Ran) -> None:
        text = Path(ran.report["results"]).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        assert Counter(line["outcome"] for line in lines) == OUTCOMES
        archive = Path(ran.report["archive"])
        there = [path for path in archive.rglob("*") if path.is_symlink() or path.is_file()]
        assert sorted(line["path"] for line in lines) == sorted(map(str, there))
        for line in lines:
            assert line["evidence"] == ("manifest" if line["outcome"] == "stored" else None)

    def test_names_what_is_not_simply_stored(self, ran: Ran) -> None:
        rows = {row["reason_code"]: row for row in ran.report["not_simply_stored"]}
        assert {code: row["outcome"] for code, row in rows.items()} == {
            "same_data_set": "duplicate",
            "other_data_set": "conflict",
            "truncated_header": "invalid",
            "not_dicom": "not_dicom",
            "dicomdir": "skipped",
            "symlink": "skipped",
        }
        for code in ("same_data_set", "other_data_set"):
            paths = {rows[code]["path"], rows[code]["other_path"]}
            assert {path.split("/")[0] for path in paths} == {"disk1", "disk2"}

    def test_is_what_the_journal_says_to_whoever_types_what_it_prints(self, tmp_path: Path) -> None:
        directory = tmp_path / "a demo"
        completed = run_ingester("demo", "--directory", directory)
        assert completed.returncode == 0
        assert "Everything ended as planned" in completed.stdout
        commands = [
            shlex.split(line) for line in completed.stdout.splitlines() if line.startswith("  ")
        ]
        [first, second] = [words[1:] for words in commands if words[:2] == ["ingester", "status"]]
        assert "in all 173 files: stored 167" in run_ingester(*first).stdout
        assert "50 of 52 files stored" in run_ingester(*second).stdout
        [remove] = [words for words in commands if words[0] == "rm"]
        assert remove == ["rm", "-r", str(directory)]


class TestItsFiles:
    def test_are_read_by_pydicom_without_a_warning(self, made: Again) -> None:
        for file in made.files:
            if not any(file.key):
                continue
            data_set = pydicom.dcmread(made.root / file.path)
            data_set.walk(lambda _, element: element.value)
            assert str(data_set.PatientName).startswith("Fictitious^")
            for uid in (data_set.StudyInstanceUID, data_set.SOPInstanceUID):
                assert uid.startswith("2.25.")
                assert uid.is_valid
            if "PixelData" in data_set:
                assert len(data_set.PixelData) == (
                    data_set.Rows * data_set.Columns * data_set.SamplesPerPixel
                    * data_set.BitsAllocated // 8 * int(data_set.get("NumberOfFrames", 1))
                )  # fmt: skip

    def test_are_the_same_each_time(self, ran: Ran, made: Again) -> None:
        for file in made.files:
            path, again = Path(ran.report["archive"], file.path), made.root / file.path
            assert path.lstat().st_size == again.lstat().st_size
            if not path.is_symlink():
                assert path.read_bytes() == again.read_bytes()
                assert path.stat().st_mtime == again.stat().st_mtime

    def test_are_a_small_archive_of_several_kinds(self, made: Again) -> None:
        size = sum((made.root / file.path).lstat().st_size for file in made.files)
        assert 20e6 < size < 40e6
        assert 150 <= len(made.files) <= 200
        assert len({file.key[0] for file in made.files if any(file.key)}) == 7


class TestADifference:
    def test_from_the_plan_is_named(self, ran: Ran, made: Again) -> None:
        places = Places(ran.report["directory"])
        summary = msgspec.convert(ran.report["run"], RunSummary)
        rows = list(iter_files(places.journal))
        assert differences_of(places, made.files, rows, summary) == []
        rejected = [
            row._replace(outcome=Outcome.REJECTED) if row.path.endswith(b"IM0030.dcm") else row
            for row in rows
        ]
        found = differences_of(places, made.files, rejected, summary)
        assert all(line.endswith("rejected ; planned: stored ") for line in found)
        assert len(found) == 3
        unplanned = differences_of(places, made.files[1:], rows, summary)
        assert unplanned == [
            f"{made.files[0].path}: stored; it was not made",
            "files met: 173; planned: 172",
            "lines in the results file: 173; planned: 172",
        ]
        assert len(differences_of(places, made.files, rows[1:], summary)) == 1

    async def test_of_the_store_is_found(self, ran: Ran, tmp_path: Path) -> None:
        places = Places(ran.report["directory"])
        store = shutil.copytree(places.store, tmp_path / "store")
        stored = list(iter_files(places.journal, [Outcome.STORED]))
        gone, other, unasked, *_ = [
            (row, Path(store, row.study_instance_uid, row.series_instance_uid,
                       f"{row.sop_instance_uid}.dcm"))
            for row in stored
        ]  # fmt: skip
        gone[1].unlink()
        data = other[1].read_bytes()
        other[1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        found = await look_up_at(store, [row for row in stored if row is not unasked[0]])
        assert (found.asked, found.found, found.equal) == (166, 165, 164)
        assert sorted(found.differences) == sorted(
            (
                f"not found by QIDO-RS: {gone[0].sop_instance_uid}",
                f"other bytes by WADO-RS: {other[0].sop_instance_uid}",
                f"not asked for, but in the store: {unasked[0].sop_instance_uid}",
            )
        )


async def look_up_at(store: Path, rows: list[FileRow]) -> Found:
    """Looks up in what a demonstration has left of its store."""
    accept = "application/dicom+json, application/dicom"
    async with Emulator(store=store) as emulator:
        options = SenderOptions(emulator.base_url, "test", accept)
        async with Sender(options) as sender:
            studies = sorted({row.study_instance_uid for row in rows})
            return await look_up(sender, studies, rows)


class TestAnInterruption:
    @pytest.mark.parametrize(
        ("step", "number"),
        [("writing the archive", signal.SIGTERM), ("loading the archive", signal.SIGINT)],
    )
    def test_leaves_nothing_running(
        self, step: str, number: signal.Signals, tmp_path: Path
    ) -> None:
        with start_ingester("demo", "--directory", tmp_path / "demo") as process:
            wait_until(lambda: step in process.stderr_so_far(), process)
            process.signal(number)
            completed = process.wait()
            assert completed.returncode == 128 + number
            assert "Traceback" not in completed.stderr
            assert is_gone(process.pid)


class TestADirectory:
    def test_that_is_used_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine", encoding="utf-8")
        completed = run_ingester("demo", "--directory", tmp_path)
        assert completed.returncode == 2
        assert complaint(completed) == (
            f"the directory is not empty: {tmp_path}",
            "name another one",
        )
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine", encoding="utf-8")
        completed = run_ingester("demo", "--directory", tmp_path / "mine")
        assert completed.returncode == 2
        assert "cannot be used" in complaint(completed)[0]

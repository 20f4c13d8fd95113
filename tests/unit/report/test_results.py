from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import stat
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.errors import FatalError
from ingester.items import Result, ended
from ingester.report.results import ResultsFile, as_text, escaped
from ingester.report.results import line as line_of
from tests.support.waiting import wait_until
from tests.unit.road import file_ref, instance

CONTRACT = [
    "run_id",
    "file_id",
    "root",
    "path",
    "path_b64",
    "size",
    "outcome",
    "evidence",
    "other_file_id",
    "findings",
    "reason",
    "reason_code",
    "warning_code",
    "http_status",
    "attempts",
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "sha256",
    "request_id",
    "elapsed_s",
    "finished_at",
]
NOW = "2024-02-29T12:00:00.000Z"


def stored(file_id: int = 1) -> Result:
    return ended(instance(file_id, sha256=b"\xab" * 32), Outcome.STORED, "")._replace(
        evidence=Evidence.MANIFEST, http_status=200, attempts=2, request_id="R-1", elapsed_s=0.25
    )


def line(result: Result, run_id: int, finished_at: str) -> dict[str, object]:
    """As a reader of the file has it."""
    encoded = msgspec.json.encode(line_of(result, run_id, finished_at))
    return msgspec.json.decode(encoded, type=dict[str, object])


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(each) for each in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def results(path: Path) -> Iterator[ResultsFile]:
    file = ResultsFile(str(path))
    file.run_id = 7
    yield file
    file.close()


def fifo_with_reader(path: Path) -> int:
    """The reader's descriptor; nothing is read."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def bytes_in(pipe: int) -> int:
    found = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


class TestALine:
    def test_has_the_fields_of_the_contract_in_their_order(self) -> None:
        keys = list(line(stored(), 7, NOW))
        assert [key for key in keys if key in CONTRACT] == CONTRACT

    def test_says_what_became_of_the_file(self) -> None:
        found = line(stored(), 7, NOW)
        assert found == {
            "run_id": 7, "file_id": 1, "root": "/archive", "path": "/archive/1.dcm", "path_b64": None,
            "size": 100, "outcome": "stored", "evidence": "manifest", "other_file_id": None,
            "findings": [], "reason": "", "reason_code": "", "warning_code": None, "failure_code": None,
            "http_status": 200, "attempts": 2, "study_instance_uid": "1.2",
            "series_instance_uid": "1.2.1", "sop_instance_uid": "1.2.1.1",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "sha256": "ab" * 32, "request_id": "R-1", "elapsed_s": 0.25, "finished_at": NOW,
        }  # fmt: skip

    def test_has_each_word_and_number_in_its_own_place(self) -> None:
        said = stored()._replace(
            outcome=Outcome.CONFLICT, reason_code="code", reason="words", other_file_id=11,
            findings=("a", "b"), warning_code=12, failure_code=13, http_status=14, attempts=15,
            request_id="R-2", elapsed_s=1.5, size=16,
        )  # fmt: skip
        found = line(said, 7, NOW)
        assert {key: found[key] for key in list(found)[5:16]} == {
            "size": 16, "outcome": "conflict", "evidence": "manifest", "other_file_id": 11,
            "findings": ["a", "b"], "reason": "words", "reason_code": "code", "warning_code": 12,
            "failure_code": 13, "http_status": 14, "attempts": 15,
        }  # fmt: skip
        assert (found["request_id"], found["elapsed_s"]) == ("R-2", 1.5)

    def test_of_a_file_that_is_no_instance_has_no_uids(self) -> None:
        found = line(Result(file_ref(3), Outcome.NOT_DICOM, "not_dicom"), 7, NOW)
        assert (found["size"], found["evidence"], found["sha256"]) == (100, None, None)
        assert found["study_instance_uid"] == found["transfer_syntax_uid"] == ""

    def test_of_a_file_that_moved_has_the_number_of_the_row_it_took_along(self) -> None:
        assert line(stored()._replace(moved_from=99), 7, NOW)["file_id"] == 99

    @pytest.mark.parametrize("outcome", Outcome)
    def test_has_the_outcome_by_its_name(self, outcome: Outcome) -> None:
        assert line(Result(file_ref(), outcome), 7, NOW)["outcome"] == outcome.value


class TestAPath:
    @pytest.mark.parametrize("name", [b"a\nb", b'q"\\', b"\x00x\x7f", "é\u2028".encode()])
    def test_that_is_text_is_written_as_it_is(
        self, results: ResultsFile, path: Path, name: bytes
    ) -> None:
        results.write([Result(file_ref(1, b"/archive/" + name), Outcome.INVALID)])
        (found,) = read(path)
        assert found["path"] == "/archive/" + name.decode()
        assert found["path_b64"] is None
        assert path.read_bytes().count(b"\n") == 1

    @pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80"])
    def test_that_is_no_utf_8_is_escaped_and_kept_exactly(
        self, results: ResultsFile, path: Path, name: bytes
    ) -> None:
        results.write([Result(file_ref(1, b"/archive/" + name), Outcome.INVALID)])
        (found,) = read(path)
        assert base64.b64decode(str(found["path_b64"])) == b"/archive/" + name
        assert "\\x" in str(found["path"])

    def test_of_a_root_too(self) -> None:
        found = line(Result(file_ref(1, b"/\xff/a"), Outcome.INVALID), 7, NOW)
        assert found["root"] == "/\\xff"
        assert base64.b64decode(str(found["path_b64"])) == b"/\xff/a"

    def test_is_utf_8_or_not(self) -> None:
        assert as_text(b"caf\xc3\xa9") == "café"
        assert as_text(b"caf\xe9") is None
        assert escaped(b"caf\xe9") == "caf\\xe9"


class TestTheFile:
    def test_is_private(self, results: ResultsFile, path: Path) -> None:
        assert results.path == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_that_was_open_to_others_is_private_now(self, path: Path) -> None:
        path.write_bytes(b"")
        path.chmod(0o666)
        ResultsFile(str(path)).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_is_private_whatever_the_umask(self, path: Path) -> None:
        before = os.umask(0)
        try:
            ResultsFile(str(path)).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_is_appended_to(self, results: ResultsFile, path: Path) -> None:
        results.write([stored(1), stored(2)])
        results.write([])
        other = ResultsFile(str(path))
        other.run_id = 8
        other.write([stored(3)])
        other.close()
        assert [(found["run_id"], found["file_id"]) for found in read(path)] == [
            (7, 1),
            (7, 2),
            (8, 3),
        ]

    def test_with_a_torn_end_loses_that_and_nothing_else(self, path: Path) -> None:
        """A run was killed while it wrote, or the disk was full."""
        first = ResultsFile(str(path))
        first.write([stored(1), stored(2)])
        first.close()
        os.truncate(path, path.stat().st_size - 40)
        second = ResultsFile(str(path))
        second.write([stored(3)])
        second.close()
        assert [line["file_id"] for line in read(path)] == [1, 3]

    def test_that_holds_something_else_is_refused_and_not_touched(self, path: Path) -> None:
        """Somebody has named the wrong file: an image, say."""
        path.write_bytes(bytes(128) + b"DICM")
        path.chmod(0o644)
        with pytest.raises(FatalError, match="something else") as caught:
            ResultsFile(str(path))
        assert "--results" in caught.value.hint
        assert path.read_bytes() == bytes(128) + b"DICM"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    @pytest.mark.parametrize("other", [b'{\n  "a": 1\n}', b'{"a": "' + b"x" * (2 << 20) + b'"}'])
    def test_that_holds_other_json_loses_nothing(self, path: Path, other: bytes) -> None:
        path.write_bytes(other)
        ResultsFile(str(path)).close()
        assert path.read_bytes() == other + b"\n"

    def test_keeps_a_last_line_that_is_whole_but_for_its_end(self, path: Path) -> None:
        path.write_bytes(b'{"file_id": 7}')
        results = ResultsFile(str(path))
        results.write([stored(1)])
        results.close()
        assert [line["file_id"] for line in read(path)] == [7, 1]

    def test_has_the_time_in_utc(self, results: ResultsFile, path: Path) -> None:
        results.write([stored()])
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(read(path)[0]["finished_at"])
        )

    @pytest.mark.parametrize("name", ["", "missing/results"])
    def test_that_cannot_be_written_stops_the_run(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FatalError, match="the results file cannot be written"):
            ResultsFile(str(tmp_path / name))

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_on_a_full_disk_stops_the_run(self) -> None:
        mode = os.stat("/dev/full").st_mode
        try:
            results = ResultsFile("/dev/full")
        finally:
            if os.stat("/dev/full").st_mode != mode and os.geteuid() == 0:
                os.chmod("/dev/full", stat.S_IMODE(mode))
        with pytest.raises(FatalError, match="No space left on device") as caught:
            results.write([stored()])
        assert str(caught.value).endswith(": /dev/full")
        assert "the same command again" in caught.value.hint
        results.close()

    def test_that_is_a_pipe_is_somebody_elses(self, path: Path) -> None:
        """Its mode is left alone: as root, --results /dev/null must not take it from all others."""
        os.mkfifo(path)
        path.chmod(0o666)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        results = ResultsFile(str(path))
        results.write([stored()])
        assert json.loads(os.read(reader, 65536))["file_id"] == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        results.close()
        os.close(reader)

    def test_that_is_a_pipe_nobody_reads_is_refused(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(FatalError, match=r"cannot be written \(a FIFO that nobody reads\): "):
            ResultsFile(str(path))

    def test_that_is_a_pipe_whose_reader_has_gone_stops_the_run(self, path: Path) -> None:
        reader = fifo_with_reader(path)
        results = ResultsFile(str(path))
        os.close(reader)
        with pytest.raises(FatalError, match=r"cannot be written \(Broken pipe\)"):
            results.write([stored()])
        results.close()

    def test_that_is_a_pipe_read_slowly_loses_nothing(self, path: Path) -> None:
        reader = fifo_with_reader(path)
        results = ResultsFile(str(path))
        read = bytearray()

        def drain() -> None:
            wait_until(lambda: bytes_in(reader) > 60_000)  # it is full
            os.set_blocking(reader, True)
            while piece := os.read(reader, 4096):
                read.extend(piece)

        thread = threading.Thread(target=drain)
        thread.start()
        results.write([stored(number) for number in range(1000)])
        results.close()
        thread.join(60)
        os.close(reader)
        lines = [json.loads(line) for line in read.splitlines()]
        assert [line["file_id"] for line in lines] == list(range(1000))

    def test_that_is_a_pipe_read_no_more_stops_the_run(self, path: Path) -> None:
        """A journal that waits for ever would let no signal end the run."""
        reader = fifo_with_reader(path)
        results = ResultsFile(str(path), patience_s=0.1)
        with pytest.raises(FatalError, match=r"cannot be written \(its reader takes nothing\)"):
            results.write([stored(number) for number in range(1000)])
        results.close()
        os.close(reader)

"""The log file: a line an event, of our own words only, and it holds up nobody."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from ingester.errors import FatalError, NoThreadError
from ingester.logs import (
    DEBUG,
    ERROR,
    INFO,
    QUEUE_LINES,
    WARNING,
    LogFile,
    bug,
    log,
    opened,
    wanted,
)
from ingester.logs import request_id as shown_request_id
from tests.support.logs import lines_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


class TestALine:
    def test_has_a_time_a_level_an_event_and_fields(self, path: Path) -> None:
        before = datetime.now(UTC)
        with opened(str(path), "info"):
            log(WARNING, "hold", seconds=1.5, requests=3, last=True, nothing=None, empty="")
        (line,) = lines_of(path)
        at = datetime.fromisoformat(str(line.pop("time")))
        assert timedelta(seconds=-1) < at - before < timedelta(seconds=60)
        assert line == {
            "level": "warning", "event": "hold", "seconds": 1.5, "requests": 3, "last": True,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("level", "events"),
        [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"])],
    )
    def test_is_written_from_a_level_on(self, level: str, events: list[str], path: Path) -> None:
        with opened(str(path), level):
            for number, event in ((DEBUG, "d"), (INFO, "i"), (WARNING, "w"), (ERROR, "e")):
                assert wanted(number) == (event in events)
                log(number, event)
        assert [line["event"] for line in lines_of(path)] == events

    def test_is_written_nowhere_without_a_file(
        self, path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with opened(None, "debug") as file:
            assert file is None
            log(ERROR, "event")
        assert not wanted(ERROR)
        assert "".join(capfd.readouterr()) == ""
        assert not path.exists()

    @pytest.mark.parametrize(
        "value",
        ["a\nb", "a\x1b[31m", "a\u2028", "Dö", "x" * 301, "1.2.840.10008.1.2", "of 2.25.1.2.3"],
    )
    def test_has_no_value_that_cannot_be_our_own(self, value: str, path: Path) -> None:
        with opened(str(path), "info"):
            log(INFO, "event", word=value, frames=[value, "fine"])
        (line,) = lines_of(path)
        assert (line["word"], line["frames"]) == ("?", ["?", "fine"])

    def test_may_have_an_address_and_a_version(self, path: Path) -> None:
        with opened(str(path), "info"):
            log(INFO, "event", of="127.0.0.1", version="1.2.3")
        (line,) = lines_of(path)
        assert (line["of"], line["version"]) == ("127.0.0.1", "1.2.3")

    def test_of_a_bug_has_kinds_and_frames(self, path: Path) -> None:
        with opened(str(path), "info"):
            try:
                try:
                    int("CANARY^PATIENT")
                except ValueError as error:
                    raise ExceptionGroup("CANARY", [OSError("CANARY"), error]) from KeyError(
                        "CANARY"
                    )
            except ExceptionGroup as error:
                bug(error)
        (line,) = lines_of(path)
        frames = line["frames"]
        assert isinstance(frames, list)
        kinds = [frame for frame in frames if not frame.startswith(" ")]
        assert kinds == ["ExceptionGroup", "OSError", "ValueError", "KeyError"]
        assert any("test_of_a_bug_has_kinds_and_frames" in frame for frame in frames)
        assert "CANARY" not in path.read_text()

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("3f0e0c9e-0d8c-4a0e-9d6e-2d0b1c0c7b5a", "3f0e0c9e-0d8c-4a0e-9d6e-2d0b1c0c7b5a"),
            ("DOE JOHN", ""), ("DOE^JOHN1", ""), ("1.2.840.10008.1.2", ""), ("", ""), ("short", ""),
        ],
    )  # fmt: skip
    def test_has_a_request_id_that_looks_like_one(self, given: str, shown: str) -> None:
        assert shown_request_id(given) == shown


class TestTheFile:
    def test_is_private_and_appended_to(self, path: Path) -> None:
        path.write_bytes(b'{"event":"torn')
        path.chmod(0o644)
        for event in ("first", "second"):
            with opened(str(path), "info"):
                log(INFO, event)
        assert path.stat().st_mode & 0o777 == 0o600
        lines = path.read_bytes().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["first", "second"]

    def test_that_cannot_be_made_is_fatal(self, tmp_path: Path) -> None:
        with (
            pytest.raises(FatalError, match=r"log file cannot be written \(No such file"),
            opened(str(tmp_path / "none" / "log"), "info"),
        ):
            pytest.fail("it was opened")

    def test_has_no_line_of_anybody_else(
        self, path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with opened(str(path), "debug"):
            for name in (
                "botocore.auth",
                "urllib3",
                "aiohttp.client",
                "asyncio",
                "pydicom",
                "ingester.emulator",
                "",
            ):
                logging.getLogger(name).critical("canary")
            log(INFO, "ours")
        assert [line["event"] for line in lines_of(path)] == ["ours"]
        capfd.readouterr()

    def test_lets_nobody_else_have_ours(self, path: Path) -> None:
        others = StringIO()
        handler = logging.StreamHandler(others)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with opened(str(path), "debug"):
                log(ERROR, "ours")
        finally:
            root.removeHandler(handler)
        assert others.getvalue() == ""

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_on_a_full_disk_loses_lines_and_nothing_else(self) -> None:
        with opened("/dev/full", "info") as file:
            for _ in range(10):
                log(INFO, "event")
        assert file is not None
        assert file.dropped == 10


class TestADiskThatHangs:
    """A FIFO that is not read takes 64 KiB and then no more."""

    @pytest.fixture
    def fifo(self, path: Path) -> Path:
        os.mkfifo(path)
        return path

    def test_holds_up_nobody_and_lines_that_are_dropped_are_counted(self, fifo: Path) -> None:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        read = bytearray()
        written = 2 * QUEUE_LINES
        with opened(str(fifo), "info") as file:
            assert file is not None
            began = time.monotonic()
            for _ in range(written):
                log(INFO, "event", word="x" * 200)
            assert time.monotonic() - began < 30
            dropped = file.dropped
            assert dropped >= written - QUEUE_LINES - 64 * 1024 // 200
            os.set_blocking(reader, True)

            def drain() -> None:
                while piece := os.read(reader, 1 << 20):
                    read.extend(piece)

            thread = threading.Thread(target=drain)
            thread.start()
        thread.join(60)
        os.close(reader)
        lines = [json.loads(line) for line in read.splitlines()]
        told = sum(line["lines"] for line in lines if line["event"] == "lines_dropped")
        assert told == file.dropped == dropped
        assert sum(line["event"] == "event" for line in lines) + dropped == written

    def test_without_a_thread_to_write_it_is_fatal_and_is_closed(
        self, fifo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(NoThreadError, match="no thread"), opened(str(fifo), "info"):
            pytest.fail("it was opened")
        assert os.read(reader, 1) == b""  # nobody has it open to write
        os.close(reader)
        assert not wanted(ERROR)

    def test_that_nobody_reads_is_refused(self, fifo: Path) -> None:
        with (
            pytest.raises(FatalError, match=r"cannot be written \(a FIFO that nobody reads\): "),
            opened(str(fifo), "info"),
        ):
            pass

    def test_whose_reader_has_gone_drops_lines_and_counts_them(self, fifo: Path) -> None:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        with opened(str(fifo), "info") as file:
            os.close(reader)
            for _ in range(10):
                log(INFO, "event")
        assert file is not None
        assert file.dropped == 10

    def test_that_never_comes_back_is_left_behind(self, fifo: Path) -> None:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        file = LogFile(str(fifo), "info")
        for _ in range(1000):
            log(INFO, "event", word="x" * 200)
        file.close(0.1)
        assert file.dropped > 500
        os.close(reader)

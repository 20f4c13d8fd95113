"""The log file: a JSON line for each decision, which may be sent on to anybody.

A line has a time (UTC), a level, an event and fields. Fields are numbers and words of our own; a
file is its journal id, a request its number. No path, no UID, no attribute of a patient, no word of
a server, no credential, and of an exception the frames without its text. What is not of that form
is left out rather than written, see ``_safe``.

Only the logger ``ingester.run`` is written, and it passes nothing on: the logs of botocore,
urllib3, aiohttp and asyncio quote headers and answers. Whoever uses this package without its
command line may put a handler of their own there; a record has its event as message and its fields
in ``fields``.

Why a queue: a line is made where the decision is, and a disk that hangs must hold up no request.
When ``QUEUE_LINES`` wait, lines are dropped and counted, and the next line that is written says so.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec

from ingester.appending import open_private
from ingester.errors import FatalError
from ingester.frames import frames_of
from ingester.threads import start

Field = str | int | float | bool | None | list[str]

QUEUE_LINES = 10_000
"""About 3 MB: a second of the fastest loads at debug level."""

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING}

_OFF = logging.CRITICAL + 1
_LOG = logging.getLogger("ingester.run")
_LOG.propagate = False
_LOG.addHandler(logging.NullHandler())
_LOG.setLevel(_OFF)

_SAFE = re.compile(r"[ -~]{0,300}")
_UID = re.compile(r"[0-9]+(\.[0-9]+){4,}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{8,64}")


def log(level: int, event: str, **fields: Field) -> None:
    """Write a line, where anybody wants it."""
    if _LOG.isEnabledFor(level):
        _LOG.log(level, event, extra={"fields": fields})


def wanted(level: int) -> bool:
    """Whether lines of this level are written: for those whose fields are dear."""
    return _LOG.isEnabledFor(level)


def bug(error: BaseException) -> None:
    """Write the kinds and frames of an exception, without a text."""
    if _LOG.isEnabledFor(ERROR):
        log(ERROR, "bug", frames=list(frames_of(error)))


def request_id(given: str) -> str:
    """What a server calls a request, if it looks like an id."""
    return given if _REQUEST_ID.fullmatch(given) else ""


class LogFile:
    """An open log. ``dropped``: lines that were not written."""

    def __init__(self, path: str, level: str) -> None:
        self.dropped = 0
        self._fd = open_private(path)
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUE_LINES)
        self._told = 0  # of those that were dropped
        self._torn = False  # the last line was written in part
        self._handler = _Handler(self)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        try:
            start(self._thread)
        except BaseException:
            os.close(self._fd)
            raise
        _LOG.addHandler(self._handler)
        _LOG.setLevel(LEVELS[level])

    def take(self, line: bytes) -> None:
        """Have a line written soon."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits. A disk that hangs is left behind."""
        _LOG.removeHandler(self._handler)
        _LOG.setLevel(_OFF)
        with suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.dropped += self._lines.qsize()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._tell_dropped()
            if not self._put(line):
                self.dropped += 1
        self._tell_dropped()
        os.close(self._fd)

    def _tell_dropped(self) -> None:
        new = self.dropped - self._told
        if new and self._put(_line(WARNING, "lines_dropped", {"lines": new}, time.time())):
            self._told += new

    def _put(self, line: bytes) -> bool:
        """Write a line, or a part of it: then it is ended before the next."""
        left = memoryview(b"\n" + line if self._torn else line)
        try:
            while left:
                written = os.write(self._fd, left)
                self._torn = left[written - 1] != ord("\n")
                left = left[written:]
        except OSError:  # a full disk: the journal decides what that means for the run
            return False
        return True


class _Handler(logging.Handler):
    """Makes the line where the record is made, and hands it over without waiting."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        self._file.take(_line(record.levelno, record.getMessage(), fields, record.created))


def _line(level: int, event: str, fields: Mapping[str, Field], at: float) -> bytes:
    time_utc = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    line = {
        "time": time_utc.replace("+00:00", "Z"),
        "level": logging.getLevelName(level).lower(),
        "event": event,
        **{name: _safe(value) for name, value in fields.items() if value not in (None, "")},
    }
    return msgspec.json.encode(line) + b"\n"


def _safe(value: Field) -> Field:
    """A field as it is, if it can be of our own making."""
    if isinstance(value, list):
        return [str(_safe(each)) for each in value]
    if isinstance(value, str) and (not _SAFE.fullmatch(value) or _UID.search(value)):
        return "?"
    return value


@contextmanager
def opened(path: str | None, level: str) -> Iterator[LogFile | None]:
    """Write the log during a block; ``path`` None: there is none. Raises FatalError."""
    if path is None:
        yield None
        return
    try:
        file = LogFile(path, level)
    except OSError as error:
        raise FatalError(
            f"the log file cannot be written ({error.strerror}): {path}",
            "name another with --log-file",
        ) from error
    try:
        yield file
    finally:
        file.close()

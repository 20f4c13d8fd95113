"""The results file: one JSON line for each file decided in a run, written after its commit.

Mode 0600, appended: it holds paths, UIDs and the server's words. ``write`` is called in the
journal's thread right after a commit, in the order of the commits, so a line never says what the
journal does not; after a SIGKILL the lines of the last commits may be missing, the journal is
exact. An error stops the run: what was asked for cannot be delivered.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from ingester.errors import FatalError
from ingester.items import Result


class ResultsFile:
    """An open results file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.run_id = 0
        self._encode = msgspec.json.Encoder().encode_lines
        try:
            self._fd = _open(path)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise FatalError(f"the results file cannot be written ({reason}): {path}") from error

    def write(self, results: Sequence[Result]) -> None:
        """Append a line for each result. Raises FatalError."""
        finished_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = memoryview(self._encode([line(r, self.run_id, finished_at) for r in results]))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise FatalError(f"the results file cannot be written ({reason})") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _open(path: str) -> int:
    """A descriptor to append to. A regular file is made private and ends with a whole line."""
    # Not blocking: a FIFO that nobody reads is an error, not a run that hangs.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, mode=0o600)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENXIO}:
            raise
        fd = os.open(path, flags & ~os.O_RDWR | os.O_WRONLY, mode=0o600)
    os.set_blocking(fd, True)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        os.fchmod(fd, 0o600)
        if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
            os.write(fd, b"\n")  # a line that was torn: it must not take the next one along
    return fd


def line(result: Result, run_id: int, finished_at: str) -> dict[str, object]:
    """The object of one line, in the order of the contract."""
    file, header = result.file, result.header
    root, path = file.directory.root.path, file.path
    return {
        "run_id": run_id,
        "file_id": file.file_id if result.moved_from is None else result.moved_from,
        "root": escaped(root),
        "path": escaped(path),
        "path_b64": None if is_utf8(path) else b64encode(path).decode(),
        "size": file.size if result.size is None else result.size,
        "outcome": result.outcome.value,
        "evidence": None if result.evidence is None else result.evidence.value,
        "other_file_id": result.other_file_id,
        "findings": list(result.findings),
        "reason": result.reason,
        "reason_code": result.reason_code,
        "warning_code": result.warning_code,
        "failure_code": result.failure_code,
        "http_status": result.http_status,
        "attempts": result.attempts,
        "study_instance_uid": "" if header is None else header.study_instance_uid,
        "series_instance_uid": "" if header is None else header.series_instance_uid,
        "sop_instance_uid": "" if header is None else header.sop_instance_uid,
        "sop_class_uid": "" if header is None else header.sop_class_uid,
        "transfer_syntax_uid": "" if header is None else header.transfer_syntax_uid,
        "sha256": None if result.sha256 is None else result.sha256.hex(),
        "request_id": result.request_id,
        "elapsed_s": result.elapsed_s,
        "finished_at": finished_at,
    }


def is_utf8(path: bytes) -> bool:
    """Whether a path is text as it is."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def escaped(path: bytes) -> str:
    r"""A path as text: what is not UTF-8 as ``\xNN``."""
    return path.decode("utf-8", "backslashreplace")

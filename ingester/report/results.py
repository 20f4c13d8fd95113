"""The results file: one JSON line for each file decided in a run, written after its commit.

Mode 0600, appended: it holds paths, UIDs and the server's words. ``write`` is called in the
journal's thread right after a commit, in the order of the commits, so a line never says what the
journal does not; after a SIGKILL the lines of the last commits may be missing, the journal is
exact. An error stops the run: what was asked for cannot be delivered. The reader of a FIFO may be
slow, but not take nothing for ``PATIENCE_S``: no signal could end a run whose journal waits for it.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from ingester.appending import append, open_private
from ingester.errors import FatalError
from ingester.items import Result

PATIENCE_S = 30.0


class ResultsFile:
    """An open results file."""

    def __init__(self, path: str, *, patience_s: float = PATIENCE_S) -> None:
        self.path = path
        self._patience_s = patience_s
        self.run_id = 0
        self._encode = msgspec.json.Encoder().encode_lines
        try:
            self._fd = open_private(path)
            os.set_blocking(self._fd, False)
        except OSError as error:
            raise FatalError(
                f"the results file cannot be written ({error.strerror}): {path}",
                "name another with --results",
            ) from error

    def write(self, results: Sequence[Result]) -> None:
        """Append a line for each result. Raises FatalError."""
        finished_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = self._encode([line(r, self.run_id, finished_at) for r in results])
        try:
            append(self._fd, data, self._patience_s)
        except OSError as error:
            raise FatalError(
                f"the results file cannot be written ({error.strerror}): {self.path}",
                "mend that, or name another with --results; then give the same command again",
            ) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def line(result: Result, run_id: int, finished_at: str) -> dict[str, object]:
    """The object of one line, in the order of the contract."""
    file, header = result.file, result.header
    path = file.path
    text = as_text(path)
    return {
        "run_id": run_id,
        "file_id": result.row_id,
        "root": escaped(file.directory.root.path),
        "path": escaped(path) if text is None else text,
        "path_b64": b64encode(path).decode() if text is None else None,
        "size": file.size if result.size is None else result.size,
        "outcome": result.outcome,
        "evidence": result.evidence,
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


def as_text(path: bytes) -> str | None:
    """A path that is UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None


def escaped(path: bytes) -> str:
    r"""A path as text: what is not UTF-8 as ``\xNN``."""
    return path.decode("utf-8", "backslashreplace")

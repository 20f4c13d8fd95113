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
from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.errors import FatalError
from ingester.items import Result

PATIENCE_S = 30.0

_NO_UIDS = ("",) * 5


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


class Line(msgspec.Struct, gc=False):
    """The object of one line, in the order of the contract. It holds no cycle."""

    run_id: int
    file_id: int
    root: str
    path: str
    path_b64: str | None
    size: int
    outcome: Outcome
    evidence: Evidence | None
    other_file_id: int | None
    findings: tuple[str, ...]
    reason: str
    reason_code: str
    warning_code: int | None
    failure_code: int | None
    http_status: int | None
    attempts: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str | None
    request_id: str
    elapsed_s: float
    finished_at: str


def line(result: Result, run_id: int, finished_at: str) -> Line:
    """What is said of a result.

    By position on both sides: 1.1 µs a line with its encoding, and with names and a dict 2.3.
    """
    (
        file, outcome, reason_code, reason, evidence, size, _, _, header, sha256, other_file_id,
        moved_from, findings, warning_code, failure_code, http_status, attempts, request_id,
        elapsed_s, _, known_as, _,
    ) = result  # fmt: skip
    file_id, directory, name, met_size, _, _ = file
    path = directory.prefix + name
    text = as_text(path)
    study, series, sop, sop_class, syntax = _NO_UIDS if header is None else header[:5]
    return Line(
        run_id,
        file_id if moved_from is None and known_as is None else result.row_id,
        escaped(directory.root.path),
        escaped(path) if text is None else text,
        b64encode(path).decode() if text is None else None,
        met_size if size is None else size,
        outcome, evidence, other_file_id, findings, reason, reason_code, warning_code,
        failure_code, http_status, attempts, study, series, sop, sop_class, syntax,
        None if sha256 is None else sha256.hex(),
        request_id, elapsed_s, finished_at,
    )  # fmt: skip


def as_text(path: bytes) -> str | None:
    """A path that is UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return None


def escaped(path: bytes) -> str:
    r"""A path as text: what is not UTF-8 as ``\xNN``."""
    return path.decode("utf-8", "backslashreplace")

"""Every row of the journal, one after the other, in bounded memory.

It is read in pieces, each its own transaction: a long one would keep the WAL from being taken
over while a run is writing, and let it grow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.journal.opening import connect_reader, reading
from ingester.journal.schema import (
    EVIDENCES,
    OUTCOME_CODES,
    OUTCOMES,
    SEEN_RUN_ID,
    unpack_uid,
)

PIECE: Final = 1_000

_ROWS = """
SELECT f.file_id, r.name, r.path, d.rel_path, f.name, f.size, f.mtime_ns, f.outcome, f.evidence,
    {seen_run_id}, f.decided_run_id, t.uid, s.uid, f.sop_instance_uid, f.sha256,
    x.reason_code, x.reason, x.warning_code, x.failure_code, x.http_status, x.attempts,
    x.request_id, (SELECT file_id FROM files WHERE file_id = x.other_file_id), x.findings
FROM files f
JOIN directories d ON d.dir_id = f.dir_id
JOIN roots r ON r.root_id = d.root_id
LEFT JOIN series s ON s.series_id = f.series_id
LEFT JOIN studies t ON t.study_id = s.study_id
LEFT JOIN details x ON x.file_id = f.file_id
WHERE f.file_id > ? AND f.outcome IN ({codes})
ORDER BY f.file_id LIMIT {piece}"""


class FileRow(NamedTuple):
    """A file as the journal has it. UIDs are '' where none were read."""

    file_id: int
    root: bytes  # its name
    path: bytes  # absolute
    rel_path: bytes  # below the root
    size: int
    mtime_ns: int
    outcome: Outcome
    evidence: Evidence | None
    seen_run_id: int
    decided_run_id: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sha256: bytes | None
    reason_code: str
    reason: str
    warning_code: int | None
    failure_code: int | None
    http_status: int | None
    attempts: int | None  # None: nothing was kept, because nothing was special
    request_id: str
    other_file_id: int | None  # None also where the row of that file is gone
    findings: tuple[str, ...]


def iter_files(path: str, outcomes: Iterable[Outcome] | None = None) -> Iterator[FileRow]:
    """Rows of these outcomes (all) by ascending file_id. Raises JournalError."""
    wanted = OUTCOME_CODES if outcomes is None else outcomes
    codes = ", ".join(str(OUTCOME_CODES[outcome]) for outcome in wanted)
    connection = connect_reader(path)
    try:
        with reading(path):
            version = connection.execute("PRAGMA user_version").get
        seen = SEEN_RUN_ID if version > 2 else "f.seen_run_id"  # one not yet brought forward
        statement = _ROWS.format(codes=codes, piece=PIECE, seen_run_id=seen)
        last = 0
        while True:
            with reading(path):
                rows = [_file_row(row) for row in connection.execute(statement, (last,))]
            if not rows:
                return
            yield from rows
            last = rows[-1].file_id
    finally:
        connection.close(force=True)


def _file_row(row: Sequence[Any]) -> FileRow:
    file_id, root, root_path, directory, name, size, mtime_ns, outcome, evidence, *rest = row
    seen, decided, study, series, sop, sha256, reason_code, reason, *more = rest
    warning, failure, status, attempts, request_id, other, findings = more
    return FileRow(
        file_id=file_id,
        root=root,
        path=os.path.join(root_path, directory, name),
        rel_path=os.path.join(directory, name),
        size=size,
        mtime_ns=mtime_ns,
        outcome=OUTCOMES[outcome],
        evidence=None if evidence is None else EVIDENCES[evidence],
        seen_run_id=seen,
        decided_run_id=decided,
        study_instance_uid="" if study is None else unpack_uid(study),
        series_instance_uid="" if series is None else unpack_uid(series),
        sop_instance_uid="" if sop is None else unpack_uid(sop),
        sha256=sha256,
        reason_code=reason_code or "",
        reason=reason or "",
        warning_code=warning,
        failure_code=failure,
        http_status=status,
        attempts=attempts,
        request_id=request_id or "",
        other_file_id=other,
        findings=tuple(json.loads(findings)) if findings else (),
    )

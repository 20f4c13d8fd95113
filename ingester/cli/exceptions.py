"""What ``status --exceptions`` prints: each file that the last run met and that is not stored."""

from __future__ import annotations

import json
from base64 import b64encode

from ingester.cli import say, tell
from ingester.dicomweb.outcome import INCOMPLETE, Outcome, may_warn_of_pixels
from ingester.journal import FileRow, iter_files, read_status
from ingester.report.results import as_text, escaped
from ingester.report.summary import unreadable_line


def print_exceptions(path: str) -> None:
    """Print JSON objects with the names of the results file, by file_id.

    They are what exit code 3 is about, files that are still pending, and those that the store
    changed. The journal has no row of a directory that could not be read: that is said on stderr.

    Raises:
        JournalError: the journal cannot be read.
        FatalError: stdout cannot be written.
    """
    run = read_status(path).run
    if run is None:
        return
    outcomes = INCOMPLETE | {Outcome.PENDING, Outcome.STORED_WITH_WARNING}
    for row in iter_files(path, outcomes):
        warns = may_warn_of_pixels(row.outcome, row.warning_code)
        kept = row.outcome is Outcome.STORED_WITH_WARNING and not warns
        if row.seen_run_id == run.run_id and not kept:
            say(json.dumps(_object(row)))
    if run.figures.unreadable_directories:
        tell(f"not listed here: {unreadable_line(run.figures.unreadable_directories)}")


def _object(row: FileRow) -> dict[str, object]:
    text = as_text(row.path)
    return {
        "run_id": row.decided_run_id,
        "file_id": row.file_id,
        "path": escaped(row.path) if text is None else text,
        "path_b64": b64encode(row.path).decode() if text is None else None,
        "size": row.size,
        "outcome": row.outcome.value,
        "other_file_id": row.other_file_id,
        "reason": row.reason,
        "reason_code": row.reason_code,
        "warning_code": row.warning_code,
        "failure_code": row.failure_code,
        "http_status": row.http_status,
        "study_instance_uid": row.study_instance_uid,
        "series_instance_uid": row.series_instance_uid,
        "sop_instance_uid": row.sop_instance_uid,
    }

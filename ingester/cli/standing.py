"""What ``status`` says: an object for programs and lines for people."""

from __future__ import annotations

from ingester.errors import UsageError
from ingester.journal import Totals, read_status, read_study
from ingester.report.summary import unreadable_line

Standing = tuple[dict[str, object], list[str]]


def journal_lines(path: str) -> Standing:
    """Of a whole journal. Raises JournalError."""
    status = read_status(path)
    run = status.run
    data: dict[str, object] = {
        "journal": path,
        "target": status.target,
        "live": status.live,
        "pid": status.pid,
        "files": status.totals.files,
        "outcomes": _outcomes(status.totals),
        "run": None,
    }
    lines = [f"journal {path}, target {status.target or 'none yet'}"]
    if run is not None:
        data["run"] = {
            "run_id": run.run_id,
            "name": run.info.name,
            "operator": run.info.operator,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "exit_code": run.exit_code,
            "files": status.run_totals.files,
            "outcomes": _outcomes(status.run_totals),
            "unreadable_directories": run.figures.unreadable_directories,
        }
        if status.live:
            state = f"going on (process {status.pid})"
        elif run.exit_code is None:
            state = "did not come to its end; the same command resumes it"
        else:
            state = f"ended with exit code {run.exit_code} at {run.finished_at}"
        lines.append(f"run {run.run_id}, started {run.started_at}: {state}")
        lines.append(f"  met {_counts(status.run_totals)}")
        if run.figures.unreadable_directories:
            lines.append(f"  {unreadable_line(run.figures.unreadable_directories)}")
    lines.append(f"in all {_counts(status.totals)}")
    return data, lines


def study_lines(path: str, study_instance_uid: str) -> Standing:
    """Of one study. Raises JournalError, and UsageError for a study that was never met."""
    study = read_study(path, study_instance_uid)
    if study is None:
        raise UsageError("no file of this study was met by this journal")
    data: dict[str, object] = {
        "study_instance_uid": study.study_instance_uid,
        "files": study.seen,
        "stored": study.stored,
        "exceptions": study.exceptions,
        "series": [
            {
                "series_instance_uid": series.series_instance_uid,
                "modality": series.modality,
                "files": series.seen,
                "stored": series.stored,
                "exceptions": series.exceptions,
            }
            for series in study.series
        ],
    }
    lines = [
        f"{study.stored:,} of {study.seen:,} files stored, {study.exceptions:,} exceptions",
        *(
            f"  {series.modality or '?'} {series.series_instance_uid}: {series.stored:,} of "
            f"{series.seen:,} stored, {series.exceptions:,} exceptions"
            for series in study.series
        ),
    ]
    return data, lines


def _outcomes(totals: Totals) -> dict[str, int]:
    return {outcome.value: count.files for outcome, count in totals.outcomes.items()}


def _counts(totals: Totals) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in _outcomes(totals).items())
    return f"{totals.files:,} files" + (f": {counts}" if counts else "")

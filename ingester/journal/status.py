"""What a person asks of a journal, also while a run is writing it. Every look-up is by key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

from ingester.journal.lock import live_pid
from ingester.journal.opening import connect_reader, reading
from ingester.journal.runs import Run, read_runs
from ingester.journal.schema import pack_uid, unpack_uid
from ingester.journal.totals import NOTHING, Totals, read_totals


@dataclass(frozen=True, slots=True)
class Status:
    """Where a journal stands."""

    target: str | None  # None until a run has started
    created_at: str  # empty until then
    pid: int | None  # of the live run; 0 if it does not say; None if none is live
    run: Run | None  # the last one
    run_totals: Totals  # files met in that run
    totals: Totals  # every file of the journal

    @property
    def live(self) -> bool:
        """Whether a run is going on."""
        return self.pid is not None


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """A series, by the files that were met."""

    series_instance_uid: str
    modality: str
    seen: int
    stored: int
    exceptions: int


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """A study, by the files that were met."""

    study_instance_uid: str
    year: int | None
    seen_run_id: int  # the last run that met a file of it
    series: tuple[SeriesStatus, ...]

    @property
    def seen(self) -> int:
        """Files of it."""
        return sum(one.seen for one in self.series)

    @property
    def stored(self) -> int:
        """Of these in the store."""
        return sum(one.stored for one in self.series)

    @property
    def exceptions(self) -> int:
        """Of these incomplete."""
        return sum(one.exceptions for one in self.series)


class Reading:
    """One consistent look at a journal. Raises JournalError from every method."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = connect_reader(path)

    def __enter__(self) -> Self:
        self._connection.execute("BEGIN")
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connection.close(force=True)
        if error is not None:
            with reading(self._path):
                raise error

    def status(self) -> Status:
        """See the class of that name."""
        meta: dict[str, Any] = dict(self._connection.execute("SELECT key, value FROM meta"))
        runs = read_runs(self._connection, last=1)
        return Status(
            target=meta.get("target"),
            created_at=meta.get("created_at", ""),
            pid=live_pid(os.path.realpath(self._path)),  # beside which the lock lies
            run=runs[0] if runs else None,
            run_totals=read_totals(self._connection, runs[0].run_id) if runs else NOTHING,
            totals=read_totals(self._connection),
        )

    def runs(self) -> list[Run]:
        """All runs, the latest first."""
        return read_runs(self._connection)

    def study(self, study_instance_uid: str) -> StudyStatus | None:
        """A study and its series, None if no file of it was met."""
        row = self._connection.execute(
            "SELECT study_id, year, seen_run_id FROM studies WHERE uid = ?",
            (pack_uid(study_instance_uid),),
        ).fetchone()
        if row is None:
            return None
        study_id, year, seen_run_id = row
        series = self._connection.execute(
            "SELECT uid, modality, seen, stored, exceptions FROM series WHERE study_id = ?"
            " ORDER BY series_id",
            (study_id,),
        )
        return StudyStatus(
            study_instance_uid,
            year,
            seen_run_id,
            tuple(SeriesStatus(unpack_uid(uid), *rest) for uid, *rest in series),
        )


def read_status(path: str) -> Status:
    """Where the journal stands. Raises JournalError."""
    with Reading(path) as reading:
        return reading.status()


def read_all_runs(path: str) -> list[Run]:
    """Every run, the latest first. Raises JournalError."""
    with Reading(path) as reading:
        return reading.runs()


def read_study(path: str, study_instance_uid: str) -> StudyStatus | None:
    """What became of a study, None if it was never met. Raises JournalError."""
    with Reading(path) as reading:
        return reading.study(study_instance_uid)

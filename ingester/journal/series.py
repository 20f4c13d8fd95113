"""Numbers of studies and series, and which studies a run has met.

Part of the writer's transaction. Bounds: 20,000 series are remembered.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, NamedTuple

from ingester.dicom.values import Header
from ingester.journal.schema import clean_text, pack_uid

if TYPE_CHECKING:
    import apsw

MAX_CACHED_SERIES: Final = 20_000

_STAMP_STUDY = """
UPDATE studies SET seen_run_id = ?1
WHERE study_id = (SELECT study_id FROM series WHERE series_id = ?2) AND seen_run_id <> ?1"""


class SeriesNumbers(NamedTuple):
    """Of a series and its study."""

    series_id: int
    study_id: int


class Series:
    """Of one run after the other. Not thread-safe."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._run_id = 0
        self._numbers: dict[tuple[str, str], SeriesNumbers] = {}
        self._stamped: set[int] = set()

    def start_run(self, run_id: int) -> None:
        """No study was met yet."""
        self._run_id = run_id
        self._stamped.clear()

    def forget(self) -> None:
        """A part of the transaction was taken back, perhaps with rows that are remembered here."""
        self._numbers.clear()
        self._stamped.clear()

    def of(self, header: Header) -> SeriesNumbers:
        """The numbers of a header's series, made where they are new."""
        key = (header.study_instance_uid, header.series_instance_uid)
        return self._numbers.get(key) or self._look_up(header)

    def _look_up(self, header: Header) -> SeriesNumbers:
        study_uid = pack_uid(header.study_instance_uid)
        series_uid = pack_uid(header.series_instance_uid)
        execute = self._connection.execute
        year = header.study_date[:4]
        study_id = execute(
            "INSERT INTO studies (uid, year, seen_run_id) VALUES (?, ?, 0)"
            " ON CONFLICT DO NOTHING RETURNING study_id",
            (study_uid, int(year) if year.isascii() and year.isdigit() else None),
        ).get
        if study_id is None:
            study_id = execute("SELECT study_id FROM studies WHERE uid = ?", (study_uid,)).get
        series_id = execute(
            "INSERT INTO series (study_id, uid, modality) VALUES (?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING series_id",
            (study_id, series_uid, clean_text(header.modality)),
        ).get
        if series_id is None:
            series_id = execute(
                "SELECT series_id FROM series WHERE study_id = ? AND uid = ?",
                (study_id, series_uid),
            ).get
        if len(self._numbers) >= MAX_CACHED_SERIES:
            self._numbers.clear()
        numbers = SeriesNumbers(series_id, study_id)
        self._numbers[header.study_instance_uid, header.series_instance_uid] = numbers
        return numbers

    def stamp_studies(self, series_ids: AbstractSet[int]) -> None:
        """Count the studies that this run had not met before."""
        new = series_ids - self._stamped
        if new:
            before = self._connection.total_changes()
            self._connection.executemany(_STAMP_STUDY, [(self._run_id, one) for one in new])
            self._connection.execute(
                "UPDATE runs SET studies = studies + ? WHERE run_id = ?",
                (self._connection.total_changes() - before, self._run_id),
            )
            if len(self._stamped) >= MAX_CACHED_SERIES:
                self._stamped.clear()
            self._stamped |= new

"""Image sets: what HealthImaging makes of the instances of a series.

The first instance of a study says what its grouping elements are, and the first of a series what
the series' are; whoever agrees with them joins the primary image set. Others end in one that is
not primary, a new one for each request that brings them: QIDO-RS and WADO-RS do not show these,
and every resend makes another. SearchImageSets shows both.

Everything here blocks and belongs to the thread of the index.
"""

import secrets
import sqlite3
import time
from collections.abc import Mapping
from typing import NamedTuple

from ingester.emulator.part10 import Identity

SCHEMA = """
CREATE TABLE IF NOT EXISTS image_set (
    id TEXT PRIMARY KEY,
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    study_date TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    study_id TEXT NOT NULL,
    series_number TEXT NOT NULL,
    modality TEXT NOT NULL,
    is_primary INTEGER NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    last_request TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS image_set_by_series
    ON image_set (study_instance_uid, series_instance_uid, is_primary);
CREATE TABLE IF NOT EXISTS non_primary (
    image_set_id TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    PRIMARY KEY (image_set_id, sop_instance_uid)
) WITHOUT ROWID;
"""

_STUDY = ("study_date", "accession_number", "patient_id", "study_id")
_GROUPING = (*_STUDY, "series_number")
_COLUMNS = ("study_instance_uid", "series_instance_uid", *_GROUPING, "modality")

_FIND_PRIMARY = """
SELECT * FROM image_set WHERE study_instance_uid = ? AND is_primary
ORDER BY series_instance_uid <> ? LIMIT 1
"""
_PUT = f"""
INSERT INTO image_set (id, {", ".join(_COLUMNS)}, is_primary, last_request, created_at, updated_at)
VALUES (:id, {", ".join(f":{name}" for name in _COLUMNS)}, :is_primary, :request, :now, :now)
ON CONFLICT DO UPDATE SET version = version + (last_request <> excluded.last_request),
    last_request = excluded.last_request, updated_at = excluded.updated_at
"""  # noqa: S608 - names of ours
_FIND_REQUESTED = f"""
SELECT id FROM image_set WHERE last_request = :request AND NOT is_primary
AND {" AND ".join(f"{name} = :{name}" for name in _COLUMNS[:-1])}
"""  # noqa: S608 - the same

# What may be compared, by the names of SearchByAttributeValue: the column or the expression.
SEARCH_KEYS = {
    "DICOMPatientId": "patient_id",
    "DICOMAccessionNumber": "accession_number",
    "DICOMStudyId": "study_id",
    "DICOMStudyInstanceUID": "study_instance_uid",
    "DICOMSeriesInstanceUID": "series_instance_uid",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "isPrimary": "is_primary",
}
SORT_KEYS = ("updatedAt", "createdAt")

Value = str | int | float
Row = Mapping[str, Value]


class Filter(NamedTuple):
    """One condition: a value between two, or equal to both."""

    key: str  # of SEARCH_KEYS
    least: Value
    most: Value


class ImageSets:
    """The image sets of one index."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def primary_of(self, identity: Identity) -> str | None:
        """The primary image set an instance belongs to, maybe a new id; None if it conflicts."""
        row = self._database.execute(
            _FIND_PRIMARY, (identity.study_instance_uid, identity.series_instance_uid)
        ).fetchone()
        if row is None:
            return _new_id()
        if any(row[name] != getattr(identity, name) for name in _STUDY):
            return None
        if row["series_instance_uid"] != identity.series_instance_uid:
            return _new_id()
        return row["id"] if row["series_number"] == identity.series_number else None

    def other_of(self, identity: Identity, request: str) -> str:
        """The image set of a conflicting instance: one a request, series and set of values."""
        match = {name: getattr(identity, name) for name in _COLUMNS}
        row = self._database.execute(_FIND_REQUESTED, {**match, "request": request}).fetchone()
        return _new_id() if row is None else row["id"]

    def put(self, image_set_id: str, identity: Identity, request: str, *, is_primary: bool) -> None:
        """Record that a request stores an instance into an image set, new or known."""
        values = {name: getattr(identity, name) for name in _COLUMNS}
        named = {"id": image_set_id, "is_primary": is_primary, "request": request}
        self._database.execute(_PUT, {**values, **named, "now": time.time()})
        if not is_primary:
            self._database.execute(
                "INSERT OR IGNORE INTO non_primary VALUES (?, ?)",
                (image_set_id, identity.sop_instance_uid),
            )

    def others(self) -> list[tuple[str, str]]:
        """Image set id and SOP Instance UID of everything that is not primary."""
        return [tuple(row) for row in self._database.execute("SELECT * FROM non_primary")]

    def remove_other(self, image_set_id: str, sop_instance_uid: str) -> None:
        """Forget an instance that is not primary and whose file is gone."""
        self._database.execute(
            "DELETE FROM non_primary WHERE (image_set_id, sop_instance_uid) = (?, ?)",
            (image_set_id, sop_instance_uid),
        )

    def remove_empty(self) -> None:
        """Forget the image sets that have no instance any more."""
        self._database.execute(
            """DELETE FROM image_set WHERE CASE WHEN is_primary
            THEN (study_instance_uid, series_instance_uid) NOT IN
                (SELECT study_instance_uid, series_instance_uid FROM instance)
            ELSE id NOT IN (SELECT image_set_id FROM non_primary) END"""
        )

    def search(
        self, filters: list[Filter], sort: str, limit: int, offset: int, *, descending: bool
    ) -> list[Row]:
        """Image sets that match all filters, each with ``instances``, how many it has.

        Args:
            filters: Conditions by names of ``SEARCH_KEYS``.
            sort: One of ``SORT_KEYS``.
            limit: The most results.
            offset: The results to skip before them.
            descending: The newest first.
        """
        where = " AND ".join(f"{SEARCH_KEYS[it.key]} BETWEEN ? AND ?" for it in filters) or "TRUE"
        order = f"{SEARCH_KEYS[sort]} {'DESC' if descending else 'ASC'}, id"
        rows = self._database.execute(
            f"""SELECT image_set.*, CASE WHEN is_primary
            THEN (SELECT count(*) FROM instance WHERE
                instance.study_instance_uid = image_set.study_instance_uid AND
                instance.series_instance_uid = image_set.series_instance_uid)
            ELSE (SELECT count(*) FROM non_primary WHERE image_set_id = id) END AS instances
            FROM image_set WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?""",  # noqa: S608 - names of ours
            (*(bound for it in filters for bound in (it.least, it.most)), limit, offset),
        )
        return [dict(row) for row in rows]


def _new_id() -> str:
    return secrets.token_hex(16)

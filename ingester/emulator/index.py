"""The index of the store: which instances there are, in SQLite beside the files.

Everything here blocks and belongs to one thread. A commit survives the death of the process, not
that of the machine: the emulator keeps test data.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

from ingester.emulator.image_sets import SCHEMA as IMAGE_SETS_SCHEMA
from ingester.emulator.image_sets import ImageSets
from ingester.emulator.part10 import Identity

Level = Literal["study", "series", "instance"]
Row = dict[str, str | int]  # by the snake_case keyword of the attribute

# An index of another version is made anew from the files; the versions they had are lost.
_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS datastore (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS instance (
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (study_instance_uid, series_instance_uid, sop_instance_uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS instance_by_series ON instance (series_instance_uid);
CREATE INDEX IF NOT EXISTS instance_by_sop ON instance (sop_instance_uid);
"""

_PUT = """
INSERT INTO instance (study_instance_uid, series_instance_uid, sop_instance_uid,
                      sop_class_uid, transfer_syntax_uid, modality)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sop_class_uid = excluded.sop_class_uid,
    transfer_syntax_uid = excluded.transfer_syntax_uid,
    modality = excluded.modality, version = version + 1
RETURNING version
"""

# What a search returns at each level (PS3.18 section 10.6.3.3), and what makes one result.
_SELECT: dict[Level, str] = {
    "study": """SELECT study_instance_uid, group_concat(DISTINCT modality) AS modalities_in_study,
        count(DISTINCT series_instance_uid) AS number_of_study_related_series,
        count(*) AS number_of_study_related_instances FROM instance""",
    "series": """SELECT study_instance_uid, series_instance_uid, min(modality) AS modality,
        count(*) AS number_of_series_related_instances FROM instance""",
    "instance": "SELECT * FROM instance",
}
_GROUP: dict[Level, str] = {
    "study": "GROUP BY study_instance_uid ORDER BY study_instance_uid",
    "series": "GROUP BY study_instance_uid, series_instance_uid "
    "ORDER BY study_instance_uid, series_instance_uid",
    "instance": "ORDER BY study_instance_uid, series_instance_uid, sop_instance_uid",
}

# What may be searched by: never a column that a study or series is not of one mind about.
SEARCH_KEYS: dict[Level, tuple[str, ...]] = {
    "study": ("study_instance_uid",),
    "series": ("study_instance_uid", "series_instance_uid", "modality"),
    "instance": (
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
        "sop_class_uid",
        "modality",
    ),
}


class Key(NamedTuple):
    """What names one instance in the store."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


class Index:
    """One SQLite file, held by one process at a time.

    Raises:
        sqlite3.OperationalError: Another process holds the file.
    """

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        try:
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF"):
                self._database.execute(f"PRAGMA {pragma}")
            if self._database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                for table in ("instance", "image_set", "non_primary"):
                    self._database.execute(f"DROP TABLE IF EXISTS {table}")
            self._database.executescript(_SCHEMA + IMAGE_SETS_SCHEMA)
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error:
            self._database.close()
            raise
        self.image_sets = ImageSets(self._database)

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def datastore(self) -> str | None:
        """The datastore id this store has gone by, if it ever had one."""
        row = self._database.execute("SELECT id FROM datastore").fetchone()
        return None if row is None else str(row[0])

    def set_datastore(self, datastore: str) -> None:
        """Remember the datastore id, so that a restart has the same base URL."""
        self._database.execute("DELETE FROM datastore")
        self._database.execute("INSERT INTO datastore VALUES (?)", (datastore,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes within, or none."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def put(self, identity: Identity) -> int:
        """Record that an instance is stored (again) as a primary one; returns its version."""
        row = self._database.execute(
            _PUT,
            (
                identity.study_instance_uid,
                identity.series_instance_uid,
                identity.sop_instance_uid,
                identity.sop_class_uid,
                identity.transfer_syntax_uid,
                identity.modality,
            ),
        ).fetchone()
        return int(row[0])

    def get(self, key: Key) -> Row | None:
        """Everything known of one instance, its ``version`` included."""
        rows = self.search("instance", key._asdict(), limit=1, offset=0)
        return rows[0] if rows else None

    def remove(self, key: Key) -> None:
        """Forget an instance whose file is gone."""
        self._database.execute(
            "DELETE FROM instance WHERE (study_instance_uid, series_instance_uid,"
            " sop_instance_uid) = (?, ?, ?)",
            key,
        )

    def all_keys(self) -> Iterator[Key]:
        """Every instance. The index must not be changed meanwhile."""
        columns = ", ".join(Key._fields)
        for row in self._database.execute(f"SELECT {columns} FROM instance"):  # noqa: S608 - names of ours
            yield Key(*row)

    def search(self, level: Level, match: Mapping[str, str], limit: int, offset: int) -> list[Row]:
        """Studies, series or instances that match, ordered by UID so that pages do not overlap.

        Args:
            level: What one result is.
            match: Exact values by names out of ``SEARCH_KEYS[level]``, or of a level above.
            limit: The most results.
            offset: The results to skip before them.
        """
        where = " AND ".join(f"{column} = :{column}" for column in match) or "TRUE"
        rows = self._database.execute(
            f"{_SELECT[level]} WHERE {where} {_GROUP[level]} LIMIT :limit OFFSET :offset",
            {**match, "limit": limit, "offset": offset},
        )
        return [dict(row) for row in rows]

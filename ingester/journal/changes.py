"""The changes that a group of results makes: gathered by table, written with few statements.

Every row that comes or goes passes ``count``, those that are written whole ``_count_files``, so
totals and the counters of series are what a recount would find.

Claims: a row of ``instances`` follows its holder's row in ``files`` for as long as that row is
about the same content. When it moves on, the claim is *frozen* (``sent_*`` say what the store was
sent) if the store has the instance, and goes away if it was released.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from ingester.dicomweb.outcome import INCOMPLETE, Outcome
from ingester.journal.schema import HIGHEST_DROPPED, HOLDS_MAX, IN_THE_STORE_MAX, OUTCOME_CODES
from ingester.journal.totals import COUNT_TOTALS, Tally

if TYPE_CHECKING:
    import apsw

GONE: Final = 99  # instead of an outcome: the row goes away
ALREADY_STORED: Final = OUTCOME_CODES[Outcome.ALREADY_STORED]
IN_DOUBT: Final = OUTCOME_CODES[Outcome.IN_DOUBT]
PENDING: Final = OUTCOME_CODES[Outcome.PENDING]
ENDS_A_DOUBT: Final = frozenset(
    OUTCOME_CODES[outcome] for outcome in (Outcome.REJECTED, Outcome.DUPLICATE, Outcome.CONFLICT)
)
"""Of the very bytes that may have been stored: the server, or another file, has the last word."""
PUT_OVER_ANOTHER: Final = frozenset(
    OUTCOME_CODES[outcome]
    for outcome in (Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.IN_DOUBT)
)
"""Of other bytes than were sent before: the store may have these by now."""
INCOMPLETE_CODES: Final = frozenset(OUTCOME_CODES[outcome] for outcome in INCOMPLETE)

_ROWS_AT_ONCE: Final = (64, 16, 4, 1)  # so few different statements stay prepared

_PUT_FILE = """
INSERT INTO files VALUES {rows}
ON CONFLICT (file_id) DO UPDATE SET
    size = excluded.size, mtime_ns = excluded.mtime_ns, mtime_trusted = excluded.mtime_trusted,
    outcome = excluded.outcome, evidence = excluded.evidence,
    pixel_warning = excluded.pixel_warning, seen_run_id = excluded.seen_run_id,
    decided_run_id = excluded.decided_run_id, series_id = excluded.series_id,
    sop_instance_uid = excluded.sop_instance_uid, sha256 = excluded.sha256"""
_KEEP_FILE = """
UPDATE files SET size = ?, mtime_ns = ?, mtime_trusted = ?, seen_run_id = ?,
    sha256 = coalesce(?, sha256)
WHERE file_id = ?"""
_MOVE_FILE = "UPDATE files SET dir_id = ?, name = ? WHERE file_id = ?"
_KEEP_NUMBER = f"""
INSERT INTO meta VALUES ('{HIGHEST_DROPPED}', ?) ON CONFLICT DO UPDATE SET value = excluded.value
WHERE CAST(excluded.value AS INTEGER) > CAST(value AS INTEGER)"""  # noqa: S608 - a constant
_DROP_FILE = "DELETE FROM files WHERE file_id = ?"
_PUT_DETAILS = "REPLACE INTO details VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP_DETAILS = "DELETE FROM details WHERE file_id = ?"
# A claim gives way to one that is firmer, and to every instance that the store says it has; but
# of what it had already, only where that is not known to be something else.
_OUTCOME_OF = "(SELECT outcome FROM files WHERE file_id = {}.holder_file_id)"
_BYTES_OF = "(SELECT size, sha256 FROM files WHERE file_id = excluded.holder_file_id)"
# A doubt takes the claim, and what was stored before stays with it: it may be there still.
_DOUBT_OVER_STORED = f"""
    sent_outcome <= {IN_THE_STORE_MAX} AND {_OUTCOME_OF.format("excluded")} = {IN_DOUBT}"""
_PUT_CLAIM = f"""
INSERT INTO instances (study_id, sop_instance_uid, holder_file_id) VALUES {{rows}}
ON CONFLICT DO UPDATE SET holder_file_id = excluded.holder_file_id,
    (sent_outcome, sent_size, sent_sha256) = (
        SELECT sent_outcome, sent_size, sent_sha256 WHERE {_DOUBT_OVER_STORED})
WHERE {_OUTCOME_OF.format("excluded")} < {ALREADY_STORED}
    OR {_OUTCOME_OF.format("excluded")} = {ALREADY_STORED}
        AND (sent_outcome IS NULL OR (sent_size, sent_sha256) IS {_BYTES_OF})
    OR {_DOUBT_OVER_STORED}
    OR {_OUTCOME_OF.format("excluded")} < coalesce(
        sent_outcome, {_OUTCOME_OF.format("instances")}, 99)"""  # noqa: S608 - constants
_DROP_CLAIM = """
DELETE FROM instances WHERE study_id = ? AND sop_instance_uid = ? AND holder_file_id = ?
    AND sent_outcome IS NULL"""
# A doubt is later than what was stored before, and may be over it.
_FREEZE_CLAIM = f"""
UPDATE instances SET sent_outcome = ?1, sent_size = ?2, sent_sha256 = ?3
WHERE study_id = ?4 AND sop_instance_uid = ?5 AND holder_file_id = ?6
    AND (sent_outcome IS NULL OR ?1 = {IN_DOUBT})"""  # noqa: S608 - a constant
# Two files of one instance in doubt: from now on nobody can tell which of them the store has.
_FREEZE_OTHER_DOUBT = f"""
UPDATE instances SET (sent_outcome, sent_size, sent_sha256) = (
    SELECT outcome, size, sha256 FROM files WHERE file_id = holder_file_id)
WHERE study_id = ? AND sop_instance_uid = ? AND holder_file_id <> ? AND sent_outcome IS NULL
    AND (SELECT outcome FROM files WHERE file_id = holder_file_id) = {IN_DOUBT}"""  # noqa: S608 - a constant
_COUNT_SERIES = """
UPDATE series SET seen = seen + ?, stored = stored + ?, exceptions = exceptions + ?
WHERE series_id = ?"""


Overtaken = tuple[int | None, bytes, int]
"""An instance (study_id, packed UID), and the file_id of what was sent of it."""


FileRow = tuple[
    int, int, bytes, int, int, int, int, int | None, int, int, int,
    int | None, bytes | None, bytes | None,
]  # fmt: skip
"""In the order of the table's columns."""


class Row(NamedTuple):
    """What a row of ``files`` says that counts."""

    file_id: int
    size: int
    outcome: int
    pixel_warning: int
    seen_run_id: int
    series_id: int | None
    study_id: int | None
    sop_instance_uid: bytes | None
    sha256: bytes | None
    mtime_ns: int


class Changes:
    """Of one group, in one run."""

    def __init__(self, run_id: int) -> None:
        self.run_id = run_id
        self.files: list[FileRow] = []  # each comes, and is counted when all are there
        self.kept: list[tuple[object, ...]] = []
        self.moved: list[tuple[int, bytes, int]] = []
        self.dropped: list[tuple[int]] = []
        self.details: list[tuple[object, ...]] = []
        self.details_dropped: list[tuple[int]] = []
        self.overtaken: list[Overtaken] = []  # the store had other bytes than were sent now
        self.claims: list[tuple[int, bytes, int]] = []
        self.doubts: list[tuple[int, bytes, int]] = []  # of these
        self.claims_dropped: list[tuple[int, bytes, int]] = []
        self.claims_frozen: list[tuple[object, ...]] = []
        self.series: dict[int, list[int]] = {}
        self.journal = Tally()
        self.run = Tally()

    def count(self, row: Row, sign: int) -> None:
        """A row comes (1) or goes (-1)."""
        slot = row.outcome * 2 + row.pixel_warning
        self.journal.add(slot, sign, sign * row.size)
        if row.seen_run_id == self.run_id:
            self.run.add(slot, sign, sign * row.size)
        if row.series_id is not None:
            self.count_series(row.series_id, row.outcome, sign)

    def count_series(self, series_id: int, outcome: int, files: int) -> None:
        """Files of the series come, or go (negative)."""
        counters = self.series.get(series_id)
        if counters is None:
            counters = self.series[series_id] = [0, 0, 0]
        counters[0] += files
        if outcome <= IN_THE_STORE_MAX:
            counters[1] += files
        elif outcome in INCOMPLETE_CODES:
            counters[2] += files

    def _count_files(self) -> None:
        """Rows that come are counted together: most of a group are of few series and one end."""
        alike: dict[tuple[int, int, int | None], list[int]] = {}
        for _, _, _, size, _, _, outcome, _, pixel_warning, _, _, series_id, _, _ in self.files:
            counters = alike.get((outcome, pixel_warning, series_id))
            if counters is None:
                counters = alike[outcome, pixel_warning, series_id] = [0, 0]
            counters[0] += 1
            counters[1] += size
        for (outcome, pixel_warning, series_id), (files, size) in alike.items():
            slot = outcome * 2 + pixel_warning
            self.journal.add(slot, files, size)
            self.run.add(slot, files, size)
            if series_id is not None:
                self.count_series(series_id, outcome, files)

    def _freeze_claim(self, row: Row) -> None:
        """The store has what this row spoke of; the row will speak of something else."""
        if row.study_id is not None and row.sop_instance_uid is not None:
            claim = (row.study_id, row.sop_instance_uid, row.file_id)
            self.claims_frozen.append((row.outcome, row.size, row.sha256, *claim))

    def _drop_claim(self, row: Row) -> None:
        """Nothing keeps others from this instance any more."""
        if row.study_id is not None and row.sop_instance_uid is not None:
            self.claims_dropped.append((row.study_id, row.sop_instance_uid, row.file_id))

    def pass_claim(
        self, old: Row, outcome: int, *, same_instance: bool, same_bytes: bool = False
    ) -> None:
        """What becomes of the claim of a row that had ``old`` and now has ``outcome``."""
        if old.outcome <= IN_THE_STORE_MAX:
            kept = outcome == ALREADY_STORED and not same_bytes  # what the store was sent before
            if kept or not (same_instance and outcome <= IN_THE_STORE_MAX):
                self._freeze_claim(old)
        elif old.outcome == IN_DOUBT:
            if same_instance and same_bytes and outcome in ENDS_A_DOUBT:
                self._drop_claim(old)
            elif outcome > HOLDS_MAX or not same_instance or not same_bytes:
                self._freeze_claim(old)  # two may be in doubt: a hit tells nobody which
        elif old.outcome == PENDING and not (same_instance and outcome <= HOLDS_MAX):
            self._drop_claim(old)

    def write(self, connection: apsw.Connection) -> None:
        """All of it. Rows go before rows come: a path has one row."""
        self._count_files()
        for write, statement, rows in (
            (_one_by_one, _KEEP_NUMBER, [(str(number),) for (number,) in self.dropped]),
            (_one_by_one, _DROP_FILE, self.dropped),
            (_one_by_one, _DROP_DETAILS, self.details_dropped),
            (_one_by_one, _MOVE_FILE, self.moved),
            (_by_the_dozen, _PUT_FILE, self.files),
            (_one_by_one, _KEEP_FILE, self.kept),
            (_one_by_one, _PUT_DETAILS, self.details),
            (_one_by_one, _DROP_CLAIM, self.claims_dropped),
            (_one_by_one, _FREEZE_CLAIM, self.claims_frozen),
            (_one_by_one, _FREEZE_OTHER_DOUBT, self.doubts),
            (_by_the_dozen, _PUT_CLAIM, self.claims),
            (_one_by_one, COUNT_TOTALS, self.journal.rows(0) + self.run.rows(self.run_id)),
            (_one_by_one, _COUNT_SERIES, [(*n, series) for series, n in self.series.items()]),
        ):
            if rows:
                write(connection, statement, rows)


def _one_by_one(
    connection: apsw.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> None:
    connection.executemany(statement, rows)


def _by_the_dozen(
    connection: apsw.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert many rows with few statements.

    Every statement lets go of the interpreter, and under load it is 20 µs until it has it again.
    """
    row = f"({', '.join('?' * len(rows[0]))})"
    start = 0
    for count in _ROWS_AT_ONCE:
        many = statement.format(rows=", ".join([row] * count))
        while len(rows) - start >= count:
            connection.execute(many, tuple(chain.from_iterable(rows[start : start + count])))
            start += count

"""Turns results into rows, inside the transaction of the writer.

A group of results is looked up in one statement, then worked out in plain Python, then written
with one ``executemany`` a table (``changes``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ingester.dicomweb.outcome import Evidence, Outcome, may_warn_of_pixels
from ingester.items import FileRef, Result, Skipped
from ingester.journal.carrays import numbers
from ingester.journal.changes import GONE, IN_DOUBT, PUT_OVER_ANOTHER, Changes, Overtaken, Row
from ingester.journal.copies import take_up_copies
from ingester.journal.details import details_of, has_details
from ingester.journal.listings import Met, stamp_directories
from ingester.journal.schema import (
    EVIDENCE_CODES,
    EVIDENCES,
    HOLDS_MAX,
    IN_THE_STORE_MAX,
    OUTCOME_CODES,
    SEEN_RUN_ID,
    clean_int,
    pack_uid,
)
from ingester.journal.series import Series
from ingester.journal.totals import COUNT_TOTALS, Tally, Totals, read_totals

if TYPE_CHECKING:
    import apsw

_EXISTING = f"""
SELECT f.file_id, f.size, f.outcome, f.pixel_warning, {SEEN_RUN_ID}, f.series_id, s.study_id,
    f.sop_instance_uid, f.sha256, f.mtime_ns
FROM files f LEFT JOIN series s ON s.series_id = f.series_id
LEFT JOIN directories d ON d.dir_id = f.dir_id
WHERE f.file_id IN carray(?)"""  # noqa: S608 - a constant
_AT_PATH = f"""
SELECT f.file_id, {SEEN_RUN_ID} FROM files f LEFT JOIN directories d ON d.dir_id = f.dir_id
WHERE f.dir_id = ? AND f.name = ?"""  # noqa: S608 - a constant
_NOT_YET_SEEN = f"""
SELECT f.outcome, f.pixel_warning, f.series_id, count(*), sum(f.size)
FROM files f LEFT JOIN directories d ON d.dir_id = f.dir_id
WHERE f.file_id IN carray(?) AND {SEEN_RUN_ID} <> ? GROUP BY 1, 2, 3"""  # noqa: S608 - a constant

_HOLDER = "SELECT holder_file_id FROM instances WHERE study_id = ? AND sop_instance_uid = ?"
_SAID = """
SELECT f.evidence, x.warning_code FROM files f LEFT JOIN details x USING (file_id)
WHERE f.file_id = ?"""
_SENT = """
SELECT sent_size, sent_sha256 FROM instances
WHERE study_id = ? AND sop_instance_uid = ? AND sent_outcome NOT NULL"""


class Recorder:
    """Writes results and sightings of one run after the other. Not thread-safe."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.run_id = 0
        self._series = Series(connection)

    def start_run(self, run_id: int) -> None:
        """What comes from now on is of this run."""
        self.run_id = run_id
        self._series.start_run(run_id)

    def run_totals(self) -> Totals:
        """Of the current run, as this transaction sees them."""
        return read_totals(self._connection, self.run_id)

    def record(self, results: Sequence[Result]) -> list[Result]:
        """Write what became of these files, in this order; returns what was written.

        That may differ: a file that moved was met twice, a row it speaks of is not there.
        """
        recorded: list[Result] = []
        import apsw  # noqa: PLC0415 - loaded by whoever made the connection

        for part in _without_repeats(results):
            try:
                with self._connection:
                    recorded += self._record(part)
            except apsw.ConstraintError:
                self._series.forget()
                for result in part:
                    recorded += self._record_at_its_path(result)
        return recorded

    def _record_at_its_path(self, result: Result) -> list[Result]:
        """Some file systems list a name twice: it is one file, and what was said first counts."""
        file = result.file
        path = (file.directory.dir_id, file.name)
        row = self._connection.execute(_AT_PATH, path).fetchone()
        if row is None or row[0] == file.file_id:
            return self._record([result])
        if row[1] != self.run_id:
            return self._record([result._replace(file=file._replace(file_id=row[0]))])
        return []

    def seen(self, refs: Sequence[FileRef]) -> None:
        """Stamp files that were met and need no work."""
        ids = array("q", {ref.file_id for ref in refs})
        met = self._connection.execute(_NOT_YET_SEEN, (numbers(ids), self.run_id)).fetchall()
        self._connection.execute(
            "UPDATE files SET seen_run_id = ?1 WHERE file_id IN carray(?2) AND seen_run_id <> ?1",
            (self.run_id, numbers(ids)),
        )
        if self._count(met) < len(ids):
            self._add_missing(refs)

    def skipped(self, directories: Sequence[Skipped]) -> None:
        """Stamp directories that need no work, and count their files as met."""
        self._count(stamp_directories(self._connection, self.run_id, directories))

    def _count(self, met: Iterable[Met]) -> int:
        """Files of earlier runs were met in this one; how many."""
        tally, files, series = Tally(), 0, set()
        for outcome, pixel_warning, series_id, count, size in met:
            tally.add(outcome * 2 + pixel_warning, count, size)
            files += count
            if series_id is not None:
                series.add(series_id)
        self._connection.executemany(COUNT_TOTALS, tally.rows(self.run_id))
        self._series.stamp_studies(series)
        return files

    def _add_missing(self, refs: Sequence[FileRef]) -> None:
        """A file whose row is not there must not be passed over: the next run looks again."""
        there = self._existing(array("q", [ref.file_id for ref in refs]))
        missing = [ref for ref in refs if ref.file_id not in there]
        self.record([_as_missing(Result(ref, Outcome.PENDING)) for ref in missing])

    def _existing(self, ids: array[int]) -> dict[int, Row]:
        rows = self._connection.execute(_EXISTING, (numbers(ids),))
        return {row[0]: Row._make(row) for row in rows}

    def _record(self, results: Sequence[Result]) -> list[Result]:
        recorded: list[Result] = []
        ids = array("q", [result.file.file_id for result in results])
        ids.extend(_rows_elsewhere(results))
        existing = self._existing(ids)
        changes = Changes(self.run_id)
        overtaken: list[tuple[Overtaken, int]] = []
        for position, result in enumerate(results):
            if result.moved_from is not None or result.unchanged:
                instead = self._keep(result, existing, changes)
                if instead is None:
                    recorded.append(self._with_what_its_row_says(result))
                    continue
                result = instead  # noqa: PLW2901 - the row it speaks of is not there
            recorded.append(self._replace_row_of(result, existing, changes))
            if changes.overtaken:
                overtaken.extend((what, position) for what in changes.overtaken[len(overtaken) :])
        changes.write(self._connection)
        self._series.stamp_studies(set(changes.series))
        if overtaken:
            positions = {result.row_id: position for position, result in enumerate(results)}
            recorded += take_up_copies(self._connection, self.run_id, overtaken, positions)
        return recorded

    def _replace_row_of(self, result: Result, existing: dict[int, Row], changes: Changes) -> Result:
        """The file's row says what this result says, wherever it was until now."""
        row = None if result.known_as is None else existing.get(result.known_as)
        if row is None or row.seen_run_id == self.run_id:
            self._replace(result, existing.get(result.file.file_id) if existing else None, changes)
            return result if result.known_as is None else result._replace(known_as=None)
        _move(row, result.file, existing, changes)
        file = result.file._replace(file_id=row.file_id)
        self._replace(result._replace(file=file), row, changes)
        return result

    def _replace(self, result: Result, old: Row | None, changes: Changes) -> None:
        """The row says from now on what this result says."""
        (
            file, outcome, _, _, evidence, size, mtime_ns, mtime_trusted, header, sha256, _, _, _,
            warning_code, _, _, _, _, _, _, _, over_another,
        ) = result  # fmt: skip
        file_id, directory, name, met_size, met_mtime_ns, _ = file
        series_id = study_id = sop_instance_uid = None
        if header is not None and header.sop_instance_uid:
            sop_instance_uid = pack_uid(header.sop_instance_uid)
            if header.study_instance_uid and header.series_instance_uid:
                series_id, study_id = self._series.of(header)
        code = OUTCOME_CODES[outcome]
        size = met_size if size is None else size
        mtime_ns = clean_int(met_mtime_ns if mtime_ns is None else mtime_ns)
        pixel_warning = 1 if may_warn_of_pixels(outcome, warning_code) else 0
        run_id = self.run_id
        changes.files.append((
            file_id, directory.dir_id, name, size, mtime_ns, 1 if mtime_trusted else 0, code,
            None if evidence is None else EVIDENCE_CODES[evidence], pixel_warning,
            run_id, run_id, series_id, sop_instance_uid, sha256,
        ))  # fmt: skip
        if has_details(result):
            changes.details.append(details_of(result))
        elif old is not None:
            changes.details_dropped.append((file_id,))
        if old is not None or over_another or code == IN_DOUBT:
            new = Row(
                file_id, size, code, pixel_warning, run_id,
                series_id, study_id, sop_instance_uid, sha256, mtime_ns,
            )  # fmt: skip
            self._follow(result, old, new, changes)
        if code <= HOLDS_MAX and study_id is not None and sop_instance_uid is not None:
            claim = (study_id, sop_instance_uid, file_id)
            changes.claims.append(claim)
            if code == IN_DOUBT:
                changes.doubts.append(claim)

    def _follow(self, result: Result, old: Row | None, new: Row, changes: Changes) -> None:
        """What a row was, if it was, goes; and with it what others were copies of, perhaps."""
        known, over_another = False, True
        if old is not None:
            changes.count(old, -1)
            same_instance = (new.study_id, new.sop_instance_uid) == (
                old.study_id,
                old.sop_instance_uid,
            )
            same_bytes = (new.size, new.mtime_ns) == (old.size, old.mtime_ns)
            if new.sha256 is not None and old.sha256 is not None:
                same_bytes = new.sha256 == old.sha256
            changes.pass_claim(old, new.outcome, same_instance=same_instance, same_bytes=same_bytes)
            known = same_instance and old.outcome <= IN_DOUBT
            over_another = not (known and same_bytes)
        if (
            over_another
            and new.outcome in PUT_OVER_ANOTHER
            and new.sop_instance_uid is not None
            and self._other_was_sent(result, new, unless_frozen=known)
        ):
            changes.overtaken.append((new.study_id, new.sop_instance_uid, new.file_id))

    def _other_was_sent(self, result: Result, new: Row, *, unless_frozen: bool) -> bool:
        """Whether the store had other bytes of an instance than it was sent now.

        Of a file that was refused, broken or another instance since, or that the store has an
        earlier version of, its row does not say it. ``unless_frozen``: what the row says.
        """
        if result.evidence is Evidence.BYTES:
            return False
        sent = self._connection.execute(_SENT, (new.study_id, new.sop_instance_uid)).fetchone()
        if sent is None:
            return unless_frozen
        return bool(new.sha256 is None or (new.size, new.sha256) != sent)

    def _keep(self, result: Result, existing: dict[int, Row], changes: Changes) -> Result | None:
        """The row stays as it was decided, perhaps at another path; or what to record instead."""
        file = result.file
        row_id = file.file_id if result.moved_from is None else result.moved_from
        old = existing.get(row_id)
        if result.moved_from is not None and not self._is_of(old, result):
            return self._stored_by_its_bytes(result)
        if old is None:
            return _as_missing(result)
        if result.moved_from is not None and row_id != file.file_id:
            # It was met in this run: both files are there. Or it is in doubt, with later bytes.
            if old.seen_run_id == self.run_id or old.outcome > IN_THE_STORE_MAX:
                return _as_duplicate(result, row_id)
            _move(old, file, existing, changes)
        size = file.size if result.size is None else result.size
        mtime_ns = file.mtime_ns if result.mtime_ns is None else result.mtime_ns
        sha256 = result.sha256
        other_digest = sha256 is not None and old.sha256 is not None and sha256 != old.sha256
        if (size != old.size or other_digest) and old.outcome <= IN_THE_STORE_MAX:
            changes.pass_claim(old, GONE, same_instance=False)
        trusted = 1 if result.mtime_trusted else 0
        changes.kept.append((size, clean_int(mtime_ns), trusted, self.run_id, sha256, row_id))
        changes.count(old, -1)
        changes.count(old._replace(size=size, seen_run_id=self.run_id), 1)
        return None

    def _with_what_its_row_says(self, result: Result) -> Result:
        """Of a file that moved: on what evidence it is stored, and with which warning."""
        if result.moved_from is None:
            return result
        ((evidence, warning_code),) = self._connection.execute(_SAID, (result.moved_from,))
        return result._replace(
            evidence=None if evidence is None else EVIDENCES[evidence], warning_code=warning_code
        )

    def _is_of(self, row: Row | None, result: Result) -> bool:
        """Whether a row is of the instance that a result is about, and of what was sent of it."""
        header = result.header
        return (
            row is not None
            and header is not None
            and row.outcome in {OUTCOME_CODES[result.outcome], IN_DOUBT}
            and row.study_id == self._series.of(header).study_id
            and row.sop_instance_uid == pack_uid(header.sop_instance_uid)
        )

    def _stored_by_its_bytes(self, result: Result) -> Result:
        """The store has these bytes; the row that said so is gone, or of something else by now.

        The first file that is met with them stands for the instance from now on.
        """
        header = result.header
        if header is None:
            return _as_missing(result)
        study_id = self._series.of(header).study_id
        uid = pack_uid(header.sop_instance_uid)
        holder = self._connection.execute(_HOLDER, (study_id, uid)).get
        if holder not in {None, result.moved_from, result.file.file_id}:
            return _as_duplicate(result, holder)
        reason = "the store was sent these very bytes before"
        if result.outcome is Outcome.STORED_WITH_WARNING:
            reason += ", and gave a warning that is not known any more: --retry asks for it"
        return result._replace(
            evidence=Evidence.BYTES, reason_code="same_bytes", reason=reason, moved_from=None
        )


def _move(row: Row, file: FileRef, existing: dict[int, Row], changes: Changes) -> None:
    """The row comes to this file's path, from which one that was there goes."""
    displaced = existing.get(file.file_id)
    if displaced is not None:
        changes.count(displaced, -1)
        changes.dropped.append((file.file_id,))
        changes.details_dropped.append((file.file_id,))
        changes.pass_claim(displaced, GONE, same_instance=False)
    changes.moved.append((file.directory.dir_id, file.name, row.file_id))


def _rows_elsewhere(results: Sequence[Result]) -> list[int]:
    """Rows that say what became of a file and have another number. Nearly always none."""
    return [
        result.row_id
        for result in results
        if (result.moved_from is not None or result.known_as is not None)
        and result.row_id != result.file.file_id
    ]


def _without_repeats(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    """Parts in which no row is touched twice."""
    file_ids = {result.file.file_id for result in results}
    if 0 < len(results) == len(file_ids) and not _rows_elsewhere(results):  # nearly always
        yield results
        return
    start = 0
    touched: set[int] = set()
    for index, result in enumerate(results):
        file_id, row_id = result.file.file_id, result.row_id
        if file_id in touched or row_id in touched:
            yield results[start:index]
            start = index
            touched.clear()
        touched.add(file_id)
        touched.add(row_id)
    if start < len(results):
        yield results[start:] if start else results


def _as_duplicate(result: Result, other_file_id: int) -> Result:
    """The store has its data set of another file."""
    return result._replace(
        outcome=Outcome.DUPLICATE,
        reason_code="same_data_set",
        evidence=None,
        other_file_id=other_file_id,
        moved_from=None,
        unchanged=False,
    )


def _as_missing(result: Result) -> Result:
    """The result speaks of a row that is not there: claim nothing, look again next time."""
    return result._replace(
        outcome=Outcome.PENDING,
        reason_code="journal_row_missing",
        evidence=None,
        moved_from=None,
        unchanged=False,
    )

"""What is about to be sent, written down first: what a crash leaves of it is in doubt.

Why: of two files with the same UIDs and other bytes, one may be stored by a server a moment before
the process is killed. If nobody remembered it, the next run could send the other, be told that the
UID is stored, and claim bytes that the server does not have. So each batch is one row, committed
before its first byte goes out and gone with the commit of its last result; at the next start the
files in rows that are left become ``in_doubt`` in the record of the run that was killed, and hold
their claims.

One row a batch and not one a file: 2 µs an instance. Used by the writer's thread only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ingester.dicom.values import Header
from ingester.dicomweb.outcome import Outcome
from ingester.items import Directory, FileRef, Instance, Result, Root
from ingester.journal.rows import Recorder

if TYPE_CHECKING:
    import apsw

_NOWHERE: Final = Root(0, b"", b"")


class Announced(NamedTuple):
    """An instance of a batch that is about to be sent: what a row in ``files`` needs."""

    file_id: int
    dir_id: int
    name: bytes
    size: int
    mtime_ns: int
    mtime_trusted: bool
    sha256: bytes | None
    series_instance_uid: str
    sop_instance_uid: str
    modality: str


class AnnouncedBatch(NamedTuple):
    """What the row of a batch holds."""

    study_instance_uid: str
    study_date: str
    instances: list[Announced]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(AnnouncedBatch)


class Announcements:
    """Those of the current run: rows come with a batch and go when all its files have ended."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._row_of: dict[int, int] = {}  # by file_id
        self._open: dict[int, int] = {}  # files without an end, by row
        self._next_row = 1

    def add(self, run_id: int, batches: Sequence[Sequence[Instance]]) -> None:
        """These go out after the commit."""
        rows = []
        for instances in batches:
            row, self._next_row = self._next_row, self._next_row + 1
            self._open[row] = len(instances)
            self._row_of.update((instance.file.file_id, row) for instance in instances)
            rows.append((row, run_id, _encode(instances)))
        self._connection.executemany("REPLACE INTO announced VALUES (?, ?, ?)", rows)

    def ended(self, results: Iterable[Result]) -> None:
        """What became of these files is in the same commit."""
        done = []
        for result in results:
            row = self._row_of.pop(result.file.file_id, None)
            if row is not None:
                self._open[row] -= 1
                if not self._open[row]:
                    del self._open[row]
                    done.append((row,))
        if done:
            self._connection.executemany("DELETE FROM announced WHERE row_id = ?", done)


def recover(connection: apsw.Connection) -> None:
    """Record what a run that was killed had announced and not decided.

    For a connection that writes, before any other write of a new run.
    """
    with connection:
        recorder = Recorder(connection)
        query = "SELECT run_id, batch FROM announced ORDER BY run_id"
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        for run_id, encoded in rows:
            if recorder.run_id != run_id:
                recorder.start_run(run_id)
            batch = _DECODER.decode(encoded)
            left = [one for one in batch.instances if not _decided(connection, run_id, one)]
            recorder.record([_in_doubt(batch, one) for one in left])
        connection.execute("DELETE FROM announced")


def _encode(instances: Sequence[Instance]) -> bytes:
    first = instances[0].header
    batch = AnnouncedBatch(
        first.study_instance_uid,
        first.study_date,
        [
            Announced(
                each.file.file_id, each.file.directory.dir_id, each.file.name,
                each.identity.size, each.identity.mtime_ns, each.mtime_trusted, each.sha256,
                each.header.series_instance_uid, each.header.sop_instance_uid,
                each.header.modality,
            )
            for each in instances
        ],
    )  # fmt: skip
    return _ENCODER.encode(batch)


def _decided(connection: apsw.Connection, run_id: int, announced: Announced) -> bool:
    """Whether the run that announced the file also recorded what became of it."""
    decided_run_id = connection.execute(
        "SELECT decided_run_id FROM files WHERE dir_id = ? AND name = ?",
        (announced.dir_id, announced.name),
    ).get
    return bool(decided_run_id == run_id)


def _in_doubt(batch: AnnouncedBatch, one: Announced) -> Result:
    header = Header(
        batch.study_instance_uid, one.series_instance_uid, one.sop_instance_uid,
        "", "", "", "", "", "", batch.study_date, "", one.modality, 0,
    )  # fmt: skip
    directory = Directory(one.dir_id, _NOWHERE, b"")
    file = FileRef(one.file_id, directory, one.name, one.size, one.mtime_ns, None)
    return Result(
        file, Outcome.IN_DOUBT, "killed", "the run was killed when it might have been on its way",
        size=one.size, mtime_ns=one.mtime_ns, mtime_trusted=one.mtime_trusted, header=header,
        sha256=one.sha256,
    )  # fmt: skip

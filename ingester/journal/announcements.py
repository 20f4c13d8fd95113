"""What is about to be sent, written down first: what a crash leaves of it is in doubt.

Why: of two files with the same UIDs and other bytes, one may be stored by a server a moment before
the process is killed. If nobody remembered it, the next run could send the other, be told that the
UID is stored, and claim bytes that the server does not have. So each batch is a record on the disk
before its first byte goes out. It counts until the commit of its last result, which says so; at
the next start the files of records that count become ``in_doubt`` in the record of the run that
was killed, and hold their claims.

A record is written without waiting for the journal, so it may be there when what was handed over
before it is not: it brings its directories along. Of two files with the same UIDs, of which the
first was refused in the last moment before a crash, both are in doubt then, and sent again.

One record a batch and not one a file: 2 µs an instance.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ingester.dicom.values import Header
from ingester.dicomweb.outcome import Outcome
from ingester.errors import JournalError
from ingester.items import Directory, FileRef, Instance, Result, Root
from ingester.journal.announcement_file import read_records
from ingester.journal.names import announced_file
from ingester.journal.rows import Recorder
from ingester.journal.schema import clean_int

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
    known_as: int | None = None


class AnnouncedBatch(NamedTuple):
    """What a record holds."""

    study_instance_uid: str
    study_date: str
    instances: list[Announced]
    run_id: int = 0
    directories: Sequence[tuple[int, int, bytes]] = ()  # rows of the table


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(AnnouncedBatch)
_NUMBERS: Final = msgspec.msgpack.Decoder(set[int])


def encode(run_id: int, instances: Sequence[Instance]) -> bytes:
    """The payload of a record. All are of one study.

    Plain tuples in the order of the fields above: they are written alike, and with attributes
    taken apart once that is 0.4 µs an instance instead of 0.9.
    """
    directories: dict[int, Directory] = {}
    announced: list[tuple[object, ...]] = []
    last: Directory | None = None
    for file, identity, header, _, sha256, mtime_trusted, _, _, known_as in instances:
        file_id, directory, name, _, _, _ = file
        _, _, size, mtime_ns, _ = identity
        if directory is not last:
            directories[directory.dir_id] = last = directory
        announced.append((
            file_id, directory.dir_id, name, size, clean_int(mtime_ns), mtime_trusted, sha256,
            header.series_instance_uid, header.sop_instance_uid, header.modality, known_as,
        ))  # fmt: skip
    rows = [(each.dir_id, each.root.root_id, each.rel_path) for each in directories.values()]
    first = instances[0].header
    return _ENCODER.encode((first.study_instance_uid, first.study_date, announced, run_id, rows))


def encode_numbers(numbers: Sequence[int]) -> bytes:
    """Of the records that count, for the journal."""
    return _ENCODER.encode(numbers)


def recover(connection: apsw.Connection, path: str) -> None:
    """Record what a run that was killed had announced and not decided.

    For a connection that writes, before any other write of a new run. From its commit on those
    records count no more. Raises JournalError: what was announced cannot be read.
    """
    with connection:
        recorder = Recorder(connection)
        for batch in [*_rows_of_schema_3(connection), *_records(connection, path)]:
            if recorder.run_id != batch.run_id:
                recorder.start_run(batch.run_id)
            connection.executemany(
                "INSERT OR IGNORE INTO directories (dir_id, root_id, rel_path) VALUES (?, ?, ?)",
                batch.directories,
            )
            left = [one for one in batch.instances if not _decided(connection, batch.run_id, one)]
            recorder.record([_in_doubt(batch, one) for one in left])
        connection.execute("DROP TABLE IF EXISTS announced")
        forget(connection)


def begin(connection: apsw.Connection, session: bytes) -> None:
    """From the commit on the journal cannot be opened without the file of this session."""
    connection.execute(
        "INSERT INTO announcements VALUES (1, ?, 0, 0, ?) ON CONFLICT DO NOTHING",
        (session, encode_numbers([])),
    )


def forget(connection: apsw.Connection) -> None:
    """From the commit on the journal needs no file."""
    connection.execute("DELETE FROM announcements")


def _rows_of_schema_3(connection: apsw.Connection) -> list[AnnouncedBatch]:
    """A journal that was just brought forward from schema 3 has them as rows of a table."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'announced'").get is None:
        return []
    query = "SELECT run_id, batch FROM announced ORDER BY run_id"
    rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return [_DECODER.decode(batch)._replace(run_id=run_id) for run_id, batch in rows]


def _records(connection: apsw.Connection, path: str) -> list[AnnouncedBatch]:
    """Those that count, in the order in which they were announced."""
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT session, highest, synced, open FROM announcements"
    ).fetchone()
    if row is None:  # the last run ended well
        return []
    session, highest, synced, encoded = row
    still_open = _NUMBERS.decode(encoded)
    file = announced_file(path)
    try:
        records = dict(read_records(file, session))
        lost = os.path.getsize(file) == 0
    except FileNotFoundError:
        raise JournalError(
            f"the journal cannot be opened without what its run was sending: {file}",
            "put that file back beside it; where it is lost for good, make an empty one",
        ) from None
    except OSError as error:
        raise JournalError(
            f"the journal cannot be read: {error.strerror}: {file}",
            "check the permissions of the file, and its disk",
        ) from error
    if not lost and any(number not in records for number in still_open if number <= synced):
        raise JournalError(
            f"the journal cannot be opened: what its run was sending is damaged: {file}",
            "restore it and the journal from one backup; or empty it, and what was on its way then "
            "is not known",
        )
    return [
        _DECODER.decode(records[number])
        for number in sorted(records)
        if number > highest or number in still_open
    ]


def _decided(connection: apsw.Connection, run_id: int, announced: Announced) -> bool:
    """Whether the run that announced the file, or a later one, recorded what became of it."""
    decided_run_id = connection.execute(
        "SELECT decided_run_id FROM files WHERE dir_id = ? AND name = ?",
        (announced.dir_id, announced.name),
    ).get
    return bool(decided_run_id is not None and decided_run_id >= run_id)


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
        sha256=one.sha256, known_as=one.known_as,
    )  # fmt: skip

"""A journal as a process that has gone, or is going on, has left it on the disk: from a copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import apsw

from ingester.dicomweb.outcome import HOLDS_ITS_CLAIM
from ingester.journal import FileRow, Journal, iter_files
from ingester.journal.schema import ANNOUNCED, LISTINGS


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy: whatever is done with it, the next run finds the original as it was left."""

    path: Path

    def rows(self) -> list[FileRow]:
        """What was committed; nothing where its maker was killed before its tables were there."""
        connection = apsw.Connection(str(self.path))
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
        connection.close()
        return list(iter_files(str(self.path))) if tables else []

    def recovered(self) -> list[FileRow]:
        """What the next run would find: what was announced and not decided is in doubt."""
        Journal.open(str(self.path), target="of a copy", rebind=True).close()
        return self.rows()

    def known_to_be_sent(self) -> set[str]:
        """The SOP Instance UIDs that the next run would know to be stored, or to be in doubt."""
        rows = self.recovered()
        return {row.sop_instance_uid for row in rows if row.outcome in HOLDS_ITS_CLAIM}


class Locked:
    """Nobody can commit to a journal: another program has begun to write."""

    def __init__(self, journal: Path) -> None:
        self._connection = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection.set_busy_timeout(60_000)

    def begin(self) -> None:
        """From now on."""
        self._connection.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Until now."""
        self._connection.close(force=True)


def copy_journal(journal: Path, directory: Path) -> Copied | None:
    """Copies the database, its WAL and what was announced; None if there is no journal.

    Nobody may be writing to it. The shared memory stays behind: it is made anew of the WAL.
    """
    if not journal.exists():
        return None
    directory.mkdir(exist_ok=True)
    copy = directory / journal.name
    for suffix in ("", "-wal", ".announced"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
        if Path(f"{journal}{suffix}").exists():
            shutil.copyfile(f"{journal}{suffix}", f"{copy}{suffix}")
    return Copied(copy)


def take_back(journal: Path, version: int) -> None:
    """Makes a journal what an earlier version would have made: of schema 1 to 4."""
    columns = [name for line in LISTINGS.split(";") for name in line.split()[5:6]]
    connection = apsw.Connection(str(journal))
    connection.execute("DROP INDEX copies")
    if version < 4:
        connection.execute("DROP TABLE announcements")
    if 1 < version < 4:
        connection.execute(ANNOUNCED)
    if version < 3:
        for name in columns:
            connection.execute(f"ALTER TABLE directories DROP COLUMN {name}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

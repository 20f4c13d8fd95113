"""What the journal keeps of directories that were listed to their end: a resume skips them.

That is: one that is as it was when it was listed, by its own time stamps and inode, and all of
whose files are in the journal and settled. Only directories without subdirectories are kept so: of
what is further down their status says nothing. The listing may be on the disk before its files are:
whoever skips counts the rows.

Written by the writer's thread, where the order of directories and of their files does not matter:
whatever is written here leaves ``SEEN_RUN_ID`` of every row as it was, or makes it this run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from ingester.dicomweb.outcome import Outcome
from ingester.items import Directory, DirectoryStamp, ListedBefore, Listing, Skipped
from ingester.journal.schema import OUTCOME_CODES, clean_int

if TYPE_CHECKING:
    import apsw

# A run that ended has met everything: what it listed, the next one lists again.
_LAST_ENDED: Final = "SELECT coalesce(max(run_id), 0) FROM runs WHERE exit_code IN (0, 3)"
_LISTED: Final = """
SELECT listed_run_id, listed_ino, listed_mtime_ns, listed_ctime_ns, listed_files FROM directories
WHERE dir_id = ? AND listed_run_id > ?"""
_FILES: Final = """
SELECT count(*), count(*) FILTER (WHERE mtime_trusted AND outcome IN ({settled})),
    coalesce(sum(size), 0)
FROM files WHERE dir_id = ? AND seen_run_id >= ?"""
_STAMP: Final = """
UPDATE directories SET seen_run_id = ?1
WHERE dir_id = ?2 AND listed_run_id = ?3 AND coalesce(seen_run_id, 0) < ?1 RETURNING 1"""
_MET: Final = """
SELECT outcome, pixel_warning, series_id, count(*), sum(size) FROM files
WHERE dir_id = ?2 AND seen_run_id >= ?3 AND seen_run_id < ?1 GROUP BY 1, 2, 3"""
# To each file its own stamp, before that of the directory goes.
_HAND_STAMPS_DOWN: Final = """
UPDATE files AS f SET seen_run_id = d.seen_run_id FROM directories d
WHERE d.dir_id = ?1 AND d.seen_run_id NOT NULL AND f.dir_id = d.dir_id
    AND f.seen_run_id < d.seen_run_id AND f.seen_run_id >= d.listed_run_id"""
_LIST: Final = """
UPDATE directories SET (listed_run_id, listed_ino, listed_mtime_ns, listed_ctime_ns, listed_files,
    seen_run_id) = (?2, ?3, ?4, ?5, ?6, NULL)
WHERE dir_id = ?1"""

Met = tuple[Any, ...]
"""Outcome code, pixel warning, series_id, and so many files of so many bytes."""


class Listings:
    """Looks up what earlier runs kept, on a connection that reads. For one thread at a time."""

    def __init__(self, connection: apsw.Connection, settled: Collection[Outcome]) -> None:
        self._connection = connection
        self._last_ended = connection.execute(_LAST_ENDED).get
        codes = ", ".join(str(OUTCOME_CODES[outcome]) for outcome in settled)
        self._files = _FILES.format(settled=codes)

    def before(self, directory: Directory) -> ListedBefore | None:
        """The listing that may still count."""
        found = self._connection.execute(_LISTED, (directory.dir_id, self._last_ended)).fetchone()
        if found is None:
            return None
        run_id, ino, mtime_ns, ctime_ns, files = found
        return ListedBefore(run_id, DirectoryStamp(ino, mtime_ns, ctime_ns), files)

    def skipped(self, directory: Directory, before: ListedBefore) -> Skipped | None:
        """The directory as it is skipped, if all files of that listing are there and settled."""
        row = self._connection.execute(self._files, (directory.dir_id, before.run_id)).fetchone()
        files, settled, size = row or (0, 0, 0)
        if not files == settled == before.files:
            return None
        return Skipped(directory, before.run_id, files, size)


def stamp_directories(
    connection: apsw.Connection, run_id: int, directories: Sequence[Skipped]
) -> list[Met]:
    """This run saw these directories as they were listed; what it met in them, and not before."""
    met: list[Met] = []
    for one in directories:
        of = (run_id, one.directory.dir_id, one.listed_run_id)
        if connection.execute(_STAMP, of).get is not None:  # else it was met twice, and listed
            met += connection.execute(_MET, of).fetchall()
    return met


def write_listings(connection: apsw.Connection, run_id: int, listings: Sequence[Listing]) -> None:
    """Keep the listings of this run, in place of those before."""
    connection.executemany(_HAND_STAMPS_DOWN, [(one.directory.dir_id,) for one in listings])
    connection.executemany(_LIST, [_row(run_id, one) for one in listings])


def _row(run_id: int, listing: Listing) -> tuple[int | None, ...]:
    dir_id = listing.directory.dir_id
    if listing.stamp is None:
        return dir_id, None, None, None, None, None
    return dir_id, run_id, *map(clean_int, listing.stamp), listing.files

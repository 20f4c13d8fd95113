"""What the journal knew of a file when the run met it: reading, beside the writer.

By a connection of its own that sees what is committed. A damaged page or value raises JournalError
from every look-up. What is handed over and not committed yet is known to those who handed it over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ingester.dicomweb.outcome import SETTLED, WAS_TAKEN, Evidence, Outcome
from ingester.items import (
    Directory,
    FileRef,
    ListedBefore,
    Previous,
    Root,
    Skipped,
)
from ingester.journal.carrays import blobs
from ingester.journal.listings import Listings
from ingester.journal.opening import connect_reader, reading
from ingester.journal.schema import EVIDENCE_CODES, OUTCOME_CODES, OUTCOMES

MANY_NAMES: Final = 5_000
"""From so many on each is sought by itself: a directory that is listed in pieces gives its names in
no order, and each piece would read nearly all of its rows (300,000 names: 5.8 s, not 2.2)."""
MAX_FRESH_DIRECTORIES: Final = 8_192  # more than can be uncommitted

_SAMPLES = f"""
SELECT f.file_id, f.dir_id, f.name, f.size, f.mtime_ns, f.sha256, d.rel_path, r.root_id, r.path
FROM (SELECT * FROM files ORDER BY file_id DESC LIMIT 10000) f
JOIN directories d ON d.dir_id = f.dir_id JOIN roots r ON r.root_id = d.root_id
WHERE f.outcome IN ({", ".join(map(str, sorted(OUTCOME_CODES[each] for each in WAS_TAKEN)))})
    AND f.evidence = {EVIDENCE_CODES[Evidence.MANIFEST]}
ORDER BY f.size LIMIT 20"""  # noqa: S608 - constants

_KNOWN = """
SELECT name, file_id, outcome, size, mtime_ns, sha256, mtime_trusted FROM files
WHERE dir_id = ? AND name"""
_ROOTS = "SELECT root_id, name, path FROM roots"
_FILES_OF = "SELECT 1 FROM directories d JOIN files f ON f.dir_id = d.dir_id WHERE d.root_id = ?"
_OF_ROOT = f"{_FILES_OF} LIMIT 1"
_BELOW = f"{_FILES_OF} AND (d.rel_path = ? OR d.rel_path > ? AND d.rel_path < ?) LIMIT 1"
_AT = f"{_FILES_OF} AND d.rel_path = ? AND f.name = ? LIMIT 1"


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether an absolute path is that of a directory, or of what is in it."""
    return path == directory or path.startswith(os.path.join(directory, b""))


class Known(NamedTuple):
    """A file of a directory, as the journal has it or as it will be."""

    file_id: int
    previous: Previous | None  # None: never met
    mtime_trusted: bool  # False: it was changed while it was read, compare before trusting it


@dataclass(slots=True)
class Ids:
    """The next numbers to give out. Those that were never committed are given out again."""

    next_file_id: int
    next_dir_id: int


class KnownFiles:
    """Looks up directories and files for the walk. For one thread at a time."""

    def __init__(
        self,
        path: str,
        ids: Ids,
        hand_over: Callable[[Directory], None],
        retry: AbstractSet[Outcome] = frozenset(),
    ) -> None:
        """``retry``: outcomes that are sent again although they are settled."""
        self._path = path
        self._connection = connect_reader(path)
        self._ids = ids
        self._hand_over = hand_over
        self._settled = SETTLED - retry
        with reading(path):
            self._listings = Listings(self._connection, self._settled)
        self._lock = threading.Lock()  # a walk that was given up may still be in a look-up
        self._fresh: dict[tuple[int, bytes], int] = {}

    def directory(self, root: Root, rel_path: bytes) -> Directory:
        """The directory, with a fresh number where it was never met."""
        with self._lock, reading(self._path):
            return self._directory(root, rel_path)

    def _directory(self, root: Root, rel_path: bytes) -> Directory:
        dir_id = self._connection.execute(
            "SELECT dir_id FROM directories WHERE root_id = ? AND rel_path = ?",
            (root.root_id, rel_path),
        ).get
        if dir_id is not None:
            return Directory(dir_id, root, rel_path)
        fresh_id = self._fresh.get((root.root_id, rel_path))
        if fresh_id is not None:
            return Directory(fresh_id, root, rel_path)
        directory = Directory(self._ids.next_dir_id, root, rel_path)
        self._ids.next_dir_id += 1
        if len(self._fresh) >= MAX_FRESH_DIRECTORIES:
            del self._fresh[next(iter(self._fresh))]  # committed long ago
        self._fresh[root.root_id, rel_path] = directory.dir_id
        self._hand_over(directory)
        return directory

    def listed_before(self, directory: Directory) -> ListedBefore | None:
        """How it was listed by a run that this one resumes, if to its end."""
        with self._lock, reading(self._path):
            return self._listings.before(directory)

    def skipped(self, directory: Directory, before: ListedBefore) -> Skipped | None:
        """What is in it, if that is all that was listed and nothing of it needs work."""
        with self._lock, reading(self._path):
            return self._listings.skipped(directory, before)

    def files(self, directory: Directory, names: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known of these names; fresh numbers for those that were never met."""
        with self._lock, reading(self._path):
            return self._files(directory, names)

    def _files(self, directory: Directory, names: Sequence[bytes]) -> dict[bytes, Known]:
        found: dict[bytes, Known] = {}
        if names:
            wanted = frozenset(names)
            if len(names) < MANY_NAMES:
                between = (directory.dir_id, min(names), max(names))
                rows = self._connection.execute(f"{_KNOWN} BETWEEN ? AND ?", between)
            else:
                each = (directory.dir_id, blobs(names))
                rows = self._connection.execute(f"{_KNOWN} IN carray(?)", each)
            for name, file_id, code, size, mtime_ns, sha256, trusted in rows:
                if name in wanted:
                    outcome = OUTCOMES[code]
                    settled = outcome in self._settled
                    previous = Previous(outcome, size, mtime_ns, sha256, settled)
                    found[name] = Known(file_id, previous, trusted == 1)
        for name in names:
            if name not in found:
                found[name] = Known(self.new_file_id(), None, mtime_trusted=True)
        return found

    def new_file_id(self) -> int:
        """A number for a file that the journal does not know."""
        file_id = self._ids.next_file_id
        self._ids.next_file_id += 1
        return file_id

    def has_files(self, root_name: bytes | None, path: bytes) -> bool:
        """Whether there is any of the root of this name; of none: at or below this path."""
        with self._lock, reading(self._path):
            roots: list[Any] = self._connection.execute(_ROOTS).fetchall()
            if root_name is not None:
                return any(
                    self._has_files_below(root_id, b"")
                    for root_id, name, _ in roots
                    if name == root_name
                )
            return any(
                self._has_files_below(root_id, b"")
                if is_below(root_path, path)
                else is_below(path, root_path)
                and self._has_files_below(root_id, os.path.relpath(path, root_path))
                for root_id, _, root_path in roots
            )

    def _has_files_below(self, root_id: int, rel_path: bytes) -> bool:
        """Of a root, in this directory or below it, or at this very path."""
        if not rel_path:
            below = self._connection.execute(_OF_ROOT, (root_id,)).get
        else:
            inside = (rel_path, os.path.join(rel_path, b""), rel_path + b"0")  # 0 follows /
            file = os.path.split(rel_path)
            below = self._connection.execute(_BELOW, (root_id, *inside)).get or (
                self._connection.execute(_AT, (root_id, *file)).get
            )
        return below is not None

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._connection.close()


def stored_samples(path: str) -> list[tuple[FileRef, bytes | None]]:
    """The smallest of the latest files that the store has by its own word, at most 20."""
    connection = connect_reader(path)
    try:
        with reading(path):
            rows: list[tuple[Any, ...]] = connection.execute(_SAMPLES).fetchall()
    finally:
        connection.close()
    found = []
    for file_id, dir_id, name, size, mtime_ns, sha256, rel_path, root_id, root in rows:
        directory = Directory(dir_id, Root(root_id, b"", root), rel_path)
        found.append((FileRef(file_id, directory, name, size, mtime_ns, None), sha256))
    return found

"""The names of one directory, a chunk at a time: read, sorted, and looked up in the journal.

What needs no work is told apart here and never opened. A name that cannot be asked for its size,
a link and what is no regular file are outcomes. Blocking: it runs in the walk's own thread.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ingester.catalog import Catalog, KnownFile, UnreadableDirectory, WalkChunk, WalkOptions
from ingester.dicomweb.outcome import Outcome
from ingester.files import check_root
from ingester.items import Directory, DirectoryStamp, FileRef, Previous, Result
from ingester.threads import progressed

CHUNK_NAMES = 10_000
NAMES_AT_ONCE = 500
"""So many names are read before the thread is told that the directory answers."""


class NamedEntry:
    """A name that is asked for, whatever a listing of its directory would show.

    Where the file system takes other letters for the same, that is another name; and a directory
    may be one that nobody may list.
    """

    __slots__ = ("name", "path")

    def __init__(self, directory: Directory, name: bytes) -> None:
        self.name = name
        self.path = directory.prefix + name

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As of os.DirEntry, and asked anew. Raises OSError."""
        return os.stat(self.path, follow_symlinks=follow_symlinks)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """The same."""
        return stat.S_ISDIR(self.stat(follow_symlinks=follow_symlinks).st_mode)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """The same."""
        return stat.S_ISREG(self.stat(follow_symlinks=follow_symlinks).st_mode)

    def is_symlink(self) -> bool:
        """As of os.DirEntry: one that cannot be asked is none."""
        try:
            return stat.S_ISLNK(self.stat(follow_symlinks=False).st_mode)
        except OSError:
            return False


Entry = os.DirEntry[bytes] | NamedEntry


class _Entries(Iterator[Entry], Protocol):
    def close(self) -> None: ...


def entries_of(directory: Directory) -> _Entries:
    """What is in it; of a root of single files these alone. Raises OSError."""
    only = directory.root.only
    if only is None:
        return os.scandir(directory.path)
    return (NamedEntry(directory, name) for name in only)


@dataclass(slots=True)
class Frame:
    """A directory that is being listed."""

    directory: Directory
    entries: _Entries
    identity: tuple[int, int]  # (st_dev, st_ino), against loops of links
    stamp: DirectoryStamp | None  # before it was listed; None: this listing is not to be kept
    subdirectories: list[bytes] = field(default_factory=list)  # of the chunk at hand, last first
    files: int = 0  # names so far
    at_end: bool = False  # there are no more names


class Names:
    """Reads and sorts the names of any directory of a walk."""

    def __init__(self, options: WalkOptions, catalog: Catalog) -> None:
        self._options = options
        self._catalog = catalog

    def take(self, frame: Frame, chunk: WalkChunk) -> None:
        """The next names of a directory, each to where it belongs. Raises SourceError."""
        self._sort_in(frame, self._read(frame, chunk), chunk)

    def _read(self, frame: Frame, chunk: WalkChunk) -> list[Entry]:
        entries: list[Entry] = []
        try:
            while (have := len(entries)) < CHUNK_NAMES:
                entries.extend(itertools.islice(frame.entries, NAMES_AT_ONCE))  # keeps what it got
                if len(entries) == have:
                    frame.at_end = True
                    break  # no sign of life: that there are no more names was known
                progressed()
        except OSError as error:
            check_root(frame.directory.root)
            reason = os.strerror(error.errno or 0)
            chunk.unreadable.append(UnreadableDirectory(frame.directory.path, reason))
            frame.stamp = None
            frame.at_end = True
        # By name: over a network, or while it is changed, a directory may list one twice.
        by_name = {entry.name: entry for entry in entries}
        return [by_name[name] for name in sorted(by_name)]

    def _sort_in(self, frame: Frame, entries: list[Entry], chunk: WalkChunk) -> None:
        follow = self._options.follow_symlinks
        own = self._own_names(frame.directory)
        files: list[Entry] = []
        for entry in entries:
            progressed()
            try:
                is_directory = entry.is_dir(follow_symlinks=follow)
            except OSError:
                is_directory = False
            if is_directory and frame.directory.root.only is None:
                frame.subdirectories.append(entry.name)
                frame.stamp = None  # it says nothing of what comes into these
            elif entry.name not in own and not (follow and self._leads_to_own(entry)):
                files.append(entry)
        frame.subdirectories.reverse()
        frame.files += len(files)
        known = self._catalog.files(frame.directory, [entry.name for entry in files])
        for entry in files:
            progressed()
            self._file(frame.directory, entry, known[entry.name], chunk)

    def _own_names(self, directory: Directory) -> frozenset[bytes]:
        """The files in it that the run writes itself."""
        path = directory.path
        if self._options.follow_symlinks:
            path = os.path.realpath(path)
        split = map(os.path.split, self._options.exclude)
        return frozenset(name for head, name in split if head == path)

    def _leads_to_own(self, entry: Entry) -> bool:
        """Whether it is a link to a file that the run writes itself."""
        return entry.is_symlink() and os.path.realpath(entry.path) in self._options.exclude

    def _file(
        self,
        directory: Directory,
        entry: Entry,
        known: KnownFile,
        chunk: WalkChunk,
    ) -> None:
        file_id, previous = known.file_id, known.previous
        follow = self._options.follow_symlinks
        try:
            status = entry.stat(follow_symlinks=follow)
            regular = entry.is_file(follow_symlinks=follow)
        except OSError as error:
            file = FileRef(file_id, directory, entry.name, 0, 0, previous)
            reason = os.strerror(error.errno or 0)
            chunk.decided.append(Result(file, Outcome.UNREADABLE, "stat_error", reason))
            return
        file = FileRef(file_id, directory, entry.name, status.st_size, status.st_mtime_ns, previous)
        if known.mtime_trusted and _unchanged(file, previous):
            chunk.seen.append(file)
        elif regular:
            chunk.files.append(file)
        elif entry.is_symlink() and not follow:
            chunk.decided.append(Result(file, Outcome.SKIPPED, "symlink", "a symbolic link"))
        else:
            chunk.decided.append(Result(file, Outcome.SKIPPED, "special", "not a regular file"))


def _unchanged(file: FileRef, previous: Previous | None) -> bool:
    return (
        previous is not None
        and previous.settled
        and previous.size == file.size
        and previous.mtime_ns == file.mtime_ns
    )

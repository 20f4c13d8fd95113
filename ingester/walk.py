"""The first stage: lists directories as it goes and hands over what needs work.

Takes sources; gives lists of FileRef. Never holds a tree: a directory is read in chunks of 10,000
names, sorted, looked up in the journal in the walk's own thread, and what needs no work is stamped
there and never opened. In a run that resumes one that did not come to its end, a directory that is
as that one listed it, and in which nothing is left to do, is skipped: neither its names nor its
files are asked for again. Bounds: one chunk, and the channel. Ends when all sources are listed. A
directory that cannot be listed, or does not answer, is counted and named, a file that cannot be
asked for its size is an outcome; a root that vanished or cannot be listed is paused.

Each of a few lanes walks some of the roots, one after the other, into a channel of its own: a root
that hangs holds neither the walk of the others nor their way to the readers.

Why not os.walk or fts: both hold a whole directory before they give its first name.

Why a directory's mtime must be 2 s old, as that of a file, for its listing to be kept: a name that
comes later gives it another one then, however coarse the time stamps of the file system are.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from ingester.channel import Sink
from ingester.dicomweb.outcome import Outcome
from ingester.errors import SourceError
from ingester.files import check_root
from ingester.items import (
    Directory,
    DirectoryStamp,
    FileRef,
    ListedBefore,
    Listing,
    Previous,
    Result,
    Root,
    Skipped,
)
from ingester.ledger import Ledger
from ingester.readers import Readers
from ingester.threads import ReadTimeoutError, deliver, progressed

CHUNK_NAMES = 10_000
NAMES_AT_ONCE = 500
"""So many names are read before the thread is told that the directory answers."""
SKIPPED_AT_ONCE = 64
"""Directories skipped in one step: a step an item costs more than skipping it."""
MAX_SKIPPED_FILES = 1_000_000
"""A directory of more is always listed: they are counted in one look-up."""
UNTRUSTED_MTIME_NS = 2_000_000_000
"""As old a directory's time stamp has to be, see above."""
LIST_FILES = 64
"""Files handed over at once: a hand-over an item costs 20 times one a list (measurements)."""
LIST_BYTES = 8 << 20
"""No list larger than this, so that one reader thread is not busy for long."""


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """``exclude``: absolute paths that are not met: the journal, its sidecars, the results.

    ``recheck``: skip no directory.
    """

    follow_symlinks: bool = False
    exclude: frozenset[bytes] = frozenset()
    recheck: bool = False


class KnownFile(Protocol):
    """What the catalog has for a name: at least a number."""

    @property
    def file_id(self) -> int: ...  # noqa: D102 - see FileRef
    @property
    def previous(self) -> Previous | None: ...  # noqa: D102 - see FileRef
    @property
    def mtime_trusted(self) -> bool: ...  # noqa: D102 - see Instance


class Catalog(Protocol):
    """The journal as the walk sees it; called in the walk's thread."""

    def directory(self, root: Root, rel_path: bytes) -> Directory:
        """The directory with its id, known or new."""
        ...

    def listed_before(self, directory: Directory) -> ListedBefore | None:
        """How it was listed by a run that this one resumes, if to its end."""
        ...

    def skipped(self, directory: Directory, before: ListedBefore) -> Skipped | None:
        """What is in it, if that is all that was listed and nothing of it needs work."""
        ...

    def files(self, directory: Directory, names: Sequence[bytes]) -> Mapping[bytes, KnownFile]:
        """What is known of each of these names."""
        ...


class UnreadableDirectory(NamedTuple):
    """A directory that could not be listed, or not to its end."""

    path: bytes
    reason: str


class WalkChunk(NamedTuple):
    """What one step found."""

    files: list[FileRef]  # to be scanned
    decided: list[Result]  # special files, links, names that could not be asked
    seen: list[FileRef]  # unchanged and settled: nothing to do
    unreadable: list[UnreadableDirectory]
    skipped: list[Skipped]  # with all that is in them: nothing to do
    forgotten: list[Listing]  # what was known of directories that are being listed again
    listings: list[Listing]  # that came to their end with these files

    @classmethod
    def empty(cls) -> Self:
        """Nothing yet."""
        return cls([], [], [], [], [], [], [])


class _Entries(Iterator[os.DirEntry[bytes]], Protocol):
    def close(self) -> None: ...


@dataclass(slots=True)
class _Frame:
    directory: Directory
    entries: _Entries
    identity: tuple[int, int]  # (st_dev, st_ino), against loops of links
    stamp: DirectoryStamp | None  # before it was listed; None: this listing is not to be kept
    subdirectories: list[bytes] = field(default_factory=list)  # of the chunk at hand, last first
    files: int = 0  # names so far
    at_end: bool = False  # there are no more names


class Walker:
    """Lists one root; each ``step`` is a bounded piece of work that blocks."""

    def __init__(self, root: Root, options: WalkOptions, catalog: Catalog) -> None:
        self._root = root
        self._options = options
        self._own_directories = {os.path.dirname(path) for path in options.exclude}
        self._catalog = catalog
        self._chunk = WalkChunk.empty()  # of the step at hand
        self._stack: list[_Frame] | None = None  # None: not begun
        self._at: Directory | None = None  # what the step is about
        self._stepping = False

    def step(self) -> WalkChunk | None:
        """The next piece, or None at the end. Raises SourceError when the root vanished."""
        self._stepping = True
        try:
            self._chunk = WalkChunk.empty()
            return self._step(self._chunk)
        finally:
            self._stepping = False

    def _step(self, chunk: WalkChunk) -> WalkChunk | None:
        if self._stack is None:
            self._stack = []
            self._open_root(chunk)
            if not self._stack:
                return chunk  # the root is skipped
        if not self._stack:
            return None
        frame = self._stack[-1]
        if frame.subdirectories:
            self._enter(frame, chunk)
            if self._stack[-1] is frame:
                return chunk
            frame = self._stack[-1]
        self._at = frame.directory
        if not frame.at_end:
            self._sort_in(frame, self._read(frame, chunk), chunk)
        if frame.at_end and not frame.subdirectories:
            self._stack.pop()
            self._ended(frame, chunk)
        return chunk

    def past_the_stuck(self) -> tuple[Self, WalkChunk]:
        """A walker that goes on without the directory in which a step never ended.

        With what is to be said of it, and what the step had found before it came there.

        This one belongs to the thread that is still in it. Raises SourceError if it is the root.
        """
        stuck = self._at
        if stuck is None or not stuck.rel_path:
            raise SourceError(
                f"a source does not answer: {os.fsdecode(self._root.path)}",
                "is it still mounted? The same command goes on when it is back",
            )
        walker = type(self)(self._root, self._options, self._catalog)
        walker._stack = [each for each in self._stack or () if each.directory is not stuck]  # noqa: SLF001 - of its own class
        found = WalkChunk.empty()
        found.skipped.extend(self._chunk.skipped)
        found.unreadable.append(UnreadableDirectory(stuck.path, "it does not answer"))
        return walker, found

    def close(self) -> None:
        """Let go of the directories that are open, where a walk ends early.

        Not while a thread that was written off is in a step: closing one that is being read is
        the end of the process.
        """
        while self._stack and not self._stepping:
            self._stack.pop().entries.close()

    def _open_root(self, chunk: WalkChunk) -> None:
        self._open(self._catalog.directory(self._root, b""), chunk)
        if chunk.unreadable:
            raise SourceError(
                f"a source cannot be listed ({chunk.unreadable[0].reason}): "
                f"{os.fsdecode(self._root.path)}"
            )

    def _enter(self, parent: _Frame, chunk: WalkChunk) -> None:
        """Go into the next subdirectory in which there is something to do."""
        assert self._stack is not None  # noqa: S101 - set by the first step
        while parent.subdirectories and len(chunk.skipped) < SKIPPED_AT_ONCE:
            self._at = parent.directory
            rel_path = os.path.join(parent.directory.rel_path, parent.subdirectories.pop())
            self._open(self._catalog.directory(self._root, rel_path), chunk)
            if self._stack[-1] is not parent or chunk.unreadable:
                return

    def _open(self, directory: Directory, chunk: WalkChunk) -> None:
        assert self._stack is not None  # noqa: S101 - set by the first step
        self._at = directory
        path = directory.path
        before = self._catalog.listed_before(directory)
        try:
            status = os.stat(path) if self._options.follow_symlinks else os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "replaced while it was walked")
            identity = (status.st_dev, status.st_ino)
            looped = any(frame.identity == identity for frame in self._stack)
            check_root(self._root)
            progressed()
            if looped:
                return  # a link back to a directory we are in
            stamp = self._stamp_to_keep(directory, status)
            if before is not None and before.stamp == stamp and not self._options.recheck:
                skipped = self._catalog.skipped(directory, before)
                if skipped is not None:
                    deliver(chunk.skipped, skipped)
                    return
            entries = os.scandir(path)
        except OSError as error:
            check_root(self._root)
            chunk.unreadable.append(UnreadableDirectory(path, os.strerror(error.errno or 0)))
            return
        if before is not None:  # it says nothing of what this run will have made of its files
            chunk.forgotten.append(Listing(directory, None))
        self._stack.append(_Frame(directory, entries, identity, stamp))

    def _stamp_to_keep(self, directory: Directory, status: os.stat_result) -> DirectoryStamp | None:
        """What tells a later run that nothing came or went; None: it could not rely on that."""
        whole = self._root.only is None and directory.path not in self._own_directories
        old = time.time_ns() - status.st_mtime_ns >= UNTRUSTED_MTIME_NS
        if whole and old and not self._options.follow_symlinks:
            return DirectoryStamp.of(status)
        return None

    def _ended(self, frame: _Frame, chunk: WalkChunk) -> None:
        """The listing came to its end: it is kept if the directory did not change meanwhile."""
        if frame.stamp is not None and frame.files <= MAX_SKIPPED_FILES:
            with suppress(OSError):  # whatever it is, the next run finds it so
                if DirectoryStamp.of(os.lstat(frame.directory.path)) == frame.stamp:
                    chunk.listings.append(Listing(frame.directory, frame.stamp, frame.files))

    def _read(self, frame: _Frame, chunk: WalkChunk) -> list[os.DirEntry[bytes]]:
        entries: list[os.DirEntry[bytes]] = []
        only = frame.directory.root.only
        listing: Iterator[os.DirEntry[bytes]] = frame.entries
        if only is not None:
            listing = (entry for entry in listing if entry.name in only)
        try:
            while (have := len(entries)) < CHUNK_NAMES:
                entries.extend(itertools.islice(listing, NAMES_AT_ONCE))  # keeps what it got
                if len(entries) == have:
                    frame.at_end = True
                    break  # no sign of life: that there are no more names was known
                progressed()
        except OSError as error:
            check_root(self._root)
            reason = os.strerror(error.errno or 0)
            chunk.unreadable.append(UnreadableDirectory(frame.directory.path, reason))
            frame.stamp = None
            frame.at_end = True
        # By name: over a network, or while it is changed, a directory may list one twice.
        by_name = {entry.name: entry for entry in entries}
        return [by_name[name] for name in sorted(by_name)]

    def _sort_in(self, frame: _Frame, entries: list[os.DirEntry[bytes]], chunk: WalkChunk) -> None:
        follow = self._options.follow_symlinks
        own = self._own_names(frame.directory)
        files: list[os.DirEntry[bytes]] = []
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

    def _leads_to_own(self, entry: os.DirEntry[bytes]) -> bool:
        """Whether it is a link to a file that the run writes itself."""
        return entry.is_symlink() and os.path.realpath(entry.path) in self._options.exclude

    def _file(
        self,
        directory: Directory,
        entry: os.DirEntry[bytes],
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


def lists_of(files: Sequence[FileRef]) -> Iterator[list[FileRef]]:
    """``files`` in lists of at most LIST_FILES and, but for one larger file, LIST_BYTES."""
    current: list[FileRef] = []
    size = 0
    for file in files:
        if current and (len(current) == LIST_FILES or size + file.size > LIST_BYTES):
            yield current
            current, size = [], 0
        current.append(file)
        size += file.size
    if current:
        yield current


class WalkReport(Protocol):
    """Who wants to know how the walk goes."""

    def unreadable_directories(self, found: Collection[UnreadableDirectory]) -> None:
        """Directories that could not be listed."""
        ...

    def discovered_all(self) -> None:
        """The walk has ended: how many files there are is known now."""
        ...


class Walk:
    """The stage; of ``lane`` there run ``lanes``, each with a channel of files of its own."""

    def __init__(
        self,
        options: WalkOptions,
        catalog: Catalog,
        readers: Readers,
        ledger: Ledger,
        report: WalkReport,
        lanes: int,
    ) -> None:
        self._options = options
        self._catalog = catalog
        self._readers = readers
        self._ledger = ledger
        self._report = report
        self._lanes = lanes

    async def lane(self, roots: Sequence[Root], out: Sink[list[FileRef]]) -> None:
        """Walk these roots and hand over what is found, as fast as there is room."""
        try:
            for root in roots:
                await self._walk(root, out)
            self._lanes -= 1
            if self._lanes == 0:
                self._report.discovered_all()
        finally:
            out.close()

    async def _walk(self, root: Root, out: Sink[list[FileRef]]) -> None:
        walker = Walker(root, self._options, self._catalog)
        readers = self._readers.of(root)
        loop = asyncio.get_running_loop()
        try:
            while readers.cause is None:
                await self._ledger.wait_for_room()
                try:
                    chunk = await loop.run_in_executor(readers.walker, walker.step)
                except ReadTimeoutError:
                    walker, chunk = walker.past_the_stuck()
                if chunk is None:
                    return
                await self._hand_over(chunk, out)
        except SourceError as cause:
            readers.pause(cause)
        finally:
            readers.walker.submit(walker.close)  # there: a step may be under way
        self._report.unreadable_directories(
            [UnreadableDirectory(root.path, "its source is paused")]
        )

    async def _hand_over(self, chunk: WalkChunk, out: Sink[list[FileRef]]) -> None:
        if chunk.unreadable:
            self._report.unreadable_directories(chunk.unreadable)
        self._ledger.skipped(chunk.skipped)
        self._ledger.listed(chunk.forgotten)
        self._ledger.seen(chunk.seen)
        new = set(self._ledger.met([result.file for result in chunk.decided]))
        self._ledger.decide([result for result in chunk.decided if result.file in new])
        for listed in lists_of(chunk.files):
            if files := self._ledger.met(listed):
                await out.put(files, weight=len(files))
        self._ledger.listed(chunk.listings)

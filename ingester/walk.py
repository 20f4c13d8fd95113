"""The first stage: lists directories as it goes and hands over what needs work.

Takes sources; gives lists of FileRef. Never holds a tree: a directory is read in chunks of 10,000
names, sorted, looked up in the journal in the walk's own thread, and what needs no work is stamped
there and never opened. Bounds: one chunk, and the channel. Ends when all sources are listed. A
directory that cannot be listed is counted and named, a file that cannot be asked for its size is
an outcome; a root that vanished is fatal.

Why not os.walk or fts: both hold a whole directory before they give its first name.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ingester.channel import Sink
from ingester.dicomweb.outcome import Outcome
from ingester.errors import FatalError
from ingester.items import Directory, FileRef, Previous, Result, Root
from ingester.ledger import Ledger

CHUNK_NAMES = 10_000
LIST_FILES = 64
"""Files handed over at once: a hand-over an item costs 20 times one a list (measurements)."""
LIST_BYTES = 8 << 20
"""No list larger than this, so that one reader thread is not busy for long."""


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """``exclude``: absolute paths that are not met: the journal, its sidecars, the results."""

    follow_symlinks: bool = False
    exclude: frozenset[bytes] = frozenset()


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


class _Listing(Iterator[os.DirEntry[bytes]], Protocol):
    def close(self) -> None: ...


class _Frame(NamedTuple):
    directory: Directory
    entries: _Listing
    subdirectories: list[bytes]  # of the chunk at hand, last first
    identity: tuple[int, int]  # (st_dev, st_ino), against loops of links


class Walker:
    """Lists one source after the other; each ``step`` is a bounded piece of work that blocks."""

    def __init__(
        self, roots: Sequence[tuple[Root, int]], options: WalkOptions, catalog: Catalog
    ) -> None:
        self._roots = iter(roots)
        self._options = options
        self._catalog = catalog
        self._stack: list[_Frame] = []
        self._root: Root | None = None
        self._device = 0

    def step(self) -> WalkChunk | None:
        """The next piece, or None at the end. Raises FatalError when a root vanished."""
        if not self._stack and not self._next_root():
            return None
        chunk = WalkChunk([], [], [], [])
        frame = self._stack[-1]
        if frame.subdirectories:
            self._enter(frame.directory, frame.subdirectories.pop(), chunk)
            return chunk
        entries = self._read(frame, chunk)
        if not entries:
            self._stack.pop()
            return chunk
        self._sort_in(frame, entries, chunk)
        return chunk

    def close(self) -> None:
        """Let go of the directories that are open, where a walk ends early."""
        while self._stack:
            self._stack.pop().entries.close()

    def _next_root(self) -> bool:
        following = next(self._roots, None)
        if following is None:
            return False
        self._root, self._device = following
        chunk = WalkChunk([], [], [], [])
        self._open(self._catalog.directory(self._root, b""), chunk)
        if chunk.unreadable:
            raise FatalError(
                f"a source cannot be listed ({chunk.unreadable[0].reason}): "
                f"{os.fsdecode(self._root.path)}"
            )
        return True

    def _enter(self, parent: Directory, name: bytes, chunk: WalkChunk) -> None:
        rel_path = os.path.join(parent.rel_path, name)
        self._open(self._catalog.directory(parent.root, rel_path), chunk)

    def _open(self, directory: Directory, chunk: WalkChunk) -> None:
        path = directory.path
        try:
            status = os.stat(path) if self._options.follow_symlinks else os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "replaced while it was walked")
            identity = (status.st_dev, status.st_ino)
            if any(frame.identity == identity for frame in self._stack):
                return  # a link back to a directory we are in
            self._check_root(directory.root)
            entries = os.scandir(path)
        except OSError as error:
            self._check_root(directory.root)
            chunk.unreadable.append(UnreadableDirectory(path, os.strerror(error.errno or 0)))
            return
        self._stack.append(_Frame(directory, entries, [], identity))

    def _check_root(self, root: Root) -> None:
        try:
            device: int | None = os.stat(root.path).st_dev
        except OSError:
            device = None
        if device != self._device:
            raise FatalError(
                f"a source vanished during the run: {os.fsdecode(root.path)}",
                "is it still mounted? The same command goes on when it is back",
            )

    def _read(self, frame: _Frame, chunk: WalkChunk) -> list[os.DirEntry[bytes]]:
        entries: list[os.DirEntry[bytes]] = []
        only = frame.directory.root.only
        wanted = (entry for entry in frame.entries if only is None or entry.name in only)
        try:
            entries.extend(itertools.islice(wanted, CHUNK_NAMES))
        except OSError as error:
            self._check_root(frame.directory.root)
            reason = os.strerror(error.errno or 0)
            chunk.unreadable.append(UnreadableDirectory(frame.directory.path, reason))
        # By name: over a network, or while it is changed, a directory may list one twice.
        by_name = {entry.name: entry for entry in entries}
        return [by_name[name] for name in sorted(by_name)]

    def _sort_in(self, frame: _Frame, entries: list[os.DirEntry[bytes]], chunk: WalkChunk) -> None:
        follow = self._options.follow_symlinks
        path = frame.directory.path
        real_path = os.path.realpath(path) if follow else path
        files: list[os.DirEntry[bytes]] = []
        for entry in entries:
            try:
                is_directory = entry.is_dir(follow_symlinks=follow)
            except OSError:
                is_directory = False
            if is_directory and frame.directory.root.only is None:
                frame.subdirectories.append(entry.name)
            elif not self._is_own(entry, real_path):
                files.append(entry)
        frame.subdirectories.reverse()
        known = self._catalog.files(frame.directory, [entry.name for entry in files])
        for entry in files:
            self._file(frame.directory, entry, known[entry.name], chunk)

    def _is_own(self, entry: os.DirEntry[bytes], real_path: bytes) -> bool:
        """Whether the run writes this file itself, by whatever links it was reached."""
        if self._options.follow_symlinks and entry.is_symlink():
            return os.path.realpath(entry.path) in self._options.exclude
        return os.path.join(real_path, entry.name) in self._options.exclude

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


async def walk(
    walker: Walker,
    thread: Executor,
    ledger: Ledger,
    out: Sink[list[FileRef]],
    report: WalkReport,
) -> None:
    """Run the walker in its thread and hand over what it finds, as fast as there is room."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            await ledger.wait_for_room()
            chunk = await loop.run_in_executor(thread, walker.step)
            if chunk is None:
                break
            if chunk.unreadable:
                report.unreadable_directories(chunk.unreadable)
            ledger.seen(chunk.seen)
            ledger.met([result.file for result in chunk.decided])
            ledger.decide(chunk.decided)
            for files in lists_of(chunk.files):
                ledger.met(files)
                await out.put(files, weight=len(files))
        report.discovered_all()
    finally:
        thread.submit(walker.close)  # there: a step may be under way
        out.close()

"""Lists one root, directory by directory, in bounded steps that block.

Never holds a tree: a directory is read in chunks of 10,000 names. In a run that resumes one that
did not come to its end, a directory that is as that one listed it, and in which nothing is left to
do, is skipped: neither its names nor its files are asked for again.

Why not os.walk or fts: both hold a whole directory before they give its first name.

Why a directory's mtime must be 2 s old, as that of a file, for its listing to be kept: a name that
comes later gives it another one then, however coarse the time stamps of the file system are.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from typing import Self

from ingester.catalog import Catalog, UnreadableDirectory, WalkChunk, WalkOptions
from ingester.errors import SourceError
from ingester.files import check_root
from ingester.items import Directory, DirectoryStamp, Listing, Root
from ingester.listing import Frame, Names, entries_of
from ingester.look import UNTRUSTED_MTIME_NS
from ingester.threads import deliver, progressed

SKIPPED_AT_ONCE = 64
"""Directories skipped in one step: a step an item costs more than skipping it."""
MAX_SKIPPED_FILES = 1_000_000
"""A directory of more is always listed: they are counted in one look-up."""


class Walker:
    """``step`` by ``step``, as often as it is asked."""

    def __init__(self, root: Root, options: WalkOptions, catalog: Catalog) -> None:
        self._root = root
        self._options = options
        self._own_directories = {os.path.dirname(path) for path in options.exclude}
        self._catalog = catalog
        self._names = Names(options, catalog)
        self._chunk = WalkChunk.empty()  # of the step at hand
        self._stack: list[Frame] | None = None  # None: not begun
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
            self._names.take(frame, chunk)
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

    def _enter(self, parent: Frame, chunk: WalkChunk) -> None:
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
            looped = self._options.follow_symlinks and self._is_inside(path, identity)
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
            entries = entries_of(directory)
        except OSError as error:
            check_root(self._root)
            chunk.unreadable.append(UnreadableDirectory(path, os.strerror(error.errno or 0)))
            return
        if before is not None:  # it says nothing of what this run will have made of its files
            chunk.forgotten.append(Listing(directory, None))
        self._stack.append(Frame(directory, entries, identity, stamp))

    def _is_inside(self, path: bytes, identity: tuple[int, int]) -> bool:
        """Whether it is a directory we are in already.

        Its inode is no proof: all subvolumes of btrfs have the same, over NFS on one device.
        """
        inside = [frame.directory.path for frame in self._stack or () if frame.identity == identity]
        return bool(inside) and os.path.realpath(path) in map(os.path.realpath, inside)

    def _stamp_to_keep(self, directory: Directory, status: os.stat_result) -> DirectoryStamp | None:
        """What tells a later run that nothing came or went; None: it could not rely on that."""
        whole = self._root.only is None and directory.path not in self._own_directories
        old = time.time_ns() - status.st_mtime_ns >= UNTRUSTED_MTIME_NS
        if whole and old and not self._options.follow_symlinks:
            return DirectoryStamp.of(status)
        return None

    def _ended(self, frame: Frame, chunk: WalkChunk) -> None:
        """The listing came to its end: it is kept if the directory did not change meanwhile."""
        if frame.stamp is not None and frame.files <= MAX_SKIPPED_FILES:
            with suppress(OSError):  # whatever it is, the next run finds it so
                if DirectoryStamp.of(os.lstat(frame.directory.path)) == frame.stamp:
                    chunk.listings.append(Listing(frame.directory, frame.stamp, frame.files))

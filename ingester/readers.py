"""The threads that read: each root has its own, so that a mount that hangs holds nobody else's.

So have the files outside all roots, which earlier runs loaded and copies are compared with.

A call without progress for ``timeout_s`` is given up and its thread written off (``threads``). A
root is paused when it is not the fault of single files: it vanished, or it does not answer itself
after three calls in a row that timed out, or nothing but errors that may pass came of a hundred
files in a row. What is asked of a paused root ends at once with SourcePausedError; its files stay
pending, and the other roots go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from ingester.arena import Arena, Region
from ingester.errors import NoThreadError, SourceError
from ingester.files import MAY_PASS, PIECE_BYTES, SourceChanged, check_root
from ingester.items import Root
from ingester.mounts import NETWORK_FILE_SYSTEMS, mount_type, read_mountinfo
from ingester.scan_pool import NO_POOL, ScanPool
from ingester.threads import LOOKS, DaemonExecutor, ReadTimeoutError

P = ParamSpec("P")
T = TypeVar("T")

LOCAL_READERS = 4
"""Two cost 8 % of `ct`, eight gain nothing (benchmarks/README.md, the defaults)."""
NETWORK_READERS = 16
TIMEOUTS_IN_A_ROW = 3
ERRORS_IN_A_ROW = 100
"""So many more files than a damaged place of a disk takes along that it is not one."""
MAX_STUCK = 32
"""Threads of a root that wait for what does not answer, each with a file or a directory open."""
HASHING_THREADS = 4

_MAY_BE_THE_ROOT = MAY_PASS | {
    errno.ENOENT, errno.ENOTDIR, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ESHUTDOWN,
}  # fmt: skip


class SourcePausedError(OSError):
    """Nothing more is asked of this root in this run."""

    def __init__(self) -> None:
        super().__init__(errno.EHOSTDOWN, "the source is paused: it does not answer")


class RootReaders(DaemonExecutor):
    """The reader threads of one root, and in ``walker`` the one that lists it.

    ``cause`` says why the root is paused; None while it is not.
    """

    def __init__(self, root: Root, threads: int) -> None:
        super().__init__(threads, "reader")
        self.threads = threads
        self.walker = DaemonExecutor(1, "walk")
        self.cause: SourceError | None = None
        self._root = root
        self._probe = DaemonExecutor(1, "probe")
        self._probed: Future[None] | None = None
        self._timeouts = _Row()
        self._errors = _Row()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See DaemonExecutor; the future of a paused root fails with SourcePausedError."""
        if self.cause is None:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        future.set_exception(SourcePausedError())
        return future

    def pause(self, cause: SourceError) -> None:
        """Ask nothing more of this root; the first cause counts. For any thread."""
        if self.cause is None:
            self.cause = cause
        self.fail_waiting(SourcePausedError)

    def on_failure(self, error: OSError) -> None:
        """A file could not be read: is it the file, or the root? In a reader thread.

        Raises:
            SourcePausedError: it is the root.
        """
        if error.errno in _MAY_BE_THE_ROOT:
            try:
                check_root(self._root)
            except SourceError as cause:
                self.pause(cause)
        if error.errno in MAY_PASS and self._errors.add(1, self.answers) >= ERRORS_IN_A_ROW:
            self.pause(self._why(f"every read fails ({os.strerror(error.errno or 0)})"))
        if self.cause is not None:
            raise SourcePausedError

    @property
    def path(self) -> bytes:
        """Of the root."""
        return self._root.path

    @property
    def answers(self) -> int:
        """Times that anything of the root was read or listed."""
        return self.answered + self.walker.answered

    def look(self) -> int:
        """See DaemonExecutor. On the event loop, as everything about time-outs."""
        self._probe.look()
        timed_out = super().look() + self.walker.look()
        if timed_out and self.cause is None:
            in_a_row = self._timeouts.add(timed_out, self.answers)
            if self.stuck + self.walker.stuck >= MAX_STUCK:
                self.pause(self._why("too many reads do not come to an end"))
            elif in_a_row >= TIMEOUTS_IN_A_ROW and self._probed is None:
                self._probed = self._probe.submit(self._ask_root)
                self._probed.add_done_callback(self._judge)
        return timed_out

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See DaemonExecutor."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.walker.shutdown()
        self._probe.shutdown()

    def _ask_root(self) -> None:
        check_root(self._root)
        with os.scandir(self._root.path) as entries:
            next(entries, None)

    def _judge(self, probed: Future[None]) -> None:
        error = probed.exception()
        if isinstance(error, SourceError):
            self.pause(error)
        elif isinstance(error, ReadTimeoutError):
            self.pause(self._why("it does not answer"))
        elif isinstance(error, OSError):
            self.pause(self._why(f"it cannot be listed ({os.strerror(error.errno or 0)})"))
        else:
            self._timeouts = _Row()
            self._probed = None

    def _why(self, what: str) -> SourceError:
        return SourceError(
            f"a source was paused, {what}: {os.fsdecode(self._root.path)}",
            "its other files are pending; the same command goes on when it is back",
        )


class OtherReaders(DaemonExecutor):
    """The reader threads of what lies in no root: nobody knows which of it hangs together.

    While MAX_STUCK of them do not come back, each call ends at once, as if it had timed out.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See DaemonExecutor."""
        if self.stuck < MAX_STUCK:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        future.set_exception(ReadTimeoutError())
        return future

    def look(self) -> int:
        """See DaemonExecutor."""
        timed_out = super().look()
        if self.stuck >= MAX_STUCK:
            self.fail_waiting(ReadTimeoutError)
        return timed_out


class _Row:
    """Counts failures between which nothing was read."""

    def __init__(self) -> None:
        self._answers = -1
        self._count = 0

    def add(self, count: int, answers: int) -> int:
        self._count = count if answers != self._answers else self._count + count
        self._answers = answers
        return self._count


class Readers:
    """The reader threads of all roots, and the processes that read for them.

    ``hashing`` are threads that read nothing. ``threads`` of each root; None: as its file system
    wants. ``arena``: where the processes of ``pool`` write.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        threads: int | None = None,
        pool: ScanPool = NO_POOL,
        arena: Arena | None = None,
    ) -> None:
        self.pool = pool
        self._arena = arena
        mountinfo = read_mountinfo()
        self._roots = {
            root.root_id: RootReaders(root, threads or threads_for(root.path, mountinfo))
            for root in roots
        }
        self._others = OtherReaders(threads or LOCAL_READERS, "reader-elsewhere")
        self.hashing = DaemonExecutor(HASHING_THREADS, "hash")

    def of(self, root: Root) -> RootReaders:
        """The threads of a root."""
        return self._roots[root.root_id]

    def piece(self) -> Region:
        """PIECE_BYTES to read into, again and again."""
        if self._arena is None:
            return Region(memoryview(bytearray(PIECE_BYTES)), None)
        return self._arena.region(PIECE_BYTES)

    def holding(self, path: bytes) -> DaemonExecutor:
        """The threads of the root that a path lies in, or of what lies in none of this run."""
        inside = [
            each for each in self._roots.values() if path.startswith(each.path.rstrip(b"/") + b"/")
        ]
        return max(inside, key=lambda each: len(each.path)) if inside else self._others

    @property
    def causes(self) -> list[SourceError]:
        """Why roots are paused."""
        return [each.cause for each in self._roots.values() if each.cause is not None]

    async def watch(self, timeout_s: float, fail: Callable[[NoThreadError], None]) -> None:
        """Give up calls that make no progress for ``timeout_s``, until it is cancelled.

        ``fail(error)``: no thread is to be had in their place. The others are still watched.
        """
        while True:
            await asyncio.sleep(timeout_s / LOOKS)
            for each in (*self._roots.values(), self._others):
                try:
                    each.look()
                except NoThreadError as error:
                    fail(error)

    def shutdown(self) -> None:
        """Let all threads and processes end that can; waits for no thread."""
        for each in (*self._roots.values(), self._others):
            each.shutdown()
        self.hashing.shutdown()
        self.pool.shutdown()


def threads_for(path: bytes, mountinfo: str) -> int:
    """How many threads read a root at a time: on a network each mostly waits."""
    network = mount_type(mountinfo, os.fsdecode(path)) in NETWORK_FILE_SYSTEMS
    return NETWORK_READERS if network else LOCAL_READERS


def failure_of(error: OSError | SourceChanged) -> tuple[str, str]:
    """Reason code and words for a file that could not be read; neither names it."""
    if isinstance(error, SourceChanged):
        return "changed_while_read", "the file changed while it was read"
    if isinstance(error, SourcePausedError):
        return SOURCE_PAUSED, "its source does not answer"
    if isinstance(error, ReadTimeoutError):
        return READ_TIMED_OUT, "no byte of it came for --read-timeout-s"
    if isinstance(error, FileNotFoundError):
        return "vanished", "the file is gone since it was listed"
    return "read_error", os.strerror(error.errno or 0)


SOURCE_PAUSED = "source_paused"
READ_TIMED_OUT = "read_timed_out"

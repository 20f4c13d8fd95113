"""The processes that read for a run, as its reader threads see them.

A thread borrows a ``RemoteReader`` for a list of files. Processes begin when there is work enough
to make up for their start, and are asked once they say they are ready. None is needed: where one
cannot be had, or ends, the thread reads itself. A process that hangs in a read holds the thread
that asked it and nobody else.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat

import msgspec

from ingester.logs import DEBUG, WARNING, log
from ingester.look import Asked, Seen
from ingester.messages import READY, Messages, message
from ingester.threads import progressed

FILES_BEFORE_PROCESSES = 512
"""The start of one costs 0.11 s of CPU, and so do some 600 files that a thread reads instead: with
2,048 a run of 20,000 files is 4 % slower than with 1 (``python -m benchmarks.sweep archive``)."""
MAX_BY_DEFAULT = 4
"""Each has 15 MiB of its own."""
MAX_READERS = 64
MAX_LOST = 8
END_S = 1.0

_DECODER = msgspec.msgpack.Decoder(list[Seen | None])
_ENCODER = msgspec.msgpack.Encoder()


class ReaderLost(Exception):  # noqa: N818 - an end, not an error: the thread reads itself
    """The process has ended; nothing of it writes to the arena any more."""


@dataclass(slots=True, eq=False)
class ScanProcess:
    """One that reads, with the socket on which it gets others."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    readers: int = 0
    _ready: bool = False

    def is_ready(self) -> bool:
        """Whether it has begun to serve. Never waits."""
        if not self._ready:
            with suppress(OSError):  # BlockingIOError: not yet
                self._ready = self.control.recv(1, socket.MSG_DONTWAIT) == READY
        return self._ready


class RemoteReader:
    """A socket to a process, for one list at a time."""

    def __init__(self, peer: socket.socket, process: ScanProcess) -> None:
        self.process = process
        self._peer = peer
        self._messages = Messages(peer)
        self._awaited = 0
        self.lost = False

    def look(self, files: Sequence[Asked]) -> Iterator[list[Seen | None]]:
        """What each file is, some at a time as they come; None for one to be read by the caller.

        Raises ReaderLost.
        """
        self._awaited = len(files)
        try:
            self._peer.sendall(message(_ENCODER.encode(files)))
        except OSError as error:
            self._is_lost()
            raise ReaderLost from error
        while self._awaited:
            yield self._next()

    def groups(self, files: Sequence[Asked]) -> Iterator[list[Seen | None]]:
        """The same, and nothing of what a process that has ended did not look at."""
        try:
            yield from self.look(files)
        except ReaderLost:
            progressed()  # raises, where the process was ended because nobody waits any more

    def seen(self, files: Sequence[Asked]) -> Iterator[Seen | None]:
        """The same one by one, and then None without end."""
        return chain(chain.from_iterable(self.groups(files)), repeat(None))

    def finish(self) -> None:
        """Return when the process is through with the list, or has ended."""
        with suppress(ReaderLost):
            while self._awaited:
                self._next()

    def _next(self) -> list[Seen | None]:
        received = None
        with suppress(OSError):
            received = self._messages.next()
        answers = [] if received is None else _DECODER.decode(received)
        if not 0 < len(answers) <= self._awaited:
            self._is_lost()
            raise ReaderLost
        self._awaited -= len(answers)
        return answers

    def _is_lost(self) -> None:
        self.lost = True
        self._awaited = 0
        self._peer.close()

    def close(self) -> None:
        """The process ends its side."""
        self._peer.close()


@dataclass(slots=True)
class ScanPool:
    """At most ``processes`` of them, and a RemoteReader for each thread that asks. Thread-safe.

    ``at_once``: begin with the first file, and wait for them.
    """

    processes: int
    arena_fd: int | None
    checksums: bool
    at_once: bool = False
    started: list[ScanProcess] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _left: list[ScanProcess] = field(default_factory=list)  # MAX_LOST at most
    _idle: list[RemoteReader] = field(default_factory=list)
    _files: int = 0
    _ended: bool = False

    def borrow(self, files: int) -> RemoteReader | None:
        """A reader for so many files, or None: read yourself. To be brought back."""
        if not self.processes or self.arena_fd is None:
            return None
        with self._lock:
            self._files += files
            if self._idle:
                return self._idle.pop()
            if self._ended or (not self.at_once and self._files < FILES_BEFORE_PROCESSES):
                return None
            return self._make()

    def bring_back(self, reader: RemoteReader) -> None:
        """Return when the process is through with the list: it writes to the arena until then."""
        reader.finish()
        with self._lock:
            if reader.lost:
                self._leave(reader.process)
            elif self._ended or reader.process not in self.started:
                reader.close()
            else:
                self._idle.append(reader)

    def _leave(self, process: ScanProcess) -> None:
        """It has ended, or closed a socket, which it does for a bug alone."""
        if process in self.started:
            self.started.remove(process)
            self._left.append(process)
            process.control.close()
            for reader in self._idle:
                if reader.process is process:
                    reader.close()
            self._idle = [reader for reader in self._idle if reader.process is not process]
            log(WARNING, "scan_process_lost", lost=len(self._left))

    def _make(self) -> RemoteReader | None:
        """One more, of the process with the fewest; None where there can be none."""
        for process in list(self.started):
            if process.process.poll() is not None:
                self._leave(process)
        if len(self._left) >= MAX_LOST:
            return None
        try:
            while len(self.started) < self.processes:
                self.started.append(self._start())
        except (OSError, subprocess.SubprocessError) as error:
            self.processes = len(self.started)
            log(WARNING, "no_scan_process", reason=type(error).__name__)
        if not self.at_once and not all(each.is_ready() for each in self.started):
            return None  # whoever is ready first would get all threads, and keep them
        fewest = min(self.started, key=lambda each: each.readers, default=None)
        if fewest is None or sum(each.readers for each in self.started) >= MAX_READERS:
            return None
        try:
            ours, theirs = socket.socketpair()
        except OSError:  # no more descriptors
            return None
        with theirs:
            try:
                socket.send_fds(fewest.control, [b"\0"], [theirs.fileno()])
            except OSError:
                ours.close()
                self._leave(fewest)
                return None
        fewest.readers += 1
        return RemoteReader(ours, fewest)

    def _start(self) -> ScanProcess:
        assert self.arena_fd is not None  # noqa: S101 - asked in borrow()
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), self.arena_fd)
        command = [sys.executable, "-P", "-m", "ingester.scan_process", *map(str, fds)]
        command.append(str(int(self.checksums)))
        with theirs, ExitStack() as unless_started:
            unless_started.enter_context(ours)
            process = subprocess.Popen(  # noqa: S603 - this program
                command,
                env=_environment(),
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            unless_started.pop_all()
        log(DEBUG, "scan_process", pid=process.pid)
        return ScanProcess(process, ours)

    def shutdown(self) -> None:
        """Let all processes end; one that hangs in a read is left to the system."""
        with self._lock:
            self._ended = True
            for reader in self._idle:
                reader.close()
            self._idle.clear()
            ending = self.started + self._left
            self.started, self._left = [], []
        for each in ending:
            each.control.close()
        for each in ending:
            try:
                each.process.wait(END_S)
            except subprocess.TimeoutExpired:
                each.process.kill()
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(END_S)


NO_POOL = ScanPool(0, None, checksums=False)
"""Threads read themselves."""


def scan_pool(processes: int | None, arena_fd: int | None, *, checksums: bool) -> ScanPool:
    """The pool of a run: where the number is given it begins with the first file."""
    number = default_processes() if processes is None else processes
    if not _has_python():
        number = 0
    return ScanPool(number, arena_fd, checksums=checksums, at_once=processes is not None)


def default_processes() -> int:
    """How many read for a run, unless it is told another number."""
    return min(MAX_BY_DEFAULT, os.cpu_count() or 1) if _has_python() else 0


def _has_python() -> bool:
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _environment() -> dict[str, str]:
    """The same modules are found; credentials and settings stay here."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "INGESTER_"))
    }
    kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return kept

"""A process that reads files for a run.

Why: a thread that opens, reads and hashes a file lets go of the interpreter six times, and gets it
back from whoever sends at that moment; so readers and sender cost each other more than the reads
(benchmarks, ``archive``). Here reading has an interpreter of its own.

Takes, on a socket for each reader thread of the run, lists of ``Asked``; whole files go to their
place in the arena. Gives a ``Seen`` for each file in order, or None for one that the run has to
look at itself: one that cannot be read, or changed, or is no file like most. Answers are gathered
for ``GATHER_S`` at most, so that those of quick files are one array in one message, and a file that
hangs does not hold those before it. Ends when the run closes its sockets, as it does when it is
killed. Signals are for the run.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from ingester.arena import Segments
from ingester.dicom.layouts import Layouts
from ingester.dicom.scanner import DICOMDIR_SOP_CLASS_UID
from ingester.dicom.values import Header
from ingester.files import SourceChanged, open_to_read
from ingester.items import FileIdentity
from ingester.look import HEAD_BYTES, Asked, Seen, fill, look_at
from ingester.messages import READY, Messages, message
from ingester.threads import let_others_go_first

GATHER_S = 0.05

_DECODER = msgspec.msgpack.Decoder(list[Asked])
_ENCODER = msgspec.msgpack.Encoder()


class Reader:
    """Serves one socket. A bug of it ends the socket, and the run reads the rest itself."""

    def __init__(self, client: socket.socket, segments: Segments, *, checksums: bool) -> None:
        self._client = client
        self._segments = segments
        self._checksums = checksums
        self._head = memoryview(bytearray(HEAD_BYTES))
        self._layouts = Layouts()
        self._gathered: list[Seen | None] = []
        self._unsent = bytearray()  # messages, of the last one perhaps a part
        self._lock = threading.Lock()  # for who sends: to gather takes none
        self.serving = True

    def serve(self) -> None:
        """Until the run closes the socket."""
        try:
            with self._client as client:
                messages = Messages(client)
                while (asked := messages.next()) is not None:
                    for file in _DECODER.decode(asked):
                        self._gathered.append(self.look(file))
                    with self._lock:
                        self._make_message()
                        # Out of reach before it is sent: half of it must not go out again.
                        unsent, self._unsent = self._unsent, bytearray()
                        client.sendall(unsent)
        finally:
            self.serving = False

    def send_some(self) -> None:
        """Send what the socket takes now of what is gathered; from another thread, never waiting.

        What it does not take stays for ``serve``, which also meets an error that stays.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._make_message()
                if self._unsent:
                    sent = self._client.send(self._unsent, socket.MSG_DONTWAIT)
                    del self._unsent[:sent]
            except OSError:  # then nothing was sent
                pass
            finally:
                self._lock.release()

    def _make_message(self) -> None:
        """Of what was gathered since the last one; with the lock held."""
        gathered = self._gathered[:]
        if gathered:
            # Not another list in its place: what is found in this moment would go to the old one.
            del self._gathered[: len(gathered)]
            self._unsent += message(_encode(gathered))

    def look(self, file: Asked) -> Seen | None:
        """What a file is, or None."""
        try:
            fd = open_to_read(file.path)
            try:
                return self._look_at(fd, file)
            finally:
                os.close(fd)
        except (OSError, SourceChanged):
            return None

    def _look_at(self, fd: int, file: Asked) -> Seen | None:
        status = os.fstat(fd)
        if status.st_size != file.size or not stat.S_ISREG(status.st_mode):
            return None
        identity = FileIdentity.from_status(status)
        if file.place is None:
            view = self._head[: file.size]
        else:
            view = self._segments.view(file.place, file.size)
        fill(fd, view)
        header: Header | None = None
        if file.parse:
            found = self._layouts.read_header(view, file.size)
            if not isinstance(found, Header):
                return None
            if found.media_storage_sop_class_uid == DICOMDIR_SOP_CLASS_UID:
                return None
            header = found
        return Seen(header, look_at(fd, identity, view, checksums=self._checksums))


def _encode(answers: Sequence[Seen | None]) -> bytes:
    try:
        return _ENCODER.encode(answers)
    except OverflowError:  # file systems have times beyond 64 bits of nanoseconds
        return _ENCODER.encode([seen if _can_be_encoded(seen) else None for seen in answers])


def _can_be_encoded(seen: Seen | None) -> bool:
    try:
        _ENCODER.encode(seen)
    except OverflowError:
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    """Serve every socket that comes on the control socket, each in a thread of its own.

    ``arguments``: the descriptors of that socket and of the arena, and 1 for digests, or 0.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    let_others_go_first()
    control, arena, checksums = (int(argument) for argument in arguments)
    segments = Segments(arena)
    readers: list[Reader] = []
    run = socket.socket(fileno=control)
    with suppress(OSError):  # it has ended already
        run.sendall(READY)
    for client in _clients(run):
        readers = [reader for reader in readers if reader.serving]
        for reader in readers:
            reader.send_some()
        if client is not None:
            readers.append(Reader(client, segments, checksums=bool(checksums)))
            threading.Thread(target=readers[-1].serve, daemon=True).start()


def _clients(control: socket.socket) -> Iterator[socket.socket | None]:
    """New sockets as they come, and None every ``GATHER_S``."""
    control.settimeout(GATHER_S)
    with control:
        while True:
            try:
                sent, fds, _, _ = socket.recv_fds(control, 1, 1)
            except TimeoutError:
                yield None
                continue
            if not sent:
                return
            for fd in fds:
                yield socket.socket(fileno=fd)


if __name__ == "__main__":
    main(sys.argv[1:])

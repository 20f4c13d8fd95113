"""Runs a command for what it prints, in a thread: bounded in time and in bytes, killed as a whole.

No shell, no input, and what it says on stderr goes nowhere: it may be a password prompt, or quote
a token. It has a session of its own, so that Ctrl-C is the run's alone, and its children end too.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

COMMAND_TIMEOUT_S = 60.0
_LOOK_MS = 100
"""A child that it left behind may keep its output open: so its own end is looked for as well."""


class CommandFailed(Exception):  # noqa: N818 - says what happened
    """It did not end well. The text is ours, the rest of a sentence about the command."""


class Command:
    """One command line, run any number of times, once at a time."""

    def __init__(
        self, arguments: Sequence[str], limit_bytes: int, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> None:
        self._arguments = arguments
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._killed = False

    def run(self) -> bytes:
        """What it prints, of which more than the limit is cut off. Raises CommandFailed."""
        deadline = time.monotonic() + self._timeout_s
        with self._lock:
            if self._killed:
                raise CommandFailed("is not started: the run ends")
            try:
                process = self._running = subprocess.Popen(  # noqa: S603 - it is the user's own
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = os.strerror(getattr(error, "errno", None) or 0)
                raise CommandFailed(f"cannot be started ({reason})") from None
        with process:
            try:
                printed = self._read(process, deadline)
            finally:
                with self._lock:
                    self._running = None
                    _kill(process)
        if process.returncode:
            raise CommandFailed(f"failed (exit code {process.returncode})")
        return printed

    def kill(self) -> None:
        """End it, and start it no more."""
        with self._lock:
            self._killed = True
            if self._running is not None:
                _kill(self._running)

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None  # noqa: S101 - a pipe
        output = process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        printed = bytearray()
        open_ = True
        while True:
            ended = process.poll() is not None
            if open_ and poll.poll(0 if ended else _LOOK_MS):
                piece = os.read(output, 65536)
                printed += piece[: self._limit_bytes + 1 - len(printed)]
                open_ = bool(piece)
            elif ended:
                return bytes(printed)
            elif not open_:
                time.sleep(_LOOK_MS / 1000)
            if time.monotonic() > deadline:
                raise CommandFailed(f"does not answer within {self._timeout_s:g} s")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and its children, as long as the number of the session can be no other's."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

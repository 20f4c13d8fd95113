"""Processes of this program, and what becomes of them when a signal comes.

A signal is noted and passed on to those that run; nothing is raised in the middle of anything, so
that none is started and forgotten. Whoever goes on looks at `Children.check` between two steps.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Final

PYTHON: Final = (sys.executable, "-P", "-m")  # -P: nothing is imported from where it is started


def same_package() -> dict[str, str]:
    """The variable that has a Python process import the package that this one runs."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [os.path.dirname(package), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class StoppedError(Exception):
    """A signal asked for the end. Whoever started something has ended it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


class Children:
    """The processes that are running, each known from its start to its end."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._pids: set[int] = set()

    @property
    def pids(self) -> frozenset[int]:
        """Of those that run."""
        return frozenset(self._pids)

    def stop(self, number: signal.Signals) -> None:
        """End those that run, by their ids, and let none start. For a signal handler."""
        self.asked = self.asked or number
        for pid in tuple(self._pids):
            send(pid, signal.SIGTERM)

    def check(self) -> None:
        """Raises StoppedError once the end was asked for."""
        if self.asked is not None:
            raise StoppedError(self.asked)

    @contextmanager
    def running(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Start one for the time of the block; what has not ended then is killed.

        Raises:
            StoppedError: none is to be started.
        """
        self.check()
        process = subprocess.Popen(  # noqa: S603 - the command is this program's, or a benchmark's
            command, env=variables, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        self._pids.add(process.pid)
        if self.asked is not None:  # since it was looked at
            send(process.pid, signal.SIGTERM)
        try:
            yield process
        finally:
            self._pids.discard(process.pid)
            if process.returncode is None:
                process.kill()
                process.wait()


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)

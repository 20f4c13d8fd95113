"""Only one live run may hold a journal, and only on a disk of its own machine.

SQLite's WAL needs shared memory and honest locks and fsync: network file systems have neither.
They are told by mount type. The lock is ``flock`` on a file beside the journal; the kernel drops
it with the process, whatever ends that. It stays behind: to unlink it would be a race.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import Final

from ingester.errors import JournalError
from ingester.journal.opening import hint_for
from ingester.mounts import NETWORK_FILE_SYSTEMS, mount_type, read_mountinfo

LOCK_PATIENCE_S: Final = 0.5  # a `status` that looks whether a run is live holds it for an instant


def refuse_network_file_system(path: str, mountinfo: str | None = None) -> None:
    """Raise JournalError if ``path`` lies on one. Without /proc (macOS) nothing is refused."""
    if mountinfo is None:
        mountinfo = read_mountinfo()
    kind = mount_type(mountinfo, os.path.realpath(path))
    if kind in NETWORK_FILE_SYSTEMS:
        raise JournalError(
            f"the journal would lie on a network file system ({kind}): {path}",
            "name a file on a disk of this machine with --journal",
        )


class RunLock:
    """The sidecar ``<journal>.lock``, held from construction to ``release``.

    Raises JournalError when another live run holds it.
    """

    def __init__(self, journal_path: str) -> None:
        path = journal_path + ".lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalError(
                f"the journal cannot be locked: {error.strerror}: {path}",
                hint_for(error, "name a file in a directory you may write to with --journal"),
            ) from error
        try:
            self._acquire(journal_path)
            os.fchmod(self._fd, 0o600)
            self.describe(0)
        except BaseException:
            os.close(self._fd)
            raise

    def _acquire(self, journal_path: str) -> None:
        patience_ends = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < patience_ends:
                    time.sleep(0.02)
                    continue
                pid = _pid_in(self._fd)
                raise JournalError(
                    f"the journal is held by another live run (pid {pid}): {journal_path}",
                    "wait for it, stop it, or name another file with --journal",
                ) from None
            except OSError as error:
                raise JournalError(
                    f"the journal cannot be locked: {error.strerror}: {journal_path}",
                ) from error
            return

    def describe(self, run_id: int) -> None:
        """Write who holds it, for the message that others get."""
        text = f"pid {os.getpid()}\nrun {run_id}\n".encode()
        with suppress(OSError):  # a full disk is told by the journal itself
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Let go of it. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)


def live_pid(journal_path: str) -> int | None:
    """Process id of the run that holds the journal (0 if it does not say), None if none does."""
    try:
        fd = os.open(journal_path + ".lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(fd)
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(fd)


def _pid_in(fd: int) -> int:
    words = os.pread(fd, 100, 0).split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

"""A file of which another program has a lease: Samba has one where a client caches what it writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HOLD = """
import fcntl, signal, sys, time
def give_up(number, frame):
    time.sleep(0.3)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
signal.signal(signal.SIGIO, give_up)
file = open(sys.argv[1], "r+b")
try:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
except OSError as error:
    print(error, flush=True)
    sys.exit()
print("held", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Has a lease of a file, and gives it up a moment after somebody opens it; skips without."""
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            said = holder.stdout.readline().strip()
            if said != "held":
                pytest.skip(f"there are no leases here: {said}")
            yield
        finally:
            holder.kill()

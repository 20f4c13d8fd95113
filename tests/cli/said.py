"""What a command says: lines for people, and that nothing of it is left."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from tests.support.process import Completed


def complaint(completed: Completed) -> tuple[str, str]:
    """The one line of what is wrong, and the hint ('' if there is none); nothing else was said."""
    lines = completed.stderr.splitlines()
    assert 1 <= len(lines) <= 2, completed.stderr
    assert lines[0].startswith("ingester: "), completed.stderr
    assert all(line.startswith("  hint: ") for line in lines[1:]), completed.stderr
    assert completed.stdout == ""
    assert completed.stderr.endswith("\n")
    return lines[0].removeprefix("ingester: "), "".join(lines[1:]).removeprefix("  hint: ")


def is_gone(pid: int) -> bool:
    """Whether nothing of the session that a process began is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def is_listening(url: str) -> bool:
    """Whether somebody accepts connections there."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.socket() as client:
        return client.connect_ex((parts.hostname, parts.port)) == 0

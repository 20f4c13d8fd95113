"""Writing to whoever reads stderr, who may be slow, have gone, or never read at all."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

PATIENCE_S = 5.0
_LONGEST_CHARACTER_BYTES = 10  # "\U0001f600", in ASCII


def takes_output(stream: TextIO, wait_s: float | None = 0.0) -> bool:
    """Say whether a write would not wait: one does after Ctrl-S, or on a pipe that is full.

    A pipe that would not has room for PIPE_BUF bytes. True where nobody can say.
    """
    try:
        return bool(select.select([], [stream.fileno()], [], wait_s)[1])
    except (OSError, ValueError):
        return True


def put(stream: TextIO, text: str) -> None:
    """Write a line if the stream takes it now; else pass it over.

    Only another process that fills the same pipe in between can hold this up.
    """
    _put(stream, text, 0.0)


def put_patiently(stream: TextIO, text: str) -> None:
    """Write the last words of a process: a pipe that takes none for `PATIENCE_S` gets none.

    A terminal is waited for, as there is somebody who can let it go on, or send a signal.
    """
    _put(stream, text, None if stream.isatty() else PATIENCE_S)


def _put(stream: TextIO, text: str, wait_s: float | None) -> None:
    with suppress(OSError):  # they have gone: the verb goes on without them
        for piece in _pieces(text, getattr(stream, "encoding", None) or "utf-8"):
            if not takes_output(stream, wait_s):
                return
            stream.write(piece)
            stream.flush()


def _pieces(text: str, encoding: str) -> Iterator[str]:
    """The line, or parts of one that is too long for a pipe to take at once."""
    if len(text.encode(encoding, "backslashreplace")) <= select.PIPE_BUF:
        yield text
        return
    characters = select.PIPE_BUF // _LONGEST_CHARACTER_BYTES
    for start in range(0, len(text), characters):
        yield text[start : start + characters]

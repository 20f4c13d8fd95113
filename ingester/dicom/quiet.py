"""Keeps pydicom's warnings to itself, in this thread, while it reads a file for us.

They quote values of patients, and under -W error they would change what is read.

Why not warnings.catch_warnings: it swaps the filters of the whole process, so two threads inside
it at once leave the wrong ones behind. Here one filter is put in front and stays. It matches
nothing, except in a thread that is inside `quiet()`; nobody else can tell that it is there.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Here(threading.local):
    """How many `quiet()` this thread is inside of."""

    depth = 0


_here = _Here()
_front = threading.Lock()


class _OnlyHere(type):
    """Makes every warning a subclass of QuietWarning in a quiet thread, and none in others."""

    def __subclasscheck__(cls, subclass: type) -> bool:
        return _here.depth > 0


class QuietWarning(Warning, metaclass=_OnlyHere):
    """The category that the filter ignores. It is never issued."""


class _QuietLog(logging.Filter):
    """Drops the records of a quiet thread: pydicom logs what it warns of."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  the thread decides
        return _here.depth == 0


_quiet_log = _QuietLog()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings, and pydicom's log, in the calling thread only."""
    _put_in_front()
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1


def _put_in_front() -> None:
    """Make the filter the first one again: others add theirs in front, or restore a list."""
    logging.getLogger("pydicom").addFilter(_quiet_log)
    with _front:
        first = warnings.filters[0] if warnings.filters else None
        if first is None or first[2] is not QuietWarning:
            warnings.simplefilter("ignore", category=QuietWarning)

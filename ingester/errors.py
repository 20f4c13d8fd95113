"""Every error this package raises on purpose.

    IngesterError
    ├── UsageError       the command line, the configuration or the sources are wrong: exit code 2
    │   └── WrongTargetError   the journal belongs to another store
    └── FatalError       the run cannot go on: exit code 1, what was met stays pending
        ├── StoppedEarly a signal came before anything was read: exit code 128 + its number
        ├── NoThreadError  the system gives this process no thread
        ├── SourceError  a source vanished or does not answer: the others go on first
        └── JournalError the record cannot be opened, read or written

What goes wrong with one file is never raised past its stage: it is a ``Result`` on the same road
as the successes. All errors have a one-line text, an optional ``hint`` (what to do next), and
arguments that survive pickling.
"""

from __future__ import annotations


class IngesterError(Exception):
    """Base of all: a line of what happened and, where it helps, a line of what to do next.

    ``words`` are somebody else's, a server's for instance. They may quote a patient's data: they
    are shown on a terminal and never anywhere else.
    """

    def __init__(self, message: str, hint: str = "", words: str = "") -> None:
        super().__init__(message, hint, words)
        self.message = message
        self.hint = hint
        self.words = words

    def __str__(self) -> str:
        return self.message

    @property
    def without_value(self) -> str:
        """The message up to its colon: what follows may be a path, and is not for a log."""
        return self.message.partition(": ")[0]


class UsageError(IngesterError):
    """The command was used wrongly; nothing was started. The caller corrects it and calls again."""


class WrongTargetError(UsageError):
    """The journal belongs to another store. The caller rebinds it, or names another journal."""


class FatalError(IngesterError):
    """The run cannot go on. The same command continues it once the cause is mended."""


class StoppedEarly(FatalError):  # noqa: N818 - a wish, and no error
    """A signal asked the run to end while it began: there is nothing to record."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped before anything was read")
        self.args = (signal_number,)
        self.exit_code = 128 + signal_number


class NoThreadError(FatalError):
    """The system gives this process no thread. The caller ends others, or raises the limit."""


class SourceError(FatalError):
    """A source vanished or does not answer. The caller mounts it again and goes on."""


class JournalError(FatalError):
    """The journal cannot be used: locked, foreign, newer, or not writable."""

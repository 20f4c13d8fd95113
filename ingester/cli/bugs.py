"""How a bug of this program is shown: by the frames and the kinds of the exceptions.

Never by their texts: pydicom's and aiohttp's quote what they read, a patient's name for instance.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio  # 20 ms, and not for --help

HINT = "  hint: this is a bug of this program; please report the lines above, they name no patient"


def install() -> None:
    """Show every exception that nobody catches this way, of the process and its threads."""
    sys.excepthook = _show_uncaught
    threading.excepthook = lambda failed: _show(failed.exc_value)


def on_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Handle what asyncio would log, with its text."""
    del loop
    error = context.get("exception")
    _show(error if isinstance(error, BaseException) else None)


def lines_of(error: BaseException) -> Iterator[str]:
    """Kind and frames of an exception, of those it groups, and of its cause."""
    yield f"ingester: {type(error).__name__}"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  at {frame.name} ({frame.filename}:{frame.lineno})"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from lines_of(each)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from lines_of(cause)


def _show_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    del kind, trace
    _show(error)


def _show(error: BaseException | None) -> None:
    lines = [] if error is None else [*lines_of(error), HINT]
    with suppress(OSError):
        sys.stderr.writelines(f"{line}\n" for line in lines)

"""How a bug of this program is shown: by the frames and the kinds of the exceptions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from ingester.cli.streams import put, put_patiently
from ingester.frames import frames_of

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


def _show_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    del kind, trace
    _show(error, put_patiently)


def _show(error: BaseException | None, write: Callable[[TextIO, str], None] = put) -> None:
    if error is None:
        return
    from ingester import logs  # noqa: PLC0415 - 30 ms, and not for --help

    logs.bug(error)
    lines = [line if line.startswith(" ") else f"ingester: {line}" for line in frames_of(error)]
    lines.append(HINT)
    write(sys.stderr, "".join(f"{line}\n" for line in lines))

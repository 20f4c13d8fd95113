"""Progress on stderr: a panel on a terminal, a line an interval anywhere else.

Where a panel is not wanted (NO_COLOR, TERM=dumb) or has no room, the line, rewritten in place.
Nothing here may disturb the run: a terminal or a pipe that has gone or takes no output is passed
over. What was not told then is in the summary.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

from ingester.catalog import UnreadableDirectory
from ingester.cli import printable
from ingester.cli.streams import put, takes_output
from ingester.progress import Snapshot, progress_line

if TYPE_CHECKING:
    from ingester.cli.panel import RunPanel  # rich, on a terminal only

TERMINAL_INTERVAL_S = 1.0
WARNINGS_HELD = 1000
"""Of those that a terminal has not taken yet: after Ctrl-S it takes none for days."""
MIN_COLUMNS = 48
MIN_LINES = 14
"""In a smaller window there is no room for a panel."""


class Live:
    """Writes to a terminal or to whatever else stderr is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._before: Snapshot | None = None
        self._open_line = False
        self._warnings: list[str] = []  # to stand above the panel when it is drawn next
        self._left_out = 0  # of those before them
        self._panel: RunPanel | None = None
        if self._terminal and _wants_panel():
            from ingester.cli.panel import RunPanel  # noqa: PLC0415 - rich, on a terminal only

            self._panel = RunPanel(getattr(stream, "encoding", None) or "utf-8")

    def interval_s(self, configured_s: float) -> float:
        """How often a snapshot is wanted."""
        return min(TERMINAL_INTERVAL_S, configured_s) if self._terminal else configured_s

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        line = progress_line(snapshot, self._before)
        self._before = snapshot
        if not self._terminal:
            put(self._stream, line + "\n")
            return
        if self._panel is not None:
            self._panel.take(snapshot)
        if self._takes_output() and not self._draw(ended=False):
            self._tell_warnings()
            self._write(f"\r\x1b[2K{line[: self._size().columns - 1]}")
            self._open_line = True

    def warn(self, unreadable: UnreadableDirectory) -> None:
        """Tell of a directory that cannot be listed: by name on a terminal only."""
        which = f": {printable(os.fsdecode(unreadable.path))}" if self._terminal else ""
        self._hold(f"warning: a directory cannot be listed ({unreadable.reason}){which}")
        if self._panel is None and self._takes_output():  # one is drawn once for all of a second
            self._tell_warnings()

    def tell(self, line: str) -> None:
        """Tell a person now, of what happens once: above the panel, where there is one."""
        self._hold(printable(line))
        if self._takes_output() and not self._draw(ended=False):
            self._tell_warnings()

    def stopping(self, number: signal.Signals, drain_timeout_s: float) -> None:
        """Acknowledge the first signal, and say what a second does."""
        self.tell(
            f"stopping on {number.name}: requests under way get {drain_timeout_s:g} s to finish; "
            "a second signal ends them at once and leaves their files in doubt"
        )

    def end(self) -> None:
        """Leave the line that is rewritten, or the panel as it was last."""
        self._draw(ended=True)
        self._panel = None
        self._tell_warnings()
        self._leave_line()
        if isinstance(sys.stderr, _Shared):
            sys.stderr = sys.stderr.stream

    def _hold(self, line: str) -> None:
        self._warnings.append(line)
        if len(self._warnings) > WARNINGS_HELD:
            del self._warnings[0]
            self._left_out += 1

    def _held(self) -> list[str]:
        left_out = f"warning: {self._left_out:,} lines before these were left out"
        return [left_out, *self._warnings] if self._left_out else self._warnings

    def _let_go(self) -> None:
        self._warnings.clear()
        self._left_out = 0

    def _draw(self, *, ended: bool) -> bool:
        """Draw the panel if there is one, and room; say whether it stands there."""
        if self._panel is None:
            return False
        try:
            size = self._size()
            if size.columns < MIN_COLUMNS or size.lines < MIN_LINES or self._in_background():
                self._panel.leave()
                return False
            text = self._panel.draw(size, above=self._held(), ended=ended)
            if sys.stderr is self._stream:
                sys.stderr = cast("TextIO", _Shared(self._stream, self._panel.leave))
        except Exception:  # noqa: BLE001 - a panel is not worth a run
            self._panel = None
            return False
        self._let_go()
        self._leave_line()
        self._write(text)
        return True

    def _tell_warnings(self) -> None:
        if not self._terminal:
            for line in self._held():
                put(self._stream, f"{line}\n")
        elif self._warnings:
            self._leave_line()
            self._write("".join(f"{line}\n" for line in self._held()))
        self._let_go()

    def _leave_line(self) -> None:
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _size(self) -> os.terminal_size:
        """Size of this terminal now, whatever COLUMNS said when the run began."""
        columns = lines = 0
        with suppress(OSError, ValueError):
            columns, lines = os.get_terminal_size(self._stream.fileno())
        return os.terminal_size((columns or 80, lines or 24))

    def _takes_output(self) -> bool:
        """Say whether to write now. A pipe is asked for each line, see `put`."""
        return not self._terminal or takes_output(self._stream)

    def _in_background(self) -> bool:
        """Say whether another job has the terminal: a panel would redraw over its lines."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) != os.getpgrp()
        except (OSError, ValueError):  # not the terminal that controls this process
            return False

    def _write(self, text: str) -> None:
        """Whoever watched may have gone, a disk may be full: the run goes on without them."""
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class _Shared:
    """stderr while a panel stands there: what others write stays, the next panel is below it."""

    def __init__(self, stream: TextIO, leave_panel: Callable[[], None]) -> None:
        self.stream = stream
        self._leave_panel = leave_panel

    def write(self, text: str) -> int:
        self._leave_panel()
        return self.stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self._leave_panel()
        self.stream.writelines(lines)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def _wants_panel() -> bool:
    plain = os.environ.get("TERM", "") in ("", "dumb", "unknown")
    return not plain and not os.environ.get("NO_COLOR")

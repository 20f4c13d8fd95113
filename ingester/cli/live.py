"""Progress on stderr: one line an interval, rewritten in place on a terminal."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TextIO

from ingester.cli import printable
from ingester.progress import Snapshot, progress_line
from ingester.walk import UnreadableDirectory

TERMINAL_INTERVAL_S = 1.0


class Live:
    """Writes to a terminal or to whatever else stderr is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._before: Snapshot | None = None
        self._open_line = False

    def interval_s(self, configured_s: float) -> float:
        """How often a snapshot is wanted."""
        return min(TERMINAL_INTERVAL_S, configured_s) if self._terminal else configured_s

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        line = progress_line(snapshot, self._before)
        self._before = snapshot
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{line[:width]}")
            self._open_line = True
        else:
            self._write(line + "\n")

    def warn(self, unreadable: UnreadableDirectory) -> None:
        """Tell of a directory that cannot be listed: by name on a terminal only."""
        self.end()
        which = f": {printable(os.fsdecode(unreadable.path))}" if self._terminal else ""
        self._write(f"warning: a directory cannot be listed ({unreadable.reason}){which}\n")

    def end(self) -> None:
        """Leave the line that is rewritten."""
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _write(self, text: str) -> None:
        """Whoever watched may have gone, a disk may be full: the run goes on without them."""
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

"""The panel that stands on a terminal while a run goes on.

rich draws it, ``ingester.cli.live`` writes it: only text comes out of here, so nothing of rich
touches the terminal or learns that it has gone. Loaded on a terminal only.

The cursor is never hidden and rests at the start of the line below: a run that is killed leaves
nothing to be put right, and words from elsewhere begin on a line of their own.

Why not rich.progress: it draws by its own clock, here a drawing a snapshot is enough; and its bar
is full by colour alone, which a copied screen does not show.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ingester.dicomweb.outcome import INCOMPLETE, Outcome
from ingester.progress import Snapshot

MAX_COLUMNS = 76
"""Wider it reads no better, and a narrower window would break more of it."""
LABEL_COLUMNS = 10
BESIDES_THE_BAR = 4 + LABEL_COLUMNS + 2 + 6
"""Columns of the frame, the label, the gap and the percentage."""
SHOWN_RATE_S = 5.0
"""A rate to be read: commits come in batches."""
LEFT_RATE_S = 30.0
"""A rate to foretell by."""
MAX_LEFT_S = 1000 * 3600.0
"""Longer than this is not foretold: nothing moves."""


@dataclass(slots=True)
class Rate:
    """Units a second, smoothed over about so many seconds."""

    over_s: float
    value: float = 0.0
    _total: int = 0
    _at_s: float = 0.0

    def take(self, total: int, at_s: float) -> None:
        """Take in how many there are by now."""
        seconds = at_s - self._at_s
        if seconds <= 0:
            return
        weight = 1 - math.exp(-seconds / self.over_s) if self._at_s else 1.0
        self.value += weight * ((total - self._total) / seconds - self.value)
        self._total, self._at_s = total, at_s


@dataclass(slots=True)
class Rates:
    """What is counted a second."""

    stored_bytes: Rate = field(default_factory=lambda: Rate(SHOWN_RATE_S))
    instances: Rate = field(default_factory=lambda: Rate(SHOWN_RATE_S))
    files: Rate = field(default_factory=lambda: Rate(LEFT_RATE_S))

    def take(self, snapshot: Snapshot) -> None:
        """Take in a moment of the run."""
        self.stored_bytes.take(snapshot.bytes_stored, snapshot.elapsed_s)
        self.instances.take(snapshot.instances_stored, snapshot.elapsed_s)
        self.files.take(snapshot.committed, snapshot.elapsed_s)


def left_s(snapshot: Snapshot, files_per_s: float) -> float | None:
    """Seconds until everything met is recorded; None while that cannot be said."""
    left = snapshot.files_met - _done(snapshot)
    if not snapshot.all_met or left <= 0 or files_per_s * MAX_LEFT_S < left:
        return None
    return left / files_per_s


def lay_out(
    snapshot: Snapshot, rates: Rates, *, width: int, ended: bool = False, ascii_only: bool = False
) -> Panel:
    """Lay the panel out, ``width`` columns wide. One of a run that has ended gives its averages."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=LABEL_COLUMNS, style="dim")
    grid.add_column()
    grid.add_row("files", _files(snapshot, ended=ended))
    if snapshot.all_met and snapshot.files_met:
        grid.add_row("recorded", _bar(snapshot, width - BESIDES_THE_BAR, ascii_only=ascii_only))
    grid.add_row("stored", _stored(snapshot, rates, ended=ended))
    grid.add_row(
        "requests",
        f"{snapshot.requests:,} ({snapshot.in_flight} in flight), retries {snapshot.retries:,}",
    )
    grid.add_row("outcomes", _outcomes(snapshot))
    if not ended:
        away = f"a server that is away, for {_clock(snapshot.away_s)}"
        grid.add_row("held up by", away if snapshot.away_s else snapshot.bottleneck)
    left = None if ended else left_s(snapshot, rates.files.value)
    about = "" if left is None else f", about {_clock(left)} left"
    grid.add_row("elapsed", f"{_clock(snapshot.elapsed_s)}{about}")
    return Panel(grid, title="ingester run", title_align="left", width=width)


class RunPanel:
    """One panel, redrawn in place. Every method gives the text that does it on the terminal.

    Args:
        encoding: the terminal's; without UTF in its name it gets ASCII.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._snapshot: Snapshot | None = None
        self._rates = Rates()
        self._live: Live | None = None

    def take(self, snapshot: Snapshot) -> None:
        """Take in a moment of the run; it is not drawn yet."""
        self._snapshot = snapshot
        self._rates.take(snapshot)

    def leave(self) -> None:
        """Leave what stands there: the next one begins where the cursor is."""
        self._live = None

    def draw(self, size: os.terminal_size, *, above: Sequence[str] = (), ended: bool) -> str:
        """Draw the moment taken last, for the last time if it has ended.

        The lines ``above`` are new; they stay there.
        """
        if self._snapshot is None:
            return "".join(f"{line}\n" for line in above)
        sheet = _Sheet(self._encoding)
        live = self._live or self._begin(sheet)
        console = live.console
        console.file = sheet
        console.size = console.size._replace(width=size.columns, height=size.lines)
        width = min(size.columns, MAX_COLUMNS)
        ascii_only = console.options.ascii_only
        drawn = lay_out(
            self._snapshot, self._rates, width=width, ended=ended, ascii_only=ascii_only
        )
        live.update(drawn if ended else Group(drawn, ""))
        if above:
            console.print(*map(Text, above), sep="\n", soft_wrap=True)
        if ended:
            live.stop()
            self._live = None
        elif not above:  # printing has drawn it
            live.refresh()
        return sheet.getvalue()

    def _begin(self, sheet: _Sheet) -> Live:
        console = _Console(
            file=sheet,
            force_terminal=True,
            force_interactive=True,
            force_jupyter=False,
            color_system="standard",
            legacy_windows=False,
        )
        self._live = Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        return self._live


class _Console(Console):
    """Leaves the cursor alone."""

    def show_cursor(self, show: bool = True) -> bool:
        del show
        return False


class _Sheet(io.StringIO):
    """Takes what is drawn, for a terminal of some encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def _done(snapshot: Snapshot) -> int:
    """How many files are committed, without those that an interrupted run left for the next."""
    done = snapshot.committed - snapshot.outcomes.get(Outcome.PENDING, 0)
    return max(0, min(done, snapshot.files_met))


def _files(snapshot: Snapshot, *, ended: bool) -> str:
    done, met = f"{_done(snapshot):,}", f"{snapshot.files_met:,}"
    if snapshot.all_met:
        return f"{done} of {met} recorded"
    known = "not all were discovered" if ended else "still discovering"
    return f"{done} recorded, {met} met, {known}"


def _bar(snapshot: Snapshot, width: int, *, ascii_only: bool) -> str:
    """Rounded down: full, and 100 %, only when every file met is committed."""
    full, empty = "#-" if ascii_only else "█░"
    done, met = _done(snapshot), snapshot.files_met
    long = width * done // met
    return f"{full * long}{empty * (width - long)} {100 * done // met:3} %"


def _stored(snapshot: Snapshot, rates: Rates, *, ended: bool) -> str:
    seconds = max(snapshot.elapsed_s, 1e-3)
    bytes_per_s = snapshot.bytes_stored / seconds if ended else rates.stored_bytes.value
    instances_per_s = snapshot.instances_stored / seconds if ended else rates.instances.value
    return (
        f"{_size(snapshot.bytes_stored)}, {bytes_per_s / 1e6:,.1f} MB/s,"
        f" {instances_per_s:,.1f} instances/s"
    )


def _outcomes(snapshot: Snapshot) -> RenderableType:
    """Those that there are; red for those after which a run is not complete."""
    found = [
        Text(f"{name} {count:,}", style="bold red" if name in INCOMPLETE else "")
        for name, count in snapshot.outcomes.items()
        if count
    ]
    return Columns(found, padding=(0, 3)) if found else "none yet"


def _size(count: int) -> str:
    value, unit = count / 1e6, "MB"
    for larger in ("GB", "TB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:,.1f} {unit}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

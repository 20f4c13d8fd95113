"""The panel on a terminal: what the screen shows, and that no terminal disturbs a run."""

from __future__ import annotations

import codecs
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ingester.catalog import UnreadableDirectory
from ingester.cli import live as live_module
from ingester.cli.live import WARNINGS_HELD, Live
from ingester.cli.panel import Rate, Rates, RunPanel, lay_out, left_s
from ingester.dicomweb.outcome import INCOMPLETE, Outcome
from ingester.progress import Snapshot
from tests.support.dicom_files import write_corpus
from tests.support.process import clean_environment, run_ingester, start_python
from tests.support.scripted import ScriptedServer, StoreAll, Wait
from tests.support.snapshots import snapshot

HIDDEN_CURSOR, OTHER_SCREEN = "\x1b[?25l", "\x1b[?1049h"
WITH_TERMINAL = (  # has stderr control the process, as a shell does
    "import fcntl, os, signal, sys, termios;"
    "signal.signal(signal.SIGINT, signal.SIG_DFL);"  # a test runner may ignore it
    "fcntl.ioctl(2, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Screen:
    """As much of a terminal as the panel needs; scrolled lines are kept."""

    def __init__(self, columns: int = 80) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for match in re.finditer(r"\x1b\[([0-9;?]*)([A-Za-z])|([\s\S])", text):
            count, control, character = match.groups()
            if control == "A":
                self.row = max(0, self.row - int(count or 1))
            elif control == "K":
                self.lines[self.row] = ""
            elif control is not None:
                assert control == "m", match[0]
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self._down()
            else:
                self._put(character)

    def _put(self, character: str) -> None:
        if self.column >= self.columns:
            self._down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.lines):
            self.lines.append("")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


class Terminal(io.StringIO):
    """A stream that says it is a terminal, of no size and no file descriptor."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        screen = Screen()
        screen.feed(self.getvalue())
        return screen.text


def resize(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


class Pty:
    """A real terminal with ``ingester run archive`` on its stderr; stdout is a file, or not."""

    def __init__(
        self,
        directory: Path,
        server: ScriptedServer,
        *,
        env: dict[str, str] | None = None,
        columns: int = 80,
        lines: int = 24,
        controls: bool = False,
        stopped: bool = False,
        stdout_too: bool = False,
    ) -> None:
        self.output = ""
        self._lock = threading.Lock()
        self._hung_up = threading.Event()
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        if stopped:
            self.press(b"\x13")
        flags = ("--progress-interval-s", "0.05", "--max-batch-instances", "1")
        before = ("-c", WITH_TERMINAL) if controls else ()
        with (directory / "stdout").open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, *before, "-m", "ingester", "run", "archive",
                 "--url", server.url, *flags],
                cwd=directory, env=clean_environment({"TERM": "xterm", "NO_COLOR": ""} | (env or {})),
                stdin=subprocess.DEVNULL, stdout=slave if stdout_too else stdout, stderr=slave,
                start_new_session=True,
            )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        with suppress(OSError):  # EIO: the other side has gone
            while not self._hung_up.is_set():
                chunk = os.read(self.master, 65536)
                if not chunk:
                    return
                with self._lock:
                    self.output += decoder.decode(chunk)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resize(self, columns: int, lines: int) -> None:
        resize(self.master, columns, lines)

    def hang_up(self) -> None:
        self._hung_up.set()
        self._reader.join()  # it reads once more: the panel is drawn again soon
        os.close(self.master)

    def screen(self, columns: int = 80) -> str:
        screen = Screen(columns)
        with self._lock:
            screen.feed(self.output)
        return screen.text

    def wait_for(self, condition: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 60
        while not condition(text := self.screen()):
            assert time.monotonic() < deadline, text
            time.sleep(0.01)
        return text

    def wait(self) -> int:
        code = self.process.wait(60)
        if not self._hung_up.is_set():
            self._reader.join()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if not self._hung_up.is_set():
            self._reader.join()
            os.close(self.master)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three studies of four instances."""
    write_corpus(tmp_path / "archive", studies=3, instances_per_study=4)
    return tmp_path


@pytest.fixture
def go_on(server: ScriptedServer) -> Iterator[threading.Event]:
    """The server answers when this is set."""
    event = threading.Event()
    server.default = Wait(event)
    yield event
    event.set()


@pytest.fixture
def with_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@contextmanager
def on_terminal(directory: Path, server: ScriptedServer, **how: object) -> Iterator[Pty]:
    terminal = Pty(directory, server, **how)  # type: ignore[arg-type]
    try:
        yield terminal
    finally:
        terminal.close()


def drawn(moment: Snapshot, rates: Rates | None = None, *, ended: bool = False) -> str:
    """The panel as characters, without colour."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(lay_out(moment, rates or Rates(), width=76, ended=ended))
    return capture.get()


def row(text: str, label: str) -> str:
    """What stands in a row of the panel."""
    found = re.search(rf"^. {label} +(.*?) *.$", text, re.MULTILINE)
    return found[1] if found else ""


def all_are_held(screen: str) -> bool:
    """Whether all files are met, and the server has as many requests as it gets."""
    at_work = re.search(
        r"0 of 12 recorded.*requests +([1-9]) \(\1 in flight\).*╯", screen, re.DOTALL
    )
    return at_work is not None


class TestWhatIsDrawn:
    def test_says_it_all(self) -> None:
        rates = Rates()
        rates.take(snapshot())
        text = drawn(snapshot(), rates)
        bar = "█" * 27 + "░" * 27
        assert [line[2:-1].strip() for line in text.splitlines()[1:-1]] == [
            "files       500 of 1,000 recorded",
            f"recorded    {bar}  50 %",
            "stored      4.0 GB, 400.0 MB/s, 40.0 instances/s",
            "requests    12 (8 in flight), retries 3",
            "outcomes    stored 400   invalid 100",
            "held up by  server or network",
            "elapsed     0:00:10, about 0:00:10 left",
        ]

    def test_says_that_the_server_is_away(self) -> None:
        text = drawn(snapshot(away_s=754.2))
        assert row(text, "held up by") == "a server that is away, for 0:12:34"

    def test_has_neither_a_bar_nor_an_end_while_files_are_discovered(self) -> None:
        rates = Rates()
        rates.take(snapshot())
        text = drawn(snapshot(all_met=False), rates)
        assert row(text, "files") == "500 recorded, 1,000 met, still discovering"
        assert "%" not in text
        assert "left" not in text

    def test_has_no_bar_of_nothing(self) -> None:
        text = drawn(snapshot(files_met=0, committed=0, outcomes={}))
        assert "%" not in text
        assert row(text, "outcomes") == "none yet"

    @settings(deadline=None)
    @given(st.integers(1, 10**9), st.integers(0, 10**9))
    def test_is_full_only_when_everything_is_committed(self, met: int, left: int) -> None:
        committed = max(0, met - left)
        recorded = row(drawn(snapshot(files_met=met, committed=committed)), "recorded")
        assert ("100 %" in recorded) is (committed == met)
        assert ("░" not in recorded) is (committed == met)

    def test_of_a_run_that_ended_has_its_averages_and_nothing_of_the_future(self) -> None:
        text = drawn(snapshot(all_met=False), ended=True)
        assert row(text, "files") == "500 recorded, 1,000 met, not all were discovered"
        assert row(text, "stored") == "4.0 GB, 400.0 MB/s, 40.0 instances/s"
        assert "held up" not in text
        assert "left" not in text

    def test_is_not_full_of_what_is_left_for_the_next_run(self) -> None:
        outcomes = {"stored": 900, "pending": 100}
        text = drawn(snapshot(committed=1000, outcomes=outcomes), ended=True)
        assert row(text, "files") == "900 of 1,000 recorded"
        assert row(text, "recorded").endswith("░  90 %")
        assert row(text, "outcomes") == "stored 900   pending 100"

    def test_is_red_where_a_run_is_not_complete_and_the_same_words_without(self) -> None:
        panel = RunPanel("utf-8")
        panel.take(snapshot(outcomes={outcome.value: 7 for outcome in Outcome}))
        text = panel.draw(os.terminal_size((80, 40)), ended=False)
        assert set(re.findall(r"\x1b\[1;31m(\w+) 7", text)) == {name.value for name in INCOMPLETE}
        screen = Screen()
        screen.feed(text)
        assert all(f"{outcome.value} 7" in screen.text for outcome in Outcome)

    @pytest.mark.parametrize("columns", [48, 60, 76, 300])
    def test_fits(self, columns: int) -> None:
        panel = RunPanel("utf-8")
        panel.take(snapshot(outcomes={outcome.value: 10**9 for outcome in Outcome}))
        text = panel.draw(os.terminal_size((columns, 60)), ended=True)
        widths = {len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in text.splitlines()}
        assert widths == {min(columns, 76)}
        assert "in_doubt 1,000,000,000" in text

    def test_is_ascii_for_a_terminal_of_another_encoding(self) -> None:
        panel = RunPanel("iso-8859-1")
        panel.take(snapshot())
        text = panel.draw(os.terminal_size((80, 24)), ended=False)
        assert text.isascii()
        assert "#---" in text


class TestTheTimeLeft:
    @pytest.mark.parametrize(
        ("changed", "rate", "left"),
        [
            ({}, 50.0, 10.0),
            ({}, 0.0, None),
            ({}, 1e-9, None),
            ({"all_met": False}, 50.0, None),
            ({"committed": 1000}, 50.0, None),
        ],
    )
    def test_is_said_when_it_is_known(
        self, changed: dict[str, object], rate: float, left: float | None
    ) -> None:
        assert left_s(snapshot(**changed), rate) == left

    def test_follows_a_rate_that_is_smoothed(self) -> None:
        rate = Rate(over_s=5.0)
        rate.take(100, 10.0)
        assert rate.value == 10.0
        rate.take(120, 11.0)
        assert 11.0 < rate.value < 12.0
        rate.take(120, 11.0)  # a moment later
        for second in range(12, 60):
            rate.take(120 + (second - 11) * 20, float(second))
        assert rate.value == pytest.approx(20.0, abs=0.1)


@pytest.mark.usefixtures("with_panel")
class TestLive:
    def test_redraws_in_place_and_leaves_the_last(self) -> None:
        terminal = Terminal()
        live = Live(terminal)
        live.show(snapshot(all_met=False))
        live.show(snapshot())
        live.show(snapshot(committed=1000))
        live.end()
        terminal.write("after\n")
        lines = terminal.screen().splitlines()
        assert lines[0].startswith("╭─ ingester run ─")
        assert row("\n".join(lines), "files") == "1,000 of 1,000 recorded"
        assert lines[-2].startswith("╰")
        assert lines[-1] == "after"
        assert terminal.screen().count("files") == 1

    def test_tells_warnings_above(self) -> None:
        terminal = Terminal()
        live = Live(terminal)
        live.warn(UnreadableDirectory(b"/a/[red]1\x1b[2J", "Permission denied"))
        live.show(snapshot())
        long = b"/b/" + b"2" * 200
        live.warn(UnreadableDirectory(long, "Permission denied"))
        live.show(snapshot())
        live.warn(UnreadableDirectory(b"/c", "Permission denied"))
        live.end()
        assert live._warnings == []
        lines = terminal.screen().splitlines()
        top = next(i for i, line in enumerate(lines) if line.startswith("╭"))
        said = "".join(lines[:top])
        assert re.findall(r"warning: a directory cannot be listed \(Permission denied\): (/\w)", said) == ["/a", "/b", "/c"]  # fmt: skip
        assert r"[red]1\x1b[2J" in said
        assert long.decode() in said
        assert terminal.screen().count("files") == 1

    def test_tells_warnings_without_a_panel_too(self) -> None:
        terminal = Terminal()
        live = Live(terminal)
        live.warn(UnreadableDirectory(b"/a", "Permission denied"))
        live.end()
        assert terminal.screen() == (
            "warning: a directory cannot be listed (Permission denied): /a\n"
        )

    @pytest.mark.parametrize("term", ["xterm", "dumb"])
    def test_keeps_the_last_warnings_for_a_terminal_that_takes_nothing(
        self, term: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After Ctrl-S, or in a window that is suspended: for days, of a million directories."""
        monkeypatch.setenv("TERM", term)
        reader, writer = os.pipe()

        class Stopped(Terminal):
            """Until the pipe is read, which is full from the start."""

            def fileno(self) -> int:
                return writer

        capacity = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        os.write(writer, bytes(capacity))
        terminal = Stopped()
        live = Live(terminal)
        for number in range(3 * WARNINGS_HELD):
            live.warn(UnreadableDirectory(b"/%05d" % number, "Permission denied"))
            live.show(snapshot())
        assert terminal.getvalue() == ""
        os.read(reader, capacity)
        live.tell("goes on")
        live.end()
        os.close(reader)
        os.close(writer)
        lines = terminal.screen().splitlines()
        said = [
            line for line in lines if line.startswith("warning: a directory") or line == "goes on"
        ]
        assert lines[0] == f"warning: {2 * WARNINGS_HELD + 1:,} lines before these were left out"
        assert len(said) == WARNINGS_HELD
        assert said[-2].endswith(f": /{3 * WARNINGS_HELD - 1:05d}")
        assert said[-1] == "goes on"

    def test_keeps_what_others_write(self) -> None:
        terminal = Terminal()
        with redirect_stderr(terminal):
            live = Live(terminal)
            live.show(snapshot())
            sys.stderr.writelines(["ingester: KeyError\n", "  at somewhere\n"])
            live.show(snapshot(committed=501))
            sys.stderr.write("  and more\n")
            live.show(snapshot(committed=502))
            live.end()
            assert sys.stderr is terminal
        text = terminal.screen()
        assert "ingester: KeyError\n  at somewhere\n╭─" in text
        assert "╯\n  and more\n╭─" in text
        assert [text.count(f"{n} of 1,000") for n in (500, 501, 502)] == [1, 1, 1]

    def test_goes_on_with_the_line_when_the_panel_cannot_be_drawn(self) -> None:
        terminal = Terminal()
        live = Live(terminal)
        live.show(snapshot(outcomes={"stored": "many"}))  # stands for any bug
        live.show(snapshot())
        live.end()
        assert "progress elapsed_s=10" in terminal.screen().splitlines()[-1]

    def test_gives_the_line_where_there_is_no_room(self) -> None:
        master, slave = pty.openpty()

        class Sized(Terminal):
            """Of the size of a real one."""

            def fileno(self) -> int:
                return slave

        terminal = Sized()
        try:
            live = Live(terminal)
            for columns, lines in ((80, 24), (1, 24), (80, 1), (47, 13), (80, 24)):
                resize(master, columns, lines)
                live.show(snapshot())
            live.end()
        finally:
            os.close(master)
            os.close(slave)
        lines_of_screen = terminal.screen().rstrip().splitlines()
        assert sum(line.startswith("progress elapsed_s=10") for line in lines_of_screen) == 1
        assert lines_of_screen[-1].startswith("╰")

    def test_survives_a_stream_that_is_broken(self) -> None:
        class Broken(Terminal):
            def write(self, text: str) -> int:
                raise BrokenPipeError(text)

        live = Live(Broken())
        live.show(snapshot())
        live.warn(UnreadableDirectory(b"/a", "Permission denied"))
        live.show(snapshot())
        live.end()

    @pytest.mark.parametrize(
        ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", ""), ("TERM", "unknown")]
    )
    def test_has_no_panel_where_none_is_wanted(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        assert not live_module._wants_panel()


def elapsed_s(text: str) -> int:
    """Seconds that the panel says the run goes on; -1 where it is being drawn."""
    found = re.search(r"(\d+):(\d\d):(\d\d)", row(text, "elapsed"))
    if found is None:
        return -1
    hours, minutes, seconds = map(int, found.groups())
    return hours * 3600 + minutes * 60 + seconds


class TestATerminal:
    def test_has_a_panel_that_is_full_when_all_is_recorded(
        self, archive: Path, server: ScriptedServer, go_on: threading.Event
    ) -> None:
        with on_terminal(archive, server) as terminal:
            held = terminal.wait_for(all_are_held)
            assert row(held, "files") == "0 of 12 recorded"
            assert row(held, "recorded").endswith("░   0 %")
            assert row(held, "outcomes") == "none yet"
            assert "100 %" not in terminal.output
            go_on.set()
            assert terminal.wait() == 0
        text = terminal.screen()
        assert row(text, "files") == "12 of 12 recorded"
        assert row(text, "recorded").endswith("█ 100 %")
        assert row(text, "outcomes") == "stored 12"
        assert text.count("ingester run") == 1
        assert "progress " not in text
        assert HIDDEN_CURSOR not in terminal.output
        assert OTHER_SCREEN not in terminal.output
        assert (archive / "stdout").read_text().startswith("12 files: stored 12\n")

    def test_keeps_the_panel_and_its_cursor_after_ctrl_c(
        self, archive: Path, server: ScriptedServer, go_on: threading.Event
    ) -> None:
        with on_terminal(archive, server, controls=True) as terminal:
            before = elapsed_s(terminal.wait_for(all_are_held))
            terminal.press(b"\x03")
            # Drawn by the loop that takes the signal: two drawings later it has it.
            terminal.wait_for(lambda text: elapsed_s(text) >= before + 2)
            go_on.set()
            assert terminal.wait() == 130
        text = terminal.screen()
        done, pending = re.search(r"stored (\d+)", text), re.search(r"pending (\d+)", text)
        assert done is not None
        assert pending is not None
        assert int(done[1]) + int(pending[1]) == 12
        assert row(text, "files").startswith(f"{done[1]} of 12 recorded")
        assert text.count("stopping on SIGINT: ") == 1
        assert text.index("stopping on SIGINT: ") < text.index("ingester run")
        assert HIDDEN_CURSOR not in terminal.output
        assert terminal.output.endswith("\n")

    @pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_that_wants_no_panel_has_the_line(
        self, env: dict[str, str], archive: Path, server: ScriptedServer
    ) -> None:
        with on_terminal(archive, server, env=env, columns=1000) as terminal:
            assert terminal.wait() == 0
        (line,) = terminal.screen(1000).splitlines()
        assert re.fullmatch(r"progress( [a-z_0-9]+=[a-z_0-9.]+)+", line)
        assert "files=12 met=12 known=12 percent=100" in line

    def test_that_is_very_small_has_the_line(self, archive: Path, server: ScriptedServer) -> None:
        with on_terminal(archive, server, columns=20, lines=3) as terminal:
            assert terminal.wait() == 0
        assert terminal.screen(20).rstrip() == "progress elapsed_s="

    def test_may_be_resized(
        self, archive: Path, server: ScriptedServer, go_on: threading.Event
    ) -> None:
        with on_terminal(archive, server) as terminal:
            for columns, lines in ((50, 20), (10, 2), (1, 1), (200, 60)):
                terminal.wait_for(lambda text: "in flight" in text)
                written = len(terminal.output)
                terminal.resize(columns, lines)
                terminal.wait_for(lambda _: len(terminal.output) > written + 50)  # noqa: B023
            go_on.set()
            assert terminal.wait() == 0
        assert row(terminal.screen(), "files") != ""
        assert "12 of 12 recorded" in terminal.screen()

    def test_may_hang_up_and_the_run_goes_on(
        self, archive: Path, server: ScriptedServer, go_on: threading.Event
    ) -> None:
        with on_terminal(archive, server) as terminal:
            terminal.wait_for(lambda text: "in flight" in text)
            terminal.hang_up()
            time.sleep(0.2)  # some drawings into nothing
            go_on.set()
            assert terminal.wait() == 0
        assert (archive / "stdout").read_text().startswith("12 files: stored 12\n")

    def test_whose_end_stops_the_run_says_so_by_the_exit_code(
        self, archive: Path, server: ScriptedServer, go_on: threading.Event
    ) -> None:
        """The kernel sends SIGHUP, and nothing can be written any more, nor need it."""
        with on_terminal(archive, server, controls=True, stdout_too=True) as terminal:
            terminal.wait_for(lambda text: "in flight" in text)
            terminal.hang_up()
            time.sleep(0.2)  # some drawings into nothing
            go_on.set()
            assert terminal.wait() == 128 + signal.SIGHUP
        status = json.loads(run_ingester("status", "--json", cwd=archive).stdout)
        assert status["run"]["exit_code"] == 128 + signal.SIGHUP
        assert status["outcomes"]["stored"]

    def test_may_be_stopped_and_the_run_goes_on(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        server.default = Wait(0.05, StoreAll())
        with on_terminal(archive, server, stopped=True) as terminal:
            server.wait_until(lambda: server.answers == 12)
            assert "ingester run" not in terminal.output
            terminal.press(b"\x11")
            assert terminal.wait() == 0
        assert "12 of 12 recorded" in terminal.screen()


class TestOffATerminal:
    def test_there_are_lines_and_rich_is_not_loaded(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        arguments = ("-m", "ingester", "run", "archive", "--url", server.url)
        with start_python("-X", "importtime", *arguments, cwd=archive) as process:
            said = process.wait().stderr
        names = set(re.findall(r"^import time:.*\| +([\w.]+)$", said, re.MULTILINE))
        assert "ingester.cli.live" in names
        assert not any(name.split(".")[0] == "rich" for name in names)
        lines = [line for line in said.splitlines() if not line.startswith("import time:")]
        assert lines
        assert all(re.fullmatch(r"progress( [a-z_0-9]+=[a-z_0-9.]+)+", line) for line in lines)

    def test_help_loads_no_rich(self, tmp_path: Path) -> None:
        with start_python("-X", "importtime", "-m", "ingester", "run", "--help", cwd=tmp_path) as p:
            assert not re.search(r"\| +rich\b", p.wait().stderr)

    def test_colour_that_is_asked_for_changes_nothing(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        env = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
        completed = run_ingester("run", "archive", "--url", server.url, cwd=archive, env=env)
        assert completed.returncode == 0
        assert "\x1b" not in completed.stderr
        assert completed.stderr.splitlines()[-1].startswith("progress elapsed_s=")

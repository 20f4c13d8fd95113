"""The real command as a subprocess: run to its end, or started and dealt with by signals."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_DROPPED = re.compile(r"(INGESTER_|AWS_|SSL_CERT_|PYTEST_).*|.*_proxy", re.IGNORECASE)
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
runpy.run_module("ingester", run_name="__main__", alter_sys=True)
"""
PROGRESS = "--progress-interval-s=0.02"
"""For `wait_for_turns`."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that has ended."""

    returncode: int  # negative: the signal that killed it
    stdout: str
    stderr: str
    elapsed_s: float
    peak_rss_mib: float


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without options, credentials and proxies; `ingester` can be imported.

    The child gets the package that this process would import, wherever its directory is.
    """
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.fullmatch(name)}
    kept["AWS_EC2_METADATA_DISABLED"] = "true"
    kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    spec = importlib.util.find_spec("ingester")
    if spec is not None:
        for location in spec.submodule_search_locations or ():
            kept["PYTHONPATH"] = str(Path(location).resolve().parent)
    return kept | dict(extra or {})


class Process:
    """A Python process in a session of its own; leaving the `with` block kills it.

    Args:
        arguments: after the interpreter.
        env: on top of the clean environment.
        cwd: where it runs.
        ignored_signals: what it inherits as ignored, as under nohup.
    """

    def __init__(
        self,
        arguments: tuple[str | os.PathLike[str], ...],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        ignored_signals: tuple[signal.Signals, ...] = (),
    ) -> None:
        self._completed: Completed | None = None
        self._peak_kib = 0
        self._lock = threading.RLock()
        # Files, not pipes: nobody has to read them for the child to go on.
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child has ended
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._began = time.monotonic()
        with _inherited_signals(ignored_signals):
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                env=clean_environment(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=self._stdout,
                stderr=self._stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Says whether it has not ended yet."""
        return not self._reap()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended, and waits until it was delivered.

        Two of a kind would become one while the first waits for a process that has no processor.
        A thread of a server may call it, too.
        """
        with self._lock:  # until it is reaped its pid is its own
            if self.running:
                os.kill(self.pid, number)
        while self.running and _is_pending(self.pid, number):
            time.sleep(0.001)

    def kill(self) -> None:
        """Sends SIGKILL, unless it has ended."""
        self.signal(signal.SIGKILL)

    def stdout_so_far(self) -> str:
        """What it has written to stdout up to now."""
        return self._completed.stdout if self._completed else _read(self._stdout.fileno())

    def stderr_so_far(self) -> str:
        """What it has written to stderr up to now."""
        return self._completed.stderr if self._completed else _read(self._stderr.fileno())

    def wait(self, timeout: float = 60) -> Completed:
        """Waits for its end.

        Raises:
            TimeoutError: with the end of its stderr; it is still running then.
        """
        deadline = time.monotonic() + timeout
        while not self._reap():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s:\n{self.stderr_so_far()[-4000:]}")
            time.sleep(0.005)
        if self._completed is None:
            raise AssertionError("reaped without a result")
        return self._completed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def _reap(self) -> bool:
        """Collects it if it has ended, with its peak of memory.

        The kernel starts ru_maxrss of a child at the size of whoever started it, here the test
        process. VmHWM begins at exec, but is gone with the process: so it is sampled.
        """
        with self._lock:
            if self._completed is not None:
                return True
            self._peak_kib = max(self._peak_kib, _high_water_kib(self.pid))
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            unit = 1024 if sys.platform == "darwin" else 1
            self._popen.returncode = os.waitstatus_to_exitcode(status)
            self._completed = Completed(
                self._popen.returncode,
                _read(self._stdout.fileno()),
                _read(self._stderr.fileno()),
                time.monotonic() - self._began,
                (self._peak_kib or usage.ru_maxrss // unit) / 1024,
            )
            self._stdout.close()
            self._stderr.close()
            return True


def start_python(
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    ignored_signals: tuple[signal.Signals, ...] = (),
) -> Process:
    """Starts this interpreter with arguments."""
    return Process(arguments, env=env, cwd=cwd, ignored_signals=ignored_signals)


def start_ingester(
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    ignored_signals: tuple[signal.Signals, ...] = (),
    max_file_bytes: int | None = None,
) -> Process:
    """Starts `python -m ingester` with arguments.

    With `max_file_bytes` no file that it writes may be larger (RLIMIT_FSIZE): a full disk for it.
    """
    how = ("-m", "ingester") if max_file_bytes is None else ("-c", _LIMITED, str(max_file_bytes))
    return Process((*how, *arguments), env=env, cwd=cwd, ignored_signals=ignored_signals)


def run_ingester(
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    cwd: str | os.PathLike[str] | None = None,
) -> Completed:
    """Runs `python -m ingester` to its end.

    Raises:
        TimeoutError: it took longer; it has been killed.
    """
    with start_ingester(*arguments, env=env, cwd=cwd) as process:
        return process.wait(timeout)


def wait_for_turns(process: Process, timeout: float = 60) -> None:
    """Waits until the loop of a command has gone round, so that it has seen every signal so far.

    It tells by its progress lines, which the loop writes: give it a short `PROGRESS` interval. The
    first line may be of a turn that began before, the second of the one that takes the signal up.

    Raises:
        TimeoutError: it writes none.
    """
    deadline = time.monotonic() + timeout
    before = process.stderr_so_far().count("\n")
    while process.running and process.stderr_so_far().count("\n") < before + 3:
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout} s:\n{process.stderr_so_far()[-4000:]}")
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process, of whomever, has not ended; one that nobody has reaped has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def _inherited_signals(ignored: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Has a child start with the default action of the ending signals, but for those to ignore.

    A test run in the background of a shell inherits SIGINT as ignored, and would pass it on.
    """
    if threading.current_thread() is not threading.main_thread():
        if ignored:
            raise RuntimeError("signals can be set by the main thread only")
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    try:
        for number, handler in before.items():
            if number in ignored:
                signal.signal(number, signal.SIG_IGN)
            elif handler is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _high_water_kib(pid: int) -> int:
    """Reads VmHWM; 0 where there is none."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _status_of(pid), re.MULTILINE)
    return int(found[1]) if found else 0


def _is_pending(pid: int, number: signal.Signals) -> bool:
    """Says whether a signal was sent and not delivered yet."""
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)", _status_of(pid), re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def _status_of(pid: int) -> str:
    """What Linux says of a process; nothing where there is no /proc or no longer such a process."""
    try:
        return Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _read(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")

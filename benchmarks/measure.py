"""One measured run: a sink, a client in a fresh process, and what both say afterwards.

Takes: a command and the corpus it is to send.
Gives: a `Run` with what the kernel counted for the client and what sink and client claim.
Ends: when the client does, or when its time is up (it is killed, and the run has a problem).

A run counts only when it has no `problems`: a client that is fast because it skips files, or that
claims what the sink never saw, must not appear in a table.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.corpora import Corpus

ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SINK_STOP_TIMEOUT_S: Final = 20.0
_WARM_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Run:
    """What one run cost and what came of it."""

    exit_code: int = -1
    wall_s: float = 0.0  # from fork to exit: the interpreter's start is in it
    cpu_s: float = 0.0  # user and system, of the process and the children it waited for
    peak_rss_mib: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)  # the client's own words
    sink: dict[str, Any] = field(default_factory=dict)  # the sink's totals
    problems: list[str] = field(default_factory=list)


def environment() -> dict[str, str]:
    """The environment of a measured process: without settings that would change the subject."""
    return {name: value for name, value in os.environ.items() if not name.startswith("INGESTER_")}


def warm(corpus: Corpus, files: str) -> None:
    """Reads every file once, so that runs compare the client and not the disk."""
    buffer = bytearray(_WARM_BYTES)
    for index in range(corpus.files):
        with open(os.path.join(files, corpus.path(index)), "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


class Sink:
    """A running sink; `totals` is filled when it has stopped."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.url = url
        self.totals: dict[str, Any] = {}
        self._process = process

    def stop(self) -> None:
        """Asks for the totals; a sink that does not answer is killed.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        self._process.terminate()
        try:
            last, _ = self._process.communicate(timeout=_SINK_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        self.totals = json.loads(last) if last else {}


@contextlib.contextmanager
def running_sink(arguments: Sequence[str] = ()) -> Iterator[Sink]:
    """Runs a sink in another process for the time of the block.

    Raises:
        RuntimeError: the sink did not start.
    """
    command = [sys.executable, "-m", "benchmarks.sink", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    ready = process.stdout.readline()
    if not ready:
        process.communicate()
        raise RuntimeError("the sink did not start")
    sink = Sink(process, json.loads(ready)["url"])
    try:
        yield sink
    finally:
        sink.stop()


def run_client(command: Sequence[str], directory: str, timeout_s: float) -> Run:
    """Runs `command` to its end and measures it; its stdout is taken as one JSON summary.

    The peak of resident memory is the kernel's, which counts from the fork: it is never below
    this process's own, so this process stays small.
    """
    run = Run()
    out_name, err_name = (os.path.join(directory, name) for name in ("stdout", "stderr"))
    with open(out_name, "wb") as out, open(err_name, "wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        timer = threading.Timer(timeout_s, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        run.wall_s = time.perf_counter() - started
    run.exit_code = process.returncode = os.waitstatus_to_exitcode(status)
    run.cpu_s = usage.ru_utime + usage.ru_stime
    run.peak_rss_mib = usage.ru_maxrss / 1024  # Linux counts in KiB
    if run.exit_code:
        late = run.wall_s >= timeout_s
        run.problems.append(f"exit code {run.exit_code}" + (", out of time" if late else ""))
        with open(err_name, encoding="utf-8", errors="replace") as err_text:
            sys.stderr.write("".join(err_text.readlines()[-20:]))
    with open(out_name, "rb") as summary:
        try:
            value = json.loads(summary.read())
        except ValueError:
            value = None
    if isinstance(value, dict):
        run.summary = value
    else:
        run.problems.append("no JSON summary on stdout")
    return run


def check(run: Run, corpus: Corpus) -> None:
    """Adds to the run's problems whatever client, sink and corpus do not agree about."""
    outcomes = run.summary.get("outcomes")
    expected: list[tuple[str, object, object]] = [
        ("files the client met", run.summary.get("files"), corpus.files),
        (
            "outcomes of the client",
            {name: n for name, n in outcomes.items() if n} if isinstance(outcomes, dict) else None,
            {"stored": corpus.files},
        ),
        ("instances the sink knows", run.sink.get("distinct_instances"), corpus.files),
    ]
    if not run.summary.get("retries"):
        expected.append(("instances the sink was sent", run.sink.get("instances"), corpus.files))
    run.problems += [
        f"{what}: {seen}, not {wanted}" for what, seen, wanted in expected if seen != wanted
    ]


def check_digests(run: Run, corpus: Corpus, files: str, digests_file: str) -> None:
    """Compares what arrived, byte for byte by SHA-256, with what is on the disk."""
    with open(digests_file, encoding="ascii") as text:
        arrived = json.load(text)
    wrong = 0
    for index in range(corpus.files):
        with open(os.path.join(files, corpus.path(index)), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        wrong += arrived.get(corpus.sop_instance_uid(index)) != digest
    if wrong:
        run.problems.append(f"instances that did not arrive byte for byte: {wrong}")

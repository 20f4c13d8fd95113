"""One measured run: a client in a fresh process, and what it and the sink say afterwards.

Takes: a `Job`, the command of a subject and what it must have done at its end.
Gives: a `Run` with what the kernel counted for the client and what sink and client claim.
Ends: when the client does, or when its time is up (it is killed, and the run has a problem).

A run counts only when it has no `problems`: a client that is fast because it skips files, or that
claims what the sink never saw, must not appear in a table.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from ingester.bench.environment import environment
from ingester.bench.processes import Children, send

_WARM_BYTES: Final = 1024 * 1024


def _json_object(stdout: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(stdout)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A client's command, and what must have come of it."""

    command: Sequence[str]
    files: int  # that rates count; so many must have gone over the wire, unless it retried
    distinct: int  # different ones among them
    content_bytes: int  # of the files
    claims: Mapping[str, object]  # what the summary must say
    sent: int | None = None  # those of another number than `files` that must have gone
    environment: Mapping[str, str] = field(default_factory=environment)
    summary: Callable[[bytes], dict[str, Any] | None] = _json_object  # from stdout
    problems: Callable[[], list[str]] = list  # of what only the subject knows, at the end


@dataclass(slots=True)
class Run:
    """What one run cost and what came of it."""

    exit_code: int = -1
    asked_to_end: bool = False  # its time was over, and it ended of that
    wall_s: float = 0.0  # from fork to exit: the interpreter's start is in it
    cpu_s: float = 0.0  # user and system, of the process and the children it waited for
    peak_rss_mib: float = 0.0
    files: int = 0  # as the job has them
    content_bytes: int = 0
    summary: dict[str, Any] = field(default_factory=dict)  # the client's own words
    sink: dict[str, Any] = field(default_factory=dict)  # the sink's totals
    problems: list[str] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)  # the last lines of the client's stderr


def warm(paths: Iterable[str]) -> None:
    """Reads every file once, so that runs compare the client and not the disk."""
    buffer = bytearray(_WARM_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def run_client(
    job: Job,
    directory: str,
    timeout_s: float,
    *,
    children: Children | None = None,
    ask_after_s: float | None = None,
) -> Run:
    """Runs the job's command to its end and measures it.

    The peak of resident memory is the kernel's, which counts from the fork: it is never below
    this process's own, so this process stays small.

    Args:
        job: what to run.
        directory: for its output.
        timeout_s: when it is killed, which is a problem.
        children: who passes signals on to it.
        ask_after_s: when it is asked to end, by SIGTERM; None: never.

    Raises:
        StoppedError: a signal came before it was started.
    """
    run = Run(files=job.files, content_bytes=job.content_bytes)
    out_name, err_name = (os.path.join(directory, name) for name in ("stdout", "stderr"))
    with open(out_name, "wb") as out, open(err_name, "wb") as err:
        started = time.perf_counter()
        with (children or Children()).running(job.command, job.environment, out, err) as process:
            with ExitStack() as timers:
                for after_s, number in ((ask_after_s, signal.SIGTERM), (timeout_s, signal.SIGKILL)):
                    if after_s is not None:
                        timer = threading.Timer(after_s, send, (process.pid, number))
                        timer.start()
                        timers.callback(timer.cancel)
                _, status, usage = os.wait4(process.pid, 0)
            run.wall_s = time.perf_counter() - started
            run.exit_code = process.returncode = os.waitstatus_to_exitcode(status)
    run.cpu_s = usage.ru_utime + usage.ru_stime
    run.peak_rss_mib = usage.ru_maxrss / 1024  # Linux counts in KiB
    with open(err_name, encoding="utf-8", errors="replace") as err_text:
        run.last_words = err_text.readlines()[-20:]
    run.asked_to_end = (
        ask_after_s is not None
        and run.wall_s >= ask_after_s
        and run.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM)  # or before it could handle it
    )
    if run.exit_code:
        late = run.wall_s >= timeout_s
        run.problems.append(f"exit code {run.exit_code}" + (", out of time" if late else ""))
    with open(out_name, "rb") as stdout:
        summary = job.summary(stdout.read())
    if summary is None:
        run.problems.append("no summary on stdout")
    else:
        run.summary = summary
    return run


def check(run: Run, job: Job) -> None:
    """Adds to the run's problems whatever client, sink and job do not agree about."""
    expected: list[tuple[str, object, object]] = [
        (f"{name} of the client", _claim(run.summary.get(name)), wanted)
        for name, wanted in job.claims.items()
    ]
    expected.append(("instances the sink knows", run.sink.get("distinct_instances"), job.distinct))
    if not run.summary.get("retries"):
        sent = job.files if job.sent is None else job.sent
        expected.append(("instances the sink was sent", run.sink.get("instances"), sent))
        expected.append(("requests the sink refused", run.sink.get("refused"), 0))
    run.problems += [
        f"{what}: {seen}, not {wanted}" for what, seen, wanted in expected if seen != wanted
    ]
    run.problems += job.problems()


def _claim(value: object) -> object:
    """A claim without what it says did not happen."""
    return {name: n for name, n in value.items() if n} if isinstance(value, dict) else value

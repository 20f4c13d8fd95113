"""One measured run: a client in a fresh process, and what it and the sink say afterwards.

Takes: a `Job`, the command of a subject and what it must have done at its end.
Gives: a `Run` with what the kernel counted for the client and what sink and client claim.
Ends: when the client does, or when its time is up (it is killed, and the run has a problem).

A run counts only when it has no `problems`: a client that is fast because it skips files, or that
claims what the sink never saw, must not appear in a table.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.corpora import Corpus
from benchmarks.environment import ROOT, environment

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
    files: int  # instances that must have gone over the wire, unless the client retried
    distinct: int  # different ones among them
    content_bytes: int  # of the files
    claims: Mapping[str, object]  # what the summary must say
    environment: Mapping[str, str] = field(default_factory=dict)  # beside the usual one
    summary: Callable[[bytes], dict[str, Any] | None] = _json_object  # from stdout
    problems: Callable[[], list[str]] = list  # of what only the subject knows, at the end


@dataclass(slots=True)
class Run:
    """What one run cost and what came of it."""

    exit_code: int = -1
    wall_s: float = 0.0  # from fork to exit: the interpreter's start is in it
    cpu_s: float = 0.0  # user and system, of the process and the children it waited for
    peak_rss_mib: float = 0.0
    files: int = 0  # as the job has them
    content_bytes: int = 0
    summary: dict[str, Any] = field(default_factory=dict)  # the client's own words
    sink: dict[str, Any] = field(default_factory=dict)  # the sink's totals
    problems: list[str] = field(default_factory=list)


def warm(paths: Iterable[str]) -> None:
    """Reads every file once, so that runs compare the client and not the disk."""
    buffer = bytearray(_WARM_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def run_client(job: Job, directory: str, timeout_s: float) -> Run:
    """Runs the job's command to its end and measures it.

    The peak of resident memory is the kernel's, which counts from the fork: it is never below
    this process's own, so this process stays small.
    """
    run = Run(files=job.files, content_bytes=job.content_bytes)
    out_name, err_name = (os.path.join(directory, name) for name in ("stdout", "stderr"))
    variables = {**environment(), **job.environment}
    with open(out_name, "wb") as out, open(err_name, "wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            job.command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err
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
        expected.append(("instances the sink was sent", run.sink.get("instances"), job.files))
        expected.append(("requests the sink refused", run.sink.get("refused"), 0))
    run.problems += [
        f"{what}: {seen}, not {wanted}" for what, seen, wanted in expected if seen != wanted
    ]
    run.problems += job.problems()


def _claim(value: object) -> object:
    """A claim without what it says did not happen."""
    return {name: n for name, n in value.items() if n} if isinstance(value, dict) else value


def check_digests(run: Run, corpus: Corpus, files: str, digests_file: str) -> None:
    """Compares what arrived, byte for byte by SHA-256, with what is on the disk."""
    with open(digests_file, encoding="ascii") as text:
        arrived = json.load(text)
    wrong = 0
    for index, path in enumerate(corpus.paths(files)):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        wrong += arrived.get(corpus.sop_instance_uid(index)) != digest
    if wrong:
        run.problems.append(f"instances that did not arrive byte for byte: {wrong}")

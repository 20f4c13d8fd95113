"""A sink in a process of its own, for the time of a block.

Takes: `SinkOptions`.
Gives: where it listens, and its totals once it has stopped.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.environment import ROOT, environment

_STOP_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How the sink of a run is set up; see `python -m benchmarks.sink --help`."""

    tls: bool = False
    latency_ms: float = 0.0
    max_rps: float | None = None
    bandwidth_mb_s: float | None = None

    def arguments(self) -> list[str]:
        """The options of the command."""
        words = ["--tls"] if self.tls else []
        words += ["--latency-ms", str(self.latency_ms)]
        if self.max_rps is not None:
            words += ["--max-rps", str(self.max_rps)]
        if self.bandwidth_mb_s is not None:
            words += ["--bandwidth-mb-s", str(self.bandwidth_mb_s)]
        return words


class Sink:
    """A running sink; `totals` is filled when it has stopped."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, ca: str | None) -> None:
        self.url = url
        self.ca = ca  # a file with the authority to trust; None without TLS
        self.totals: dict[str, Any] = {}
        self._process = process

    def stop(self) -> None:
        """Asks for the totals; a sink that does not answer is killed.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        self._process.terminate()
        try:
            last, _ = self._process.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        self.totals = json.loads(last) if last else {}


@contextlib.contextmanager
def running_sink(
    options: SinkOptions | None = None, *, digests_file: str | None = None
) -> Iterator[Sink]:
    """Runs a sink in another process for the time of the block.

    Args:
        options: how it is set up; None: plain and fast.
        digests_file: where it leaves the SHA-256 of every instance; None: it makes none.

    Raises:
        RuntimeError: the sink did not start.
    """
    command = [sys.executable, "-m", "benchmarks.sink", *(options or SinkOptions()).arguments()]
    if digests_file is not None:
        command += ["--verify", digests_file]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    ready = process.stdout.readline()
    if not ready:
        process.communicate()
        raise RuntimeError("the sink did not start")
    words = json.loads(ready)
    sink = Sink(process, words["url"], words["ca"])
    try:
        yield sink
    finally:
        sink.stop()

"""A sink in a process of its own, for the time of a block.

Takes: `SinkOptions`.
Gives: where it listens, and its totals once it has stopped.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ingester.bench.environment import environment
from ingester.bench.processes import PYTHON, same_package

DATASTORE: Final = "0" * 32  # an id that the sink takes: it believes every signature
KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_STOP_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How the sink of a run is set up; see `python -m ingester.bench.sink --help`."""

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


class SinkError(RuntimeError):
    """The sink did not start, or did not end."""


class Sink:
    """A running sink; `totals` is filled when it has stopped."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, ca: str | None) -> None:
        self.pid = process.pid
        self.url = url
        self.ca = ca  # a file with the authority to trust; None without TLS
        self.totals: dict[str, Any] = {}
        self._process = process

    def stop(self) -> None:
        """Asks for the totals; a sink that does not answer is killed.

        Raises:
            SinkError: it did not end in time.
        """
        self._process.terminate()
        try:
            last, _ = self._process.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise SinkError("the sink did not end") from error
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
        SinkError: the sink did not start, or did not end.
    """
    command = [*PYTHON, "ingester.bench.sink", "--end-with-stdin"]
    command += (options or SinkOptions()).arguments()
    if digests_file is not None:
        command += ["--verify", digests_file]
    process = subprocess.Popen(  # noqa: S603 - this program
        command,
        env={**environment(), **same_package()},
        stdin=subprocess.PIPE,  # ends with this process, whatever ends it
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # a terminal's Ctrl-C is not for it
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    ready = process.stdout.readline()
    if not ready:
        process.communicate()
        raise SinkError("the sink did not start")
    words = json.loads(ready)
    sink = Sink(process, words["url"], words["ca"])
    try:
        yield sink
    finally:
        sink.stop()

"""A real haproxy in front of a server: a subprocess that a test gives its faults as rules.

It counts: each POST has a number from 1, so a fault strikes the same requests in every run. It
writes a line when a request is over, and a digest of each body, made by itself. It has one thread:
of lines that two of them write at once it drops one.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_WAIT_S = 60.0
BUFFER_BYTES = 512 * 1024
"""Bodies up to about this size have a digest."""
DIGESTS = (
    "http-request wait-for-body time 60s if METH_POST",
    "http-request set-var(txn.body) req.body,sha2(256),hex if METH_POST",
)
"""Rules: read a body before anything else is done, and note its digest."""

_CONFIGURATION = """
global
    nbthread 1
    log stdout format raw local0
    tune.bufsize {buffer_bytes}
    tune.rcvbuf.client 65536
    hard-stop-after 1s
defaults
    mode http
    log global
    retries 0
    timeout connect 60s
    timeout client 300s
    timeout server {server_timeout}
    timeout tarpit 300s
    log-format "%HM %[var(txn.post)] %ST %ts %[var(txn.body)]"
listen proxy
    bind fd@{listener} {tls}
    stick-table type integer size 1k store gpc0
    http-request track-sc0 int(1)
    http-request sc-inc-gpc0(0) if METH_POST
    http-request set-var(txn.post) sc0_get_gpc0 if METH_POST
    {rules}
    server behind 127.0.0.1:{server_port}
"""


class Passed(NamedTuple):
    """A request that is over, as haproxy tells it."""

    method: str
    post: int | None  # its number, from 1
    status: int  # -1: nothing was answered
    ended: str  # how: haproxy's two letters, `--` is well
    digest: str | None  # SHA-256 of the body, with the rules DIGESTS


def find_haproxy() -> Path | None:
    """Gives the program, or None when it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    return Path(program) if program else None


class Haproxy:
    """Runs from entering to leaving the `with` block, and is killed by its own pid.

    The listening socket is the test's: nobody who connects is turned away while haproxy restarts.

    Args:
        directory: for its configuration and log; made if it is not there.
        server_port: of the server behind it, on loopback.
        rules: lines of its configuration. `var(txn.post)` is the number of a POST.
        certificate: a PEM file with the key in it; then it is spoken to by TLS.
        server_timeout: how long the server may say nothing; then it answers 504.
    """

    def __init__(
        self,
        directory: Path,
        server_port: int,
        rules: Sequence[str] = (),
        *,
        certificate: Path | None = None,
        server_timeout: str = "300s",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._server_port = server_port
        self._rules = tuple(rules)
        self._tls = "" if certificate is None else f"ssl crt {certificate}"
        self._server_timeout = server_timeout
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb_url(self) -> str:
        """Of the Orthanc behind it."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/dicom-web"

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._listener.close()

    def kill(self) -> None:
        """Kills it with SIGKILL: every connection breaks. Who connects then waits in the queue."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stops it where it is, with SIGSTOP: what comes to it stays in its sockets."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def restart(self, rules: Sequence[str] = ()) -> None:
        """Kills it and starts it with other rules; it counts from 1 again."""
        self.kill()
        self._rules = tuple(rules)
        self._start()

    @property
    def passed(self) -> list[Passed]:
        """All requests that are over, also of before a restart."""
        lines = self._log.read_text().splitlines(keepends=True)
        return [_passed(line) for line in lines if line.endswith("\n") and line.count(" ") == 4]

    @property
    def posts(self) -> list[Passed]:
        """Those of them that were to store something."""
        return [each for each in self.passed if each.method == "POST"]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that will be so soon.

        Raises:
            TimeoutError: it is not.
        """
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(self._log.read_text()[-2000:])
            time.sleep(0.005)

    @property
    def _log(self) -> Path:
        return self._directory / "haproxy.log"

    def _start(self) -> None:
        program = find_haproxy()
        if program is None:
            raise RuntimeError("haproxy is not installed")
        configuration = self._directory / "haproxy.cfg"
        configuration.write_text(
            _CONFIGURATION.format(
                buffer_bytes=BUFFER_BYTES,
                listener=self._listener.fileno(),
                tls=self._tls,
                server_timeout=self._server_timeout,
                server_port=self._server_port,
                rules="\n    ".join(self._rules),
            )
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-db", "-f", configuration],
                pass_fds=[self._listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _passed(line: str) -> Passed:
    method, post, status, ended, digest = line.split()
    return Passed(
        method,
        None if post == "-" else int(post),
        int(status),
        ended,
        None if digest == "-" else digest,
    )

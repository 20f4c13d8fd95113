"""The foreign verifier as a process, and a relay that writes down what was sent to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import pytest

from tests.support.process import clean_environment

SCRIPT = Path(__file__).parents[1] / "verifier" / "swift_s3.py"


class Verifier(NamedTuple):
    """Where it listens, and what it wants requests to be signed with."""

    url: str
    access_key: str
    secret_key: str
    region: str

    @property
    def address(self) -> tuple[str, int]:
        """Of its socket."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


@contextmanager
def running_verifier() -> Iterator[Verifier]:
    """Starts it; skips, visibly, where it is not installed (tests/verifier/install.sh)."""
    default = Path(tempfile.gettempdir()) / "ingester-verifier"
    directory = Path(os.environ.get("INGESTER_VERIFIER_DIR") or default)
    if not (directory / "installed").exists():
        reason = "the foreign verifier is not installed: tests/verifier/install.sh"
        if os.environ.get("INGESTER_REQUIRE_VERIFIER") == "1":
            pytest.fail(f"{reason}, but INGESTER_REQUIRE_VERIFIER=1")
        pytest.skip(reason)
    environment = clean_environment()
    environment.pop("PYTHONPATH", None)
    with subprocess.Popen(
        [directory / "bin" / "python", "-W", "ignore", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the verifier did not start"
            yield Verifier(**json.loads(line))
        finally:
            process.kill()


class Verdict(NamedTuple):
    """What it answered."""

    status: int
    text: str
    head: str = ""

    @property
    def code(self) -> str:
        """The Code of an error, as S3 has them."""
        return self.text.partition("<Code>")[2].partition("</Code>")[0]


def replay(verifier: Verifier, wire: bytes) -> Verdict:
    """Sends a whole request as it is."""
    with socket.create_connection(verifier.address, 60) as connection:
        connection.sendall(wire)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return Verdict(int(head.split(b" ")[1]), body.decode(), head.decode("latin-1"))


class Relay:
    """Carries one connection to the verifier and keeps what the client sent."""

    def __init__(self, verifier: Verifier) -> None:
        self.sent = b""
        self._to = verifier.address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._carry)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)
        self._listener.close()

    def _start(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _carry(self) -> None:
        self._listener.settimeout(60)
        with self._listener.accept()[0] as client, socket.create_connection(self._to) as server:
            answers = threading.Thread(target=_pump, args=(server, client), daemon=True)
            answers.start()
            # One that has been refused is read to its end: a reset could overtake the answer.
            with suppress(OSError):
                while piece := client.recv(65536):
                    self.sent += piece
                    with suppress(OSError):
                        server.sendall(piece)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            answers.join(60)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)

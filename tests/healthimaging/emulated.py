"""An emulator in a thread, the real command that loads into it, and what both have afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from ingester.emulator import Credentials, Emulator, PayloadMode
from ingester.emulator.payload import ALL_MODES
from tests.support import command as command_module
from tests.unit.emulator.signing import signed_headers

KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalr-secret-canary-EXAMPLEKEY")
TEMPORARY = Credentials("ASIAIOSFODNN7EXAMPLE", "wJalr-secret-canary-EXAMPLEKEY", "token-canary==")
REGION = "eu-west-2"
QUICK = ("--backoff-base-s=0.01", "--backoff-cap-s=0.05", "--readers=1")


class Running:
    """An emulator that listens."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    @property
    def url(self) -> str:
        """What ``--url`` takes."""
        return self.emulator.base_url

    @property
    def ca(self) -> str:
        """What ``--ca-bundle`` takes."""
        assert self.emulator.ca is not None
        return self.emulator.ca


@dataclass
class ActingClock:
    """A clock for an emulator, which asks it a few times for each request.

    When it is asked for the n-th time it does something, and the emulator stands still meanwhile.
    """

    number: int
    act: Callable[[], None]
    _asked: int = 0

    def __call__(self) -> float:
        """The time."""
        self._asked += 1
        if self._asked == self.number:
            self.act()
        return time.time()


@contextlib.contextmanager
def emulator(
    store: Path,
    *,
    credentials: Credentials | None = KEYS,
    tls: bool = True,
    payload_modes: frozenset[PayloadMode] = ALL_MODES,
    latency_s: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> Iterator[Running]:
    """Runs one in a thread with a loop of its own."""
    if tls:
        pytest.importorskip("cryptography", reason="certificates are made by cryptography")
    made = Emulator(
        store=store,
        credentials=credentials,
        region=REGION,
        tls=tls,
        payload_modes=payload_modes,
        latency_s=latency_s,
        clock=clock,
    )
    ready = threading.Event()
    runner = asyncio.Runner()
    loop = runner.get_loop()
    over = asyncio.Event()
    problems: list[BaseException] = []

    async def serve() -> None:
        async with made:
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            runner.run(serve())
        except BaseException as error:  # noqa: BLE001 - the test must see it
            problems.append(error)
        finally:
            ready.set()
            runner.close()

    thread = threading.Thread(target=run, name="emulator", daemon=True)
    thread.start()
    ready.wait(60)
    try:
        if problems:
            raise problems[0]
        yield Running(made)
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(over.set)
        thread.join(60)
    assert not problems


def environment_of(credentials: Credentials | None) -> dict[str, str]:
    """The variables that AWS's own tools read keys from."""
    if credentials is None:
        return {}
    keys = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
    }
    if credentials.session_token is not None:
        keys["AWS_SESSION_TOKEN"] = credentials.session_token
    return keys


@dataclass(frozen=True, slots=True)
class Command(command_module.Command):
    """`ingester run` into HealthImaging."""

    ALWAYS: ClassVar[tuple[str, ...]] = QUICK

    server: tuple[str, ...] = ("--server=healthimaging", "--auth=sigv4", f"--region={REGION}")

    def outcomes_by_path(self) -> dict[Path, str]:
        """What became of each file, whether it is there now or an earlier run brought it."""
        return {path: row.outcome.value for path, row in self.rows().items()}

    def kept_bytes(self) -> bytes:
        """Everything that a run leaves behind."""
        return b"".join(
            path.read_bytes() for path in sorted(self.directory.rglob("*")) if path.is_file()
        )


def command(
    source: Path, running: Running, directory: Path, *options: str, keys: Credentials | None = KEYS
) -> Command:
    """A command that has what it needs to be let in."""
    tls = {"AWS_CA_BUNDLE": running.ca} if running.url.startswith("https") else {}
    return Command(source, running.url, directory, options, {**environment_of(keys), **tls})


def assert_same_bytes(running: Running, loaded: Command) -> int:
    """The store has exactly what the journal calls stored, byte for byte; returns how many.

    Asked over WADO-RS, signed by botocore itself.
    """
    stored = loaded.stored()
    parts = urlsplit(running.url)
    where = parts.netloc
    with contextlib.ExitStack() as stack:
        connection = (
            http.client.HTTPConnection(where)
            if running.emulator.ca is None
            else http.client.HTTPSConnection(
                where, context=ssl.create_default_context(cafile=running.ca)
            )
        )
        stack.callback(connection.close)
        for row in stored.values():
            path = f"/studies/{row.study_instance_uid}/series/{row.series_instance_uid}"
            path += f"/instances/{row.sop_instance_uid}"
            body = _get(connection, running, path)
            file = Path(row.path.decode())
            assert body == file.read_bytes(), file
            assert row.sha256 in {None, hashlib.sha256(body).digest()}
        there = set()
        for offset in range(0, len(stored) + 1, 1000):
            found = json.loads(_get(connection, running, f"/instances?limit=1000&offset={offset}"))
            there |= {(_uid(item, "0020000D"), _uid(item, "00080018")) for item in found}
        assert there == set(stored)
    return len(stored)


def _uid(item: dict[str, dict[str, list[str]]], tag: str) -> str:
    return item[tag]["Value"][0]


def _get(connection: http.client.HTTPConnection, running: Running, path: str) -> bytes:
    url = running.url + path
    headers = {"Accept": "application/dicom+json" if "?" in path else "application/dicom"}
    keys = running.emulator.credentials
    if keys is not None:
        headers = signed_headers(
            "GET", url, headers, credentials=keys, region=REGION, at=time.time()
        )
    connection.request(
        "GET", urlsplit(url).path + path[len(path.partition("?")[0]) :], headers=headers
    )
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status in {200, 204}, (answer.status, body[:300])
    return body or b"[]"

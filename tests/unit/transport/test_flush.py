"""Waiting for a transport that is lost meanwhile, on both loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

from ingester.transport.flush import wait_until_flushed
from tests.pipeline.certificate import Certificate, make_certificate

ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@pytest.fixture
def breaking(certificate: Certificate) -> Iterator[int]:
    """The port of a server that reads nothing, and soon breaks the connection's TLS."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        accepted, _ = listening.accept()
        secured = certificate.context.wrap_socket(accepted, server_side=True)
        secured.recv(1)
        with socket.socket(fileno=secured.detach()) as raw:
            raw.sendall(ALERT)
            while raw.recv(1 << 20):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.close()
    thread.join(10)


async def _write_on(writer: StreamWriter) -> None:
    while True:  # however much that is on a busy machine
        await writer.write(bytes(1 << 16))
        await wait_until_flushed(writer)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_breaks_meanwhile_is_no_bug(
    new_loop: Any, breaking: int, certificate: Certificate
) -> None:
    reported: list[dict[str, Any]] = []

    async def job() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        context = ssl.create_default_context(cafile=certificate.path)
        transport, protocol = await loop.create_connection(
            lambda: BaseProtocol(loop), "127.0.0.1", breaking, ssl=context
        )
        writer = StreamWriter(protocol, loop)
        with pytest.raises(OSError):  # noqa: PT011 - each loop has its own
            await _write_on(writer)
        transport.abort()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(job())
    assert reported == []

"""An answer that was not read before the connection broke; real sockets."""

from __future__ import annotations

import asyncio
import select
import socket
import struct

import pytest

from ingester.transport.last_words import LastWords, Listener
from tests.support.process import start_python

FLOOD = """
import socket, sys
sent = 0
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1.0) as server:
    try:
        while sent < 1 << 30:
            sent += server.send(b"H" * (1 << 18))
    except TimeoutError:
        pass
    print(sent)
"""
"""Sends up to a GiB, as long as somebody reads."""

REFUSED = b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\nno go"


async def heard(sent: bytes) -> LastWords | None:
    """What is heard of a server that sends this, unread, and resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, writer = await asyncio.open_connection(*listening.getsockname())
        server, _ = listening.accept()
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    listener = Listener(transport)
    server.sendall(sent)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    own = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(own.fileno(), 0)
    assert poll.poll(60_000), "the reset has come"
    transport.abort()
    await asyncio.sleep(0)
    try:
        return listener.last_words()
    finally:
        listener.close()


class TestAnAnswerBeforeAReset:
    async def test_is_read_by_another_descriptor(self) -> None:
        words = await heard(REFUSED)
        assert words is not None
        assert (words.status, words.body) == (413, b"no go")
        assert words.headers["retry-after"] == "7"

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            REFUSED[:-1],
            REFUSED[:30],
            REFUSED[4:],
            REFUSED.replace(b"Content-Length: 5\r\n", b""),
            REFUSED.replace(b"413", b"200"),
            REFUSED.replace(b"413", b"100"),
            b"HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nno go\r\n0\r\n\r\n",
            b"HTTP/1.1 413 No\r\n" + b"A: b\r\n" * 1000 + b"Content-Length: 0\r\n\r\n",
            b"HTTP/1.1 413 No\r\nA: " + b"b" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
            b"SSH-2.0-server\r\n",
        ],
        ids=range(11),
    )
    async def test_is_none_unless_it_is_a_whole_refusal(self, sent: bytes) -> None:
        assert await heard(sent) is None

    async def test_is_none_of_what_does_not_end(self) -> None:
        """It is read at once: who sends as fast as it is read would hold the loop for ever."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            flood = start_python("-c", FLOOD, str(port))
            listening.settimeout(60)
            connection, _ = listening.accept()
        with flood, connection:
            _, writer = await asyncio.open_connection(sock=connection)
            transport = writer.transport
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            listener = Listener(transport)
            assert select.select([connection], [], [], 60)[0], "it has begun"
            assert listener.last_words() is None
            sent_bytes = int(flood.wait().stdout)
            listener.close()
            transport.abort()
        assert sent_bytes < 64 << 20, "more than one MiB and what the kernel holds"

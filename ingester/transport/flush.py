"""When bytes given to a transport are really gone from it.

``drain()`` returns at the low-water mark; the transport may still hold references to what it was
given last. Only what lies before ``flushed_position`` may be overwritten.
"""

from __future__ import annotations

import asyncio

from aiohttp.abc import AbstractStreamWriter


def flushed_position(writer: AbstractStreamWriter) -> int:
    """Bytes of this message that have left the transport, or -1 when it is gone.

    Over TLS the transport counts encrypted bytes that no longer refer to ours, so the position is
    too low at worst.
    """
    transport = writer.transport
    if transport is None or transport.is_closing():
        return -1
    return writer.output_size - transport.get_write_buffer_size()


async def wait_until_flushed(writer: AbstractStreamWriter, leave: int = 0) -> None:
    """Return when the transport holds at most the last ``leave`` bytes given to it.

    Raises what ``drain`` raises, and ConnectionResetError when the connection is gone.
    """
    while True:
        transport = writer.transport
        if transport is None or transport.is_closing():
            await writer.drain()  # raises the connection's own error where there is one
            raise ConnectionResetError("the connection was closed while the body went out")
        if transport.get_write_buffer_size() <= leave:
            return
        transport.set_write_buffer_limits(high=leave, low=leave)  # so far a drain now waits
        try:
            await writer.drain()
        finally:
            if not transport.is_closing():  # else it would resume a protocol that it has let go of
                transport.set_write_buffer_limits()
        if transport.get_write_buffer_size() > leave:
            await asyncio.sleep(0)  # a TLS transport may end the pause with a record to go

"""A STOW-RS server that costs far less than the client it is there to measure.

Takes: Store Instances requests (PS3.18 10.5) with a Content-Length at `/studies` and
`/studies/{study}`, also below `/datastore/{id}`; multipart/related or a single application/dicom.
Gives: a real Store Instances Response (Annex I) naming every instance received.
Bounds: one buffer of `BUFFER_BYTES` a connection; of a body only its UIDs are kept.
Ends: on SIGTERM or SIGINT, or with `--end-with-stdin` when nobody holds the other end any more,
with one JSON line of totals on stdout and status 0.

It stores nothing, and believes the client about the study in the path and about its signature. The
first line on stdout says where it listens: `{"url": ..., "pid": ..., "ca": ...}`, where `ca` is a
file with the authority to trust, or null without `--tls`.
"""

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress

from ingester.bench.answers import Totals
from ingester.bench.connection import SinkProtocol
from ingester.bench.knobs import Knobs, limit_of, line_of


def _say(**values: str | float | None) -> None:
    sys.stdout.write(f"{json.dumps(values)}\n")
    sys.stdout.flush()


def _tls(directory: str) -> tuple[ssl.SSLContext, str]:
    from ingester.emulator.certificates import (  # noqa: PLC0415 - slow to import, and only for TLS
        make_server_context,
    )

    return make_server_context(directory, "127.0.0.1")


async def serve(
    knobs: Knobs,
    *,
    port: int,
    tls: tuple[ssl.SSLContext, str] | None,
    verify: str | None,
    end_with_stdin: bool,
) -> None:
    """Serves on loopback until a signal, then prints the totals and writes the digests."""
    totals = Totals()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if end_with_stdin:
        loop.add_reader(0, _read_past, stopped)
    context, ca = tls or (None, None)
    server = await loop.create_server(
        lambda: SinkProtocol(totals, knobs, digests=verify is not None),
        "127.0.0.1",
        port,
        backlog=1024,
        ssl=context,
    )
    port = server.sockets[0].getsockname()[1]
    cpu_at_start = time.process_time()
    _say(url=f"{'https' if tls else 'http'}://127.0.0.1:{port}", pid=os.getpid(), ca=ca)
    await stopped.wait()
    cpu_s = time.process_time() - cpu_at_start
    server.close()
    if verify is not None:
        with open(verify, "w", encoding="ascii") as out:  # noqa: ASYNC230 - nothing is served now
            json.dump(totals.digests, out)
    with suppress(BrokenPipeError):  # whoever started it has gone
        _say(**totals.summary(), cpu_s=round(cpu_s, 3))


def _read_past(stopped: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stopped.set()


def _run(main: Coroutine[None, None, None]) -> None:
    """On uvloop, or on asyncio where that is not."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def main() -> int:
    """Reads the options and serves; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ingester.bench.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--tls", action="store_true", help="with a certificate made for this run")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument(
        "--max-rps", type=float, help="503 and Retry-After beyond; a second's worth at once"
    )
    parser.add_argument("--bandwidth-mb-s", type=float, help="of all connections together")
    parser.add_argument(
        "--verify", metavar="FILE", help="hash every instance; {sop: sha256} goes to FILE on exit"
    )
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when stdin is closed, as on a signal"
    )
    options = parser.parse_args()
    try:
        knobs = Knobs(
            latency_s=options.latency_ms / 1000,
            retry_after_s=None if options.max_rps is None else limit_of(options.max_rps),
            line=None if options.bandwidth_mb_s is None else line_of(options.bandwidth_mb_s),
        )
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="ingester-sink-") as directory:
        tls = _tls(directory) if options.tls else None
        _run(
            serve(
                knobs,
                port=options.port,
                tls=tls,
                verify=options.verify,
                end_with_stdin=options.end_with_stdin,
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``ingester emulate``: the emulator by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ingester.errors import FatalError, UsageError

if TYPE_CHECKING:
    from ingester.emulator import Credentials, Emulator

_MODES = "literal,sha256,unsigned,aws-chunked"


@click.command(name="emulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option("--store", required=True, metavar="DIR", help="Directory the instances are kept in.")
@click.option("--datastore", default=None, metavar="ID", help="Data store id, 32 of [0-9a-z].")
@click.option("--region", default="us-east-1", show_default=True, help="Region of signatures.")
@click.option("--access-key", default=None, metavar="KEY", help="Made if none is given.")
@click.option("--secret-key", default=None, metavar="KEY", help="Goes with --access-key.")
@click.option("--session-token", default=None, metavar="TOKEN", help="Must be sent if it is given.")
@click.option("--no-auth", is_flag=True, help="Ask nobody for a signature.")
@click.option(
    "--payload-modes", default=_MODES, show_default=True, metavar="LIST", help="Refuse the others."
)
@click.option("--tls", is_flag=True, help="HTTPS, with a certificate and a CA made for this run.")
@click.option("--latency-ms", default=0.0, show_default=True, help="Hold every answer back.")
@click.option("--max-rps", default=None, type=float, help="More get 429 or 503 and Retry-After.")
def command(
    host: str,
    port: int,
    store: str,
    datastore: str | None,
    region: str,
    access_key: str | None,
    secret_key: str | None,
    session_token: str | None,
    no_auth: bool,
    payload_modes: str,
    tls: bool,
    latency_ms: float,
    max_rps: float | None,
) -> None:
    """Run a DICOMweb store on loopback, shaped like AWS HealthImaging.

    Prints one JSON line when it is ready, with the address, the keys to sign with and the CA.
    STOW-RS is at {url}/datastore/{datastore}/studies, QIDO-RS and WADO-RS beside it, and
    SearchImageSets at {url}/datastore/{datastore}/searchImageSets. Signatures (SigV4, service
    medical-imaging) are verified. Instances are kept byte for byte. Ends on SIGINT or SIGTERM.
    """
    if not store:  # it would be the current directory
        raise UsageError(
            "the store is empty", "is a variable not set? Name a directory with --store"
        )

    from ingester.emulator import Emulator  # noqa: PLC0415 - heavy, and not for --help
    from ingester.emulator.payload import parse_modes  # noqa: PLC0415 - the same

    try:
        emulator = Emulator(
            store=store,
            host=host,
            port=port,
            datastore=datastore,
            region=region,
            credentials=_credentials(access_key, secret_key, session_token, no_auth=no_auth),
            payload_modes=parse_modes(payload_modes),
            tls=tls,
            latency_s=latency_ms / 1000,
            max_rps=max_rps,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    _serve(emulator, f"{host}:{port}")


def _credentials(
    access_key: str | None, secret_key: str | None, session_token: str | None, *, no_auth: bool
) -> Credentials | None:
    from ingester.emulator import Credentials  # noqa: PLC0415 - heavy, and not for --help

    if no_auth:
        if access_key or secret_key or session_token:
            raise UsageError("--no-auth and keys exclude each other")
        return None
    if access_key is None and secret_key is None:
        return Credentials.made(session_token)
    if access_key is None or secret_key is None:
        raise UsageError("--access-key and --secret-key go together")
    return Credentials(access_key, secret_key, session_token)


def _serve(emulator: Emulator, address: str) -> None:
    import json  # noqa: PLC0415 - not for --help
    import os  # noqa: PLC0415 - the same
    import socket  # noqa: PLC0415 - the same
    import sqlite3  # noqa: PLC0415 - the same

    from ingester.cli.loops import run_loop  # noqa: PLC0415 - the same
    from ingester.cli.signals import handle_signals, ignored_signals  # noqa: PLC0415 - the same
    from ingester.control import StopControl  # noqa: PLC0415 - the same

    ignored = ignored_signals()

    async def serve() -> None:
        stop = StopControl()
        handle_signals(stop, ignored)
        async with emulator:
            click.echo(json.dumps(emulator.ready_line()))
            await stop.wait_requested()

    try:
        run_loop(serve(), "auto")
    except ModuleNotFoundError as error:
        raise FatalError(f"missing package: {error.name}", "pip install cryptography") from error
    except OSError as error:
        unknown_host = isinstance(error, socket.gaierror)  # its numbers are of a kind of their own
        reason = error.strerror if unknown_host else os.strerror(error.errno or 0)
        raise FatalError(f"the emulator cannot start ({reason}) at {address}") from error
    except sqlite3.OperationalError as error:
        raise FatalError("another emulator has this store open") from error

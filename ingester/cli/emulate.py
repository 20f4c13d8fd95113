"""``ingester emulate``: the emulator by itself."""

from __future__ import annotations

import click


@click.command(name="emulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port; 0 takes a free one.")
@click.option("--store", required=True, metavar="DIR", help="Directory the instances are kept in.")
@click.option("--datastore", default=None, metavar="ID", help="Data store id, 32 of [0-9a-z].")
def command(host: str, port: int, store: str, datastore: str | None) -> None:
    """Run a DICOMweb store on loopback, shaped like AWS HealthImaging.

    Prints one JSON line when it is ready. STOW-RS is at {url}/datastore/{datastore}/studies,
    QIDO-RS and WADO-RS beside it. Instances are kept byte for byte. Ends on SIGINT or SIGTERM.
    """
    import json  # noqa: PLC0415 - heavy, and not for --help
    import os  # noqa: PLC0415 - the same
    import sqlite3  # noqa: PLC0415 - the same

    from ingester.cli.loops import run_loop  # noqa: PLC0415 - the same
    from ingester.cli.signals import handle_signals, ignored_signals  # noqa: PLC0415 - the same
    from ingester.control import StopControl  # noqa: PLC0415 - the same
    from ingester.emulator import Emulator  # noqa: PLC0415 - the same
    from ingester.errors import FatalError, UsageError  # noqa: PLC0415 - the same

    ignored = ignored_signals()

    async def serve() -> None:
        stop = StopControl()
        handle_signals(stop, ignored)
        async with Emulator(store=store, host=host, port=port, datastore=datastore) as emulator:
            click.echo(json.dumps(emulator.ready_line()))
            await stop.wait_requested()

    try:
        run_loop(serve(), "auto")
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise FatalError(f"the emulator cannot start ({reason}) at {host}:{port}") from error
    except sqlite3.OperationalError as error:
        raise FatalError("another emulator has this store open") from error

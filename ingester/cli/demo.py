"""``ingester demo``: the whole job with nothing set up."""

from __future__ import annotations

import click

from ingester.cli import printable, say, tell


@click.command(name="demo")
@click.option(
    "--directory", default=None, metavar="DIR", help="Where; must be empty. [default: a new one]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def command(directory: str | None, as_json: bool) -> None:
    """Show the whole job on a small made archive, with nothing set up.

    Writes seven studies (34 MB) to a temporary directory, runs the emulator on loopback, loads
    the archive as run does, and looks every instance up again. Takes neither options nor
    credentials from the environment. Exit codes: 0 everything ended as planned, 1 not.
    """
    import json  # noqa: PLC0415 - heavy, and not for --help

    from ingester.cli.loops import run_loop  # noqa: PLC0415 - the same
    from ingester.cli.signals import handle_signals, ignored_signals  # noqa: PLC0415 - the same
    from ingester.control import Cause, StopControl  # noqa: PLC0415 - the same
    from ingester.demo.job import Demo, make_directory, run_demo  # noqa: PLC0415 - the same
    from ingester.demo.report import to_data, to_lines  # noqa: PLC0415 - the same

    ignored = ignored_signals()
    places = make_directory(directory)
    tell(printable(f"everything goes to {places.directory}"))

    async def job() -> tuple[Demo | None, Cause | None]:
        stop = StopControl()
        handle_signals(stop, ignored)
        return await run_demo(places, stop, tell), stop.cause

    demo, cause = run_loop(job(), "auto")
    if demo is None:
        raise click.exceptions.Exit(128 + cause if isinstance(cause, int) else 1)
    if as_json:
        say(json.dumps(to_data(demo), indent=2))
    else:
        for line in to_lines(demo):
            say(printable(line))
    if demo.exit_code:
        raise click.exceptions.Exit(demo.exit_code)

"""``ingester run``: the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ingester.cli import complain, printable, say
from ingester.cli.options import load, run_options, sources_of


@click.command(name="run", context_settings={"max_content_width": 100})
@click.argument("sources", nargs=-1, metavar="SOURCE…")
@click.option("--root", "roots", multiple=True, metavar="NAME=DIR", help="A source with a name.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@run_options
def command(
    sources: Sequence[str],
    roots: Sequence[str],
    as_json: bool,
    toml_path: str | None,
    **given: object,
) -> None:
    """Load every DICOM instance under SOURCE… into a DICOMweb store.

    With the same journal the same command resumes after an interruption, and later loads what is
    new or has changed.
    """
    config = load(toml_path, given)
    named = sources_of(sources, roots)

    from ingester.cli.live import Live  # noqa: PLC0415 - heavy, and not for --help
    from ingester.cli.loops import run_loop  # noqa: PLC0415 - the same
    from ingester.cli.signals import handle_signals, ignored_signals  # noqa: PLC0415 - the same
    from ingester.control import StopControl  # noqa: PLC0415 - the same
    from ingester.errors import FatalError  # noqa: PLC0415 - the same
    from ingester.pipeline import ingest  # noqa: PLC0415 - the same
    from ingester.report.summary import RunSummary, to_json, to_lines  # noqa: PLC0415 - the same

    ignored = ignored_signals()
    live = Live(sys.stderr)

    async def job() -> tuple[RunSummary, StopControl]:
        stop = StopControl()
        handle_signals(stop, ignored)
        every_s = live.interval_s(config.progress_interval_s)
        summary = await ingest(
            config, named, stop=stop, watch=live.show, watch_every_s=every_s, warn=live.warn
        )
        return summary, stop

    summary, stop = run_loop(job(), config.event_loop)
    live.end()
    if isinstance(stop.cause, FatalError):
        complain(stop.cause)
    if as_json:
        say(to_json(summary))
    else:
        for line in to_lines(summary):
            say(printable(line))
    if summary.exit_code:
        raise click.exceptions.Exit(summary.exit_code)

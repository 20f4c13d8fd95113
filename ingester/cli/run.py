"""``ingester run``: the main job."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ingester.cli import complain, printable, say, tell
from ingester.cli.options import load, run_options, sources_of
from ingester.config import Config
from ingester.sources import Source

if TYPE_CHECKING:
    from ingester.control import Cause  # asyncio, and not for --help
    from ingester.report.summary import RunSummary  # the same


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

    import logging  # noqa: PLC0415 - not for --help

    from ingester import logs  # noqa: PLC0415 - the same
    from ingester.errors import FatalError  # noqa: PLC0415 - the same
    from ingester.report.summary import to_json, to_lines  # noqa: PLC0415 - the same
    from ingester.tls import INSECURE  # noqa: PLC0415 - the same

    logging.lastResort = None  # libraries' own words quote headers and addresses
    if config.insecure:
        tell(INSECURE)
    with logs.opened(config.log_file, config.log_level) as log_file:
        summary, cause = _run(config, named)
    if config.insecure:
        tell(INSECURE)
    if log_file is not None and log_file.dropped:
        tell(f"warning: {log_file.dropped:,} lines are missing in the log file")
    if isinstance(cause, FatalError):
        complain(cause)
    try:
        for line in [to_json(summary)] if as_json else map(printable, to_lines(summary)):
            say(line)
    except (BrokenPipeError, FatalError) as error:
        if summary.exit_code <= 128 or not _nobody_listens(error):
            raise
        _give_up_stdout()  # that a signal stopped it says more than that nobody listens
    if summary.exit_code:
        raise click.exceptions.Exit(summary.exit_code)


def _nobody_listens(error: Exception) -> bool:
    """Whether stdout cannot be written because a pipe's reader has gone, or the terminal."""
    if isinstance(error, BrokenPipeError):
        return True
    cause = error.__cause__
    gone = isinstance(cause, OSError) and cause.errno == errno.EIO
    return gone and stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)  # of a disk it is damage


def _give_up_stdout() -> None:
    """Have what is still to be written go nowhere: at the end it would be an error again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _run(config: Config, sources: Sequence[Source]) -> tuple[RunSummary, Cause | None]:
    """Run it on a loop of its own, with signals, progress and the log's first and last line."""
    from ingester import logs  # noqa: PLC0415 - not for --help
    from ingester.cli.live import Live  # noqa: PLC0415 - the same
    from ingester.cli.loops import run_loop  # noqa: PLC0415 - the same
    from ingester.cli.signals import handle_signals, ignored_signals  # noqa: PLC0415 - the same
    from ingester.control import StopControl  # noqa: PLC0415 - the same
    from ingester.errors import IngesterError  # noqa: PLC0415 - the same
    from ingester.pipeline import ingest  # noqa: PLC0415 - the same
    from ingester.report.summary import not_taken_line  # noqa: PLC0415 - the same
    from ingester.version import VERSION  # noqa: PLC0415 - the same

    ignored = ignored_signals()
    live = Live(sys.stderr)

    async def job() -> tuple[RunSummary, Cause | None]:
        stop = StopControl()
        handle_signals(stop, ignored, lambda it: live.stopping(it, config.drain_timeout_s))
        every_s = live.interval_s(config.progress_interval_s)
        summary = await ingest(
            config, sources, stop=stop, watch=live.show, watch_every_s=every_s, warn=live.warn,
            not_taken=lambda it: live.tell(not_taken_line(it, config.journal)),
        )  # fmt: skip
        return summary, stop.cause

    logs.log(
        logs.INFO, "start", version=VERSION, configuration=config.digest, server=config.server,
        auth=config.auth, insecure=config.insecure, sources=len(sources),
    )  # fmt: skip
    try:
        summary, cause = run_loop(job(), config.event_loop)
    except IngesterError as error:
        logs.log(logs.ERROR, "end", cause=error.without_value)
        raise
    except BaseException as error:
        logs.bug(error)
        raise
    live.end()
    counts = {name: count for name, count in summary.outcomes.items() if count}
    logs.log(
        logs.INFO, "end", run_id=summary.run_id, exit_code=summary.exit_code, files=summary.files,
        skipped_directories=summary.skipped_directories,
        requests=summary.requests, retries=summary.retries, elapsed_s=summary.elapsed_s, **counts,
    )  # fmt: skip
    return summary, cause

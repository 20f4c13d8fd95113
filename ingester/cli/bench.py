"""``ingester bench``: how fast this machine sends, or a store takes, made files."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ingester.cli import complain, printable, tell
from ingester.cli.options import flags_of, load, target_options
from ingester.config import Config, load_config
from ingester.errors import FatalError, UsageError
from ingester.options import BY_NAME, MOST_AT_ONCE

if TYPE_CHECKING:
    from ingester.bench.job import Bench, Options  # asyncio, and not for --help
    from ingester.bench.plan import Plan  # the same
    from ingester.bench.processes import Children  # the same
    from ingester.bench.report import Where  # the same

_CONCURRENCY = "1,2,4,8"
_BATCHES = "10,100"
_SINK_MB, _STORE_MB, _GRID_MB = 200, 80, 500
_MOST_INSTANCES = 10_000  # a run would take more
_LIMIT_S, _GRID_LIMIT_S = 60.0, 900.0
_OF_THE_SINK = ("payload_signing",)
_FRAMING_BYTES = 256  # of a file in a request, as `load_config` has it


def _number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse "nan", which is neither too small nor too large for a range of click's."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number", ctx, param)
    return value


@click.command(name="bench", context_settings={"max_content_width": 100})
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    type=click.Choice(("archive", "small", "mr", "ct", "cr", "dx")),
    help="Size of a file: archive 100 KB, small 32 KiB, mr 513 KiB, ct 1.9 MB, cr 5.9 MB, "
    "dx 11 MB; several times for several. [default: archive]",
)
@click.option(
    "--concurrency", metavar="N[,…]", help=f"Most requests under way. [default: {_CONCURRENCY}]"
)
@click.option(
    "--batch-instances", metavar="N[,…]", help=f"Files in one request. [default: {_BATCHES}]"
)
@click.option(
    "--grid",
    is_flag=True,
    help="dcm4chee's grid: mr, ct, cr and dx, 5, 10, 50 and 100 files a request, 1 to 8 requests "
    f"under way, in {_GRID_LIMIT_S:.0f} s, with {_GRID_MB} MB a point; what else is given wins.",
)
@click.option(
    "--size-mb",
    type=click.IntRange(1, 1_000_000_000),
    metavar="N",
    help=f"MB of files a point sends, at most. [default: {_SINK_MB}; into a store {_STORE_MB}]",
)
@click.option(
    "--time-limit-s",
    type=click.FloatRange(1, 86_400),
    callback=_number,
    metavar="SECONDS",
    help=f"For all points; each has its share, or 5 s. [default: {_LIMIT_S:.0f}]",
)
@click.option("--tls/--no-tls", default=None, help="HTTPS to the sink. [default: --tls]")
@click.option(
    "--latency-ms",
    type=click.FloatRange(0, 60_000),
    callback=_number,
    metavar="N",
    help="The sink holds each answer back. [default: 0]",
)
@click.option(
    "--output", default=".", show_default=True, metavar="DIR", help="For bench.json and bench.svg."
)
@click.option("--yes", is_flag=True, help="Send to the store without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print bench.json on stdout.")
@target_options
def command(
    tiers: Sequence[str],
    concurrency: str | None,
    batch_instances: str | None,
    grid: bool,
    size_mb: int | None,
    time_limit_s: float | None,
    tls: bool | None,
    latency_ms: float | None,
    output: str,
    yes: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Measure how fast this machine sends, or a store takes, made files, and what holds it up.

    Without a target it sends to a server on this machine that stores nothing, signed and over TLS.
    With --url or --datastore it sends to that store, after asking, and what it sent stays there:
    made images of made patients, with UIDs of their own. Each point of the sweep is an ingester
    run of its own with scan, signatures, journal and results file. The files lie in a temporary
    directory (TMPDIR) that is removed. Writes bench.json and bench.svg over earlier ones.
    """
    from ingester.bench.job import Bench, Options  # noqa: PLC0415 - heavy, and not for --help
    from ingester.bench.points import ToSink, ToStore  # noqa: PLC0415 - the same
    from ingester.bench.processes import Children  # noqa: PLC0415 - the same
    from ingester.bench.report import Where  # noqa: PLC0415 - the same
    from ingester.cli.bench_output import make_writable  # noqa: PLC0415 - the same

    config = _store_of(given)
    _refuse_what_does_nothing(given, config, yes=yes, tls=tls, latency_ms=latency_ms)
    plan = _plan_of(tiers, concurrency, batch_instances, size_mb, config, grid=grid)
    make_writable(output)
    default_s = _GRID_LIMIT_S if grid else _LIMIT_S
    limit_s = default_s if time_limit_s is None else time_limit_s
    if config is None:
        sink = ToSink(tls is not False, _payload_signing(given), latency_ms or 0.0)
        options = Options(plan, limit_s, target=sink, sink=sink)
        where = Where("", "generic")
    else:
        options = Options(
            plan,
            limit_s,
            target=ToStore(tuple(flags_of(given))),
            sink=ToSink(
                config.url.startswith("https:"),
                config.payload_signing if config.auth == "sigv4" else None,
            ),
        )
        where = Where(config.url, config.server)
        _announce(options, where, insecure=config.insecure)
        if not yes:
            _ask()
    bench, children = Bench(), Children()
    _measure(options, bench, children, where, output, as_json=as_json)


def _store_of(given: Mapping[str, object]) -> Config | None:
    """The configuration of the store, None if none was named. Raises UsageError."""
    if not (given["url"] or given["datastore"]):
        return None
    return load(None, given)


def _refuse_what_does_nothing(
    given: Mapping[str, object],
    config: Config | None,
    *,
    yes: bool,
    tls: bool | None,
    latency_ms: float | None,
) -> None:
    if config is None:
        named = [
            BY_NAME[name].flag
            for name, value in given.items()
            if name not in _OF_THE_SINK and value not in (None, ())
        ]
        named += ["--yes"] if yes else []
        if named:
            raise UsageError(
                f"only with a store: {named[0]}", "name the store with --url or --datastore"
            )
    elif tls is not None or latency_ms is not None:
        flag = "--latency-ms" if tls is None else "--tls" if tls else "--no-tls"
        raise UsageError(f"only without a store: {flag}", "it is for the server on this machine")


def _payload_signing(given: Mapping[str, object]) -> str:
    """Of the signatures to the sink. Raises UsageError."""
    flags: dict[str, object] = {"url": "http://127.0.0.1"}
    values = given["payload_signing"]
    if isinstance(values, tuple) and values:
        flags["payload_signing"] = values[-1]
    return load_config(flags, {}).payload_signing


def _plan_of(
    tiers: Sequence[str],
    concurrency: str | None,
    batch_instances: str | None,
    size_mb: int | None,
    config: Config | None,
    *,
    grid: bool,
) -> Plan:
    from ingester.bench import plan  # noqa: PLC0415 - not for --help

    default_mb = _GRID_MB if grid else _SINK_MB if config is None else _STORE_MB
    asked = _numbers("--concurrency", concurrency or _CONCURRENCY, MOST_AT_ONCE)
    batches = _numbers("--batch-instances", batch_instances or _BATCHES, _MOST_INSTANCES)
    if grid:
        tiers = tiers or plan.GRID_TIERS
        asked = asked if concurrency else plan.GRID_CONCURRENCY
        batches = batches if batch_instances else plan.GRID_BATCHES
    most = None if config is None else config.server_profile.max_body_bytes
    try:
        return plan.plan_of(
            tiers or ("archive",),
            asked,
            batches,
            point_bytes=(default_mb if size_mb is None else size_mb) * 1_000_000,
            batch_bytes_max=None if most is None else most - _FRAMING_BYTES * max(batches),
        )
    except ValueError as error:
        raise UsageError(str(error), "see ingester bench --help") from None


def _numbers(flag: str, text: str, most: int) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= most for word in words):
        raise UsageError(f"{flag}: must be numbers from 1 to {most:,} with commas between: {text}")
    return tuple(map(int, words))


def _announce(options: Options, where: Where, *, insecure: bool) -> None:
    """Say what is going to be sent, and that it stays."""
    from ingester.bench.corpus_files import SYNTHETIC_NAME  # noqa: PLC0415 - not for --help
    from ingester.tls import INSECURE  # noqa: PLC0415 - the same

    corpora = [options.corpus_of(point) for point in options.plan.points]
    files, studies = sum(one.files for one in corpora), sum(one.studies for one in corpora)
    if insecure:
        tell(INSECURE)
    for line in (
        f"to be sent to {where.url} ({where.server}), in {options.time_limit_s:.0f} s at most:",
        f"  {files:,} made instances, {sum(one.bytes for one in corpora) / 1e6:,.0f} MB",
        f"  {studies:,} studies of made patients, all named {SYNTHETIC_NAME}",
        f"  all their UIDs begin with {options.uid_root}.",
        "They stay there; how to delete them is said at the end.",
    ):
        tell(printable(line))


def _ask() -> None:
    """Have a person agree. Raises UsageError."""
    if not sys.stdin.isatty():
        raise UsageError("nothing was sent: there is no terminal to ask at", "agree with --yes")
    click.echo("Send them? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was sent")


def _measure(
    options: Options, bench: Bench, children: Children, where: Where, output: str, *, as_json: bool
) -> None:
    """Run it with signals, and say what was measured, however it ended."""
    from ingester.bench.job import run_bench  # noqa: PLC0415 - not for --help
    from ingester.bench.processes import StoppedError  # noqa: PLC0415 - the same
    from ingester.cli.bench_output import show  # noqa: PLC0415 - the same
    from ingester.cli.signals import HANDLED, ignored_signals  # noqa: PLC0415 - the same

    ignored = ignored_signals()
    for number in HANDLED:
        if number not in ignored:
            signal.signal(number, lambda number, _: children.stop(signal.Signals(number)))
    code = 0
    try:
        run_bench(options, bench, children, lambda line: tell(printable(line)))
    except StoppedError as stopped:
        code = 128 + stopped.number
    except FatalError as error:
        complain(error)
        code = 1
    if bench.points or bench.studies:
        try:
            show(options, bench, where, output, as_json=as_json)
        except FatalError as error:
            complain(error)
            code = code or 1
    if code:
        raise click.exceptions.Exit(code)

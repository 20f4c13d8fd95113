"""``ingester config``: what a run with these flags would use, and why."""

from __future__ import annotations

import click

from ingester.cli import printable, say, tell
from ingester.cli.options import load, run_options, shown


@click.command(name="config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@run_options
def command(as_json: bool, toml_path: str | None, **given: object) -> None:
    """Show the effective configuration and where each value came from.

    Takes the flags of run. Credentials are not shown, only where they come from.
    """
    from ingester.config import values_of  # noqa: PLC0415 - loaded by load() anyway
    from ingester.options import BY_NAME  # noqa: PLC0415 - the same
    from ingester.tls import INSECURE  # noqa: PLC0415 - the same

    config = load(toml_path, given)
    if config.insecure:
        tell(INSECURE)
    values, source = values_of(config), config.credentials_from
    if as_json:
        import json  # noqa: PLC0415 - only here

        rows = {
            BY_NAME[name].key: {"value": value, "origin": config.origins[name]}
            for name, value in values.items()
        }
        credentials = {"credentials": bool(source), "credentials_from": source or None}
        say(json.dumps({"options": rows, **credentials}, indent=2))
        return
    width = max(len(BY_NAME[name].key) for name in values)
    for name, value in values.items():
        key = BY_NAME[name].key
        say(printable(f"{key:<{width}}  {shown(value):<24}  # {config.origins[name]}"))
    say(f"{'credentials':<{width}}  {f'from {source}' if source else 'none'}")

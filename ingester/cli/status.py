"""``ingester status``: where a journal stands."""

from __future__ import annotations

import os

import click

from ingester.cli import printable, say
from ingester.errors import UsageError


@click.command(name="status")
@click.option("--journal", default=None, metavar="FILE", help="[default: ingester.db]")
@click.option("--study", default=None, metavar="UID", help="What became of one study.")
@click.option(
    "--exceptions", is_flag=True, help="List the files that exit code 3 is about, as JSON lines."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(journal: str | None, study: str | None, exceptions: bool, as_json: bool) -> None:
    """Say where a journal stands, also while a run is going."""
    path = os.environ.get("INGESTER_JOURNAL", "ingester.db") if journal is None else journal
    if not path:  # another one might be the default
        raise UsageError(
            "the journal is empty", "is a variable not set? Name a file with --journal"
        )
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no such journal: {path}", "name it with --journal") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(
            f"the journal cannot be opened: {reason}: {path}",
            "check the permissions of the file and its directory",
        ) from None

    if exceptions:
        if study is not None:
            raise UsageError("both --exceptions and --study", "take one of them away")
        from ingester.cli.exceptions import print_exceptions  # noqa: PLC0415 - not for --help

        print_exceptions(path)
        return

    from ingester.cli.standing import journal_lines, study_lines  # noqa: PLC0415 - not for --help

    data, lines = journal_lines(path) if study is None else study_lines(path, study)
    if as_json:
        import json  # noqa: PLC0415 - only here

        say(json.dumps(data, indent=2))
    else:
        for line in lines:
            say(printable(line))

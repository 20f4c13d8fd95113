"""What ``ingester bench`` leaves: two files, and what it prints, also where they are lost."""

from __future__ import annotations

import json
import os

from ingester.bench import report
from ingester.bench.job import Bench, Options
from ingester.bench.report import Where
from ingester.cli import printable, say, tell
from ingester.errors import FatalError, UsageError
from ingester.real_path import real_path


def make_writable(directory: str) -> None:
    """Make the directory, and see that the files can be written in the end.

    Earlier ones stay as they are. Raises UsageError.
    """
    real_path(directory)  # or files were measured first, and there was no place for the figures
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"the output directory cannot be made ({reason}): {directory}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"the output directory cannot be written: {directory}", "name an --output")
    for path in report.paths_in(directory):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # nobody may read a FIFO
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            hint = "name another directory with --output"
            raise UsageError(f"the output cannot be written ({reason}): {path}", hint) from error


def show(options: Options, bench: Bench, where: Where, output: str, *, as_json: bool) -> None:
    """Write the files, and print what was measured and what is to be deleted.

    Raises:
        FatalError: a file could not be written; all the rest was printed.
    """
    data = json.dumps(report.to_data(options, bench, where), indent=2)
    error = _write(output, (f"{data}\n", report.to_svg(options, bench, where)))
    for line in report.apart_lines(bench):
        tell(printable(line))
    if as_json:
        say(data)
    else:
        for line in (*report.table(bench), *report.sentences(options, bench)):
            say(printable(line))
    if error is None:
        tell(printable(f"written: {', '.join(report.paths_in(output))}"))
    if bench.studies:
        tell(printable(f"what was sent stays in the store; {where.how_to_delete()}"))
    if error is not None:
        for study in bench.studies:  # perhaps no file lists them
            tell(f"  {study}")
        raise error


def _write(directory: str, texts: tuple[str, str]) -> FatalError | None:
    """Write the files over earlier ones; returns what went wrong."""
    for path, text in zip(report.paths_in(directory), texts, strict=True):
        try:
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            return FatalError(f"the output cannot be written ({reason}): {path}")
    return None

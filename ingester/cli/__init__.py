"""The command line: a module a verb, loaded when it is called.

The only place that knows click, signals and exit codes. stdout is data, stderr is people.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

import click

from ingester.cli import bugs
from ingester.cli.streams import put_patiently
from ingester.errors import FatalError, IngesterError, StoppedEarly, UsageError
from ingester.version import VERSION

VERBS = {
    "bench": "Measure how fast this machine sends, or a store takes, made files.",
    "config": "Show the effective configuration and where each value came from.",
    "demo": "Show the whole job on a small made archive, with nothing set up.",
    "emulate": "Run a DICOMweb store on loopback, shaped like AWS HealthImaging.",
    "run": "Load directories or files into a DICOMweb store.",
    "status": "Say where a journal stands, also during a run.",
}
EXIT_FATAL = 1
EXIT_USAGE = 2


class LazyVerbs(click.Group):
    """Knows its verbs by name; imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, sorted."""
        del ctx
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the verb's module."""
        del ctx
        if cmd_name not in VERBS:
            return None
        command = import_module(f"ingester.cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with their help, without loading them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(sorted(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; suggest one for a name that is none."""
        import difflib  # noqa: PLC0415 - only for a mistake

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {close[0]}?" if close else "see ingester --help"
            raise UsageError(f"no such verb: {args[0]}", hint)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def group() -> None:
    """Move archives of DICOM files into a DICOMweb store by STOW-RS.

    Every file ends in exactly one recorded outcome. Exit codes of run: 0 every DICOM instance met
    is stored, 1 fatal, 2 usage or configuration, 3 finished but some are not stored, 129/130/143
    interrupted (the same command resumes).
    """


def main() -> None:
    """Entry point: turns this package's errors into a line, a hint and an exit code."""
    _open_standard_files()
    _escape_what_stdout_cannot_show()
    bugs.install()
    try:
        # Not standalone, click returns the code that a command exited with.
        code = group.main(prog_name="ingester", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        path = "ingester" if context is None else context.command_path
        complain(UsageError(error.format_message(), f"see {path} --help"))
        sys.exit(EXIT_USAGE)
    except UsageError as error:
        complain(error)
        sys.exit(EXIT_USAGE)
    except FatalError as error:
        complain(error)
        sys.exit(error.exit_code if isinstance(error, StoppedEarly) else EXIT_FATAL)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        sys.exit(EXIT_FATAL)


def complain(error: IngesterError) -> None:
    """One line of what happened, one of what to do next."""
    lines = [f"ingester: {printable(error.message)}"]
    if error.words and sys.stderr.isatty():  # a server's words may quote a patient's data
        lines.append(f"  the server says: {printable(error.words)}")
    if error.hint:
        lines.append(f"  hint: {printable(error.hint)}")
    tell("\n".join(lines))


def tell(text: str) -> None:
    """Words for people, on stderr; not for a running loop, as this may wait, see `put_patiently`.

    If they have gone, the verb goes on without them.
    """
    put_patiently(sys.stderr, f"{text}\n")


def say(text: str) -> None:
    """Data for stdout. Raises FatalError when it cannot be written, as on a full disk."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise FatalError(f"the output cannot be written ({reason})") from error


def _open_standard_files() -> None:
    """Give a process that was started with closed ones ``/dev/null``.

    Else the next file that is opened takes the number, and libuv aborts when it is closed.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 - kept


def _escape_what_stdout_cannot_show() -> None:
    """Else a name in another alphabet, or an ellipsis, is an error where a locale is not UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Text that cannot forge a line or a terminal sequence."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)

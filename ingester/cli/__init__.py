"""The command line: a module a verb, loaded when it is called.

The only place that knows click, signals and exit codes. stdout is data, stderr is people.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from ingester.errors import FatalError, IngesterError, UsageError
from ingester.version import VERSION

VERBS = {
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
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"No such verb: {args[0]}.{hint}")
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
    try:
        # Not standalone, click returns the code that a command exited with.
        code = group.main(prog_name="ingester", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except UsageError as error:
        complain(error)
        sys.exit(EXIT_USAGE)
    except FatalError as error:
        complain(error)
        sys.exit(EXIT_FATAL)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        sys.exit(EXIT_FATAL)


def complain(error: IngesterError) -> None:
    """One line of what happened, one of what to do next."""
    click.echo(f"ingester: {printable(error.message)}", err=True)
    if error.words and sys.stderr.isatty():  # a server's words may quote a patient's data
        click.echo(f"  the server says: {printable(error.words)}", err=True)
    if error.hint:
        click.echo(f"  hint: {printable(error.hint)}", err=True)


def printable(text: str) -> str:
    """Text that cannot forge a line or a terminal sequence."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)

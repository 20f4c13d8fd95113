"""``python -m ingester``, and the installed command."""

import signal


def main() -> None:
    """Let Ctrl-C end the process without a word from now on, and run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else it is a traceback of some import

    from ingester import cli  # noqa: PLC0415 - after that

    cli.main()


if __name__ == "__main__":
    main()

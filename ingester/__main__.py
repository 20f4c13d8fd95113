"""``python -m ingester``, and the installed command."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Ctrl-C is a traceback of some import

from ingester.cli import main

if __name__ == "__main__":
    main()

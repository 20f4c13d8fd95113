"""How a benchmark ends when a signal comes: as by an exception, so that every block is left.

By themselves SIGTERM and SIGHUP leave sink, client and corpora behind.
"""

import signal
import sys
from types import FrameType
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def leave_nothing_behind() -> None:
    """Have these signals raise SystemExit from now on; one that is ignored (nohup) stays so."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    for each in _ENDING:  # a second one must not break off what the first has begun
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)

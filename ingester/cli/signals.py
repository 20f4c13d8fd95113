"""SIGINT, SIGTERM and SIGHUP: the first stops intake and drains, the second cancels.

One that was ignored when the process started (nohup) stays ignored.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from ingester.control import StopControl

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignored_signals() -> frozenset[signal.Signals]:
    """Those ignored now: to be asked before asyncio installs its own handlers."""
    return frozenset(s for s in HANDLED if signal.getsignal(s) is signal.SIG_IGN)


def handle_signals(
    stop: StopControl,
    ignored: frozenset[signal.Signals],
    acknowledge: Callable[[signal.Signals], None] | None = None,
) -> None:
    """Let the running loop handle them from now on; ``acknowledge`` the one that drains."""
    loop = asyncio.get_running_loop()
    for number in HANDLED:
        if number not in ignored:
            loop.add_signal_handler(number, _on_signal, stop, number, acknowledge)


def _on_signal(
    stop: StopControl,
    number: signal.Signals,
    acknowledge: Callable[[signal.Signals], None] | None,
) -> None:
    if stop.requested:
        stop.abandon(number)
        return
    stop.request(number)
    if acknowledge is not None and not stop.starting:  # else it has nothing to finish
        acknowledge(number)

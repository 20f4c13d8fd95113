"""Runs commands at the same time, and adds up what they say they did.

Takes: commands, each a JSON list; each prints a JSON object with `files` and `outcomes`.
Gives: such an object, on stdout, and the status of the first that did not end with 0.
Ends: when all have; what ends it before, SIGKILL too, ends them as well (on Linux alone).
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Run what the command line has."""
    files, outcomes, status = 0, Counter[str](), 0
    ending = _ending_with(os.getpid())
    started = [
        subprocess.Popen(
            json.loads(each),
            stdout=subprocess.PIPE,
            preexec_fn=ending,  # noqa: PLW1509 - this process has one thread
        )
        for each in arguments
    ]
    for process in started:
        stdout, _ = process.communicate()
        status = status or process.returncode
        if process.returncode == 0:
            summary = json.loads(stdout)
            files += summary["files"]
            outcomes.update(summary["outcomes"])
    print(json.dumps({"files": files, "outcomes": outcomes}))
    return status


def _ending_with(parent: int) -> Callable[[], None] | None:
    """What has a child killed when this process ends, called in the child before its program."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)

    return end_with_parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

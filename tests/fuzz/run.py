"""python -m tests.fuzz.run --cases 200000 --seed 1: hostile files to the scanner and its stage.

Two processes share the cases, each limited in memory. A case that is answered wrongly, takes too
long or too much memory is written to the directory, with a text that says what is wrong.
Exits 0 when there is none, else 1. `--first N --cases 1` repeats one case.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.fuzz.cases import case
from tests.fuzz.crafted import Crafted
from tests.fuzz.judge import judged
from tests.fuzz.stage import complaints_of_stage

PROCESSES = 2
LIST_OF_FILES = 25
EXTRA_MEMORY_BYTES = 160 << 20
"""What a process may take above what it has when it begins: pydicom's own reading included."""
SILENCE_S = 300.0
"""A process that says nothing for so long hangs, on however busy a machine."""
PROGRESS_S = 10.0


@dataclass(frozen=True, slots=True)
class Arguments:
    """What is to be run, and where failures go."""

    cases: int
    seed: int
    first: int
    directory: str
    share: int | None  # set in the processes that this one starts


def main(argv: Sequence[str]) -> int:
    arguments = _parsed(argv)
    os.makedirs(arguments.directory, exist_ok=True)
    if arguments.share is None:
        return Conductor(arguments).run()
    _limit_memory()
    with tempfile.TemporaryDirectory() as files:
        return _run_share(arguments, arguments.share, os.fsencode(files))


def _parsed(argv: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--directory", default="fuzz-failures", help="where failing files go")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    return Arguments(**vars(parser.parse_args(argv)))


class Conductor:
    """Starts the processes, tells how far they are, and ends one that hangs."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._files = [os.path.join(arguments.directory, f"share{n}.txt") for n in range(PROCESSES)]

    def run(self) -> int:
        began = heard = time.monotonic()
        shares = [self._start(n) for n in range(PROCESSES)]
        before = [(0, 0, 0)] * PROCESSES
        told, hung = began, False
        while any(share.poll() is None for share in shares):
            time.sleep(0.1)
            now, progress = time.monotonic(), [_progress(path) for path in self._files]
            heard, before = (now if progress != before else heard), progress
            if now - told > PROGRESS_S:
                told = now
                self._tell(progress, now - began)
            if now - heard > SILENCE_S:
                hung = True
                for share in shares:
                    share.kill()
        progress = [_progress(path) for path in self._files]
        self._tell(progress, time.monotonic() - began)
        for share, (_, _, number) in zip(shares, progress, strict=True):
            if share.returncode not in (0, 1) or hung:
                _say(f"a process ended with {share.returncode} behind case {number}")
                return 1
        if sum(done for done, _, _ in progress) != self._arguments.cases:
            _say("not all cases were tried")
            return 1
        return max(share.returncode for share in shares)

    def _start(self, share: int) -> subprocess.Popen[bytes]:
        of = self._arguments
        with open(self._files[share], "w", encoding="utf-8"):
            pass
        return subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "tests.fuzz.run"),
                *("--cases", str(of.cases), "--seed", str(of.seed), "--first", str(of.first)),
                *("--directory", of.directory, "--share", str(share)),
            ]
        )

    def _tell(self, progress: list[tuple[int, int, int]], elapsed_s: float) -> None:
        done, failed = (sum(one[n] for one in progress) for n in (0, 1))
        _say(f"{done} of {self._arguments.cases} cases, {failed} failed, {elapsed_s:.0f} s")


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 - this is a command


def _progress(path: str) -> tuple[int, int, int]:
    """Cases done, cases failed, and the number of the last."""
    with open(path, encoding="utf-8") as file:
        words = file.read().split()
    return (int(words[0]), int(words[1]), int(words[2])) if len(words) == 3 else (0, 0, 0)


def _limit_memory() -> None:
    """More than this raises MemoryError, which counts as a failure."""
    judged(case(0, 0).data)
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except FileNotFoundError:
        _say("without /proc the memory of a process is not limited")
        return
    limit = pages * resource.getpagesize() + EXTRA_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _run_share(arguments: Arguments, share: int, files: bytes) -> int:
    last = arguments.first + arguments.cases
    numbers = range(arguments.first + share, last, PROCESSES)
    done = failed = 0
    with open(os.path.join(arguments.directory, f"share{share}.txt"), "r+b") as told:
        for start in range(0, len(numbers), LIST_OF_FILES):
            some = numbers[start : start + LIST_OF_FILES]
            cases = [case(arguments.seed, number) for number in some]
            verdicts = [judged(one.data, one.uids) for one in cases]
            random = Random(f"{arguments.seed}/{some[0]}/stage")
            by_stage = complaints_of_stage(files, random, cases, verdicts)
            for number, one, (_, first), second in zip(
                some, cases, verdicts, by_stage, strict=True
            ):
                if first or second:
                    failed += 1
                    _keep(arguments, number, one, [*first, *second])
            done += len(some)
            os.pwrite(told.fileno(), b"%9d %9d %9d\n" % (done, failed, some[-1]), 0)
    return 1 if failed else 0


def _keep(arguments: Arguments, number: int, failing: Crafted, wrong: list[str]) -> None:
    name = os.path.join(arguments.directory, f"seed{arguments.seed}-case{number}")
    with open(f"{name}.dcm", "wb") as file:
        file.write(failing.data)
    with open(f"{name}.txt", "w", encoding="utf-8") as text:
        text.write("\n".join([failing.name, *wrong, ""]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Makes every fsync of a process take long: a library preloaded into it.

Takes: a directory to compile into, and a C compiler.
Gives: the environment of the process, and how often it waited.

`tests/support/faults.c` can do this too, but it reads its rules at every open, read and stat: a
measured process must not pay for that.
"""

import os
import shutil
import subprocess
from typing import Final

_SOURCE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_sync.c")


def compiler() -> str:
    """The C compiler.

    Raises:
        ValueError: there is none.
    """
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise ValueError("a slow fsync needs a C compiler, gcc or cc")
    return found


def compile_library(directory: str) -> str:
    """Compiles the library; returns its path.

    Raises:
        ValueError: there is no C compiler.
    """
    library = os.path.join(directory, "slow_sync.so")
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler(), *flags, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def environment(library: str, ms: int, count_file: str) -> dict[str, str]:
    """For the process: each fsync takes `ms` more, and their number goes to `count_file`."""
    return {"LD_PRELOAD": library, "SLOW_SYNC_MS": str(ms), "SLOW_SYNC_COUNT": count_file}


def times(count_file: str) -> int:
    """How often the process waited; 0 where the library was not in it."""
    try:
        with open(count_file, encoding="ascii") as text:
            return int(text.read())
    except FileNotFoundError:
        return 0

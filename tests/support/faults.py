"""A file system that fails or hangs under the real command: a library preloaded into its process."""

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")


def compile_library(directory: Path) -> Path:
    """Compiles the library.

    Raises:
        RuntimeError: there is no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler")
    library = directory / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Faults:
    """What happens to the calls of one process. See `faults.c` for the rules."""

    def __init__(self, library: Path, control: Path) -> None:
        self._library = library
        self._control = control
        self._log = control.with_name(control.name + ".log")
        self.rule()

    @property
    def environment(self) -> Mapping[str, str]:
        """For the process."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_OF_TESTS": str(self._control)}

    def rule(self, *rules: str) -> None:
        """Sets the rules, in place of all before; what hangs by none of them goes on."""
        new = self._control.with_name(self._control.name + ".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.replace(self._control)

    @property
    def happened(self) -> list[str]:
        """Each time that a rule was applied: `CALL PATH`."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def wait_for(self, call: str, part: str, count: int = 1) -> None:
        """Waits until a rule was applied to such calls so many times."""
        deadline = time.monotonic() + 60
        while self.count(call, part) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{call} {part}: {self.happened}")
            time.sleep(0.005)

    def count(self, call: str, part: str) -> int:
        """How often a rule was applied to such calls."""
        return sum(line.startswith(f"{call} ") and part in line for line in self.happened)

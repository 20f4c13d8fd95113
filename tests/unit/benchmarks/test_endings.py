"""A benchmark that is told to end leaves nothing: no sink, no client, no corpus."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.process import is_alive, start_python
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
MODULES = {
    "compare": ("--row=latency", "--scale=0.001"),
    "memory": ("--case=many",),
    "sweep": ("archive", "", "--latency-ms=60000", "--scale=0.001"),
    "threads": ("archive", "plain", "--scale=0.001"),
}


def in_session_of(pid: int) -> list[int]:
    """The processes that one, which began a session, has started, and those that they have."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == pid and int(stat.parent.name) != pid:
            found.append(int(stat.parent.name))
    return [each for each in found if is_alive(each)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
class TestABenchmark:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_that_a_signal_ends_in_the_middle_of_a_run_leaves_nothing(
        self, number: signal.Signals, tmp_path: Path
    ) -> None:
        """The sink holds its answer back for a minute."""
        command = ("-m", "benchmarks.sweep", *MODULES["sweep"])
        with start_python(*command, cwd=ROOT, env={"TMPDIR": str(tmp_path)}) as process:
            wait_until(lambda: list(tmp_path.glob("*/run-*/ingester.db")), process)
            wait_until(lambda: len(in_session_of(process.pid)) >= 2, process)
            process.signal(number)
            completed = process.wait(20)
            wait_until(lambda: not in_session_of(process.pid))
        assert completed.returncode == 128 + number
        assert list(tmp_path.iterdir()) == []
        assert "Traceback" not in completed.stderr

    @pytest.mark.parametrize("module", MODULES)
    def test_that_a_signal_ends_leaves_no_corpus(self, module: str, tmp_path: Path) -> None:
        command = ("-m", f"benchmarks.{module}", *MODULES[module])
        with start_python(*command, cwd=ROOT, env={"TMPDIR": str(tmp_path)}) as process:
            wait_until(lambda: list(tmp_path.rglob("*.dcm")), process)
            process.signal(signal.SIGTERM)
            completed = process.wait()
        assert completed.returncode == 128 + signal.SIGTERM
        assert list(tmp_path.iterdir()) == []

    def test_that_was_started_with_nohup_goes_on(self, tmp_path: Path) -> None:
        command = ("-m", "benchmarks.threads", *MODULES["threads"])
        with start_python(
            *command, cwd=ROOT, env={"TMPDIR": str(tmp_path)}, ignored_signals=(signal.SIGHUP,)
        ) as process:
            wait_until(lambda: list(tmp_path.rglob("*.dcm")), process)
            process.signal(signal.SIGHUP)
            assert process.wait().returncode == 0

"""Starting and ending the real command."""

import os
import signal
import sys

import pytest

from tests.support.process import Process, clean_environment, start_python
from tests.support.waiting import wait_until

HELLO = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
READY = "import time; print('ready', flush=True); time.sleep(600)"


def wait_ready(process: Process) -> None:
    wait_until(lambda: "ready" in process.stdout_so_far())


def test_output_and_exit_code_are_those_of_the_command() -> None:
    with start_python("-c", HELLO) as process:
        done = process.wait()
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_signal_ends_it_by_that_signal() -> None:
    with start_python("-c", READY) as process:
        wait_ready(process)
        process.signal(signal.SIGTERM)
        assert process.wait().returncode == -signal.SIGTERM


def test_an_ignored_signal_stays_ignored() -> None:
    with start_python("-c", READY, ignored_signals=(signal.SIGHUP,)) as process:
        wait_ready(process)
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGTERM)
        assert process.wait().returncode == -signal.SIGTERM


def test_leaving_the_block_leaves_no_process() -> None:
    with start_python("-c", READY) as process:
        with pytest.raises(TimeoutError):
            process.wait(0.05)
        os.kill(process.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_the_peak_of_memory_is_the_childs_own() -> None:
    """Not that of whoever started it, which ru_maxrss begins with."""
    ballast = bytearray(b"x" * (200 << 20))
    with start_python("-c", f"x = bytearray(b'x' * (64 << 20)); {READY}") as process:
        wait_ready(process)
        process.kill()  # which looks once more, as long as it is there
        peak = process.wait().peak_rss_mib
    assert len(ballast) == 200 << 20
    if sys.platform == "linux":
        assert 64 < peak < 180


def test_no_option_proxy_or_credential_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INGESTER_URL", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "x")
    environment = clean_environment({"INGESTER_TOKEN": "t"})
    assert "x" not in environment.values()
    assert environment["INGESTER_TOKEN"] == "t"

"""``ingester emulate``: says where it is, serves, and ends when it is told to."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.said import complaint, is_gone, is_listening
from tests.support.process import Process, run_ingester, start_ingester
from tests.support.waiting import wait_until


def ready_line(process: Process) -> dict[str, str]:
    """The line it prints, as soon as it has."""
    wait_until(lambda: process.stdout_so_far().endswith("\n"), process)
    lines = process.stdout_so_far().splitlines()
    assert len(lines) == 1
    line: dict[str, str] = json.loads(lines[0])
    return line


def answers(url: str) -> bool:
    """Whether an HTTP server answers, be it to ask for a signature."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        with error:
            return error.code in (401, 403)


class TestTheEmulator:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_serves_until_it_is_told_to_end(self, number: signal.Signals, tmp_path: Path) -> None:
        with start_ingester("emulate", "--store", tmp_path / "store", "--port", "0") as process:
            ready = ready_line(process)
            assert len(ready["datastore"]) == 32
            assert answers(f"{ready['url']}/datastore/{ready['datastore']}/studies")
            process.signal(number)
            completed = process.wait()
            assert completed.returncode == 0
            assert completed.stderr == ""
            assert is_gone(process.pid)
        assert not is_listening(ready["url"])

    def test_refuses_a_port_or_a_store_that_is_taken(self, tmp_path: Path) -> None:
        with start_ingester("emulate", "--store", tmp_path / "store", "--port", "0") as process:
            port = ready_line(process)["url"].rpartition(":")[2]
            for store, flags, line in (
                ("other", ("--port", port), f"(Address already in use) at 127.0.0.1:{port}"),
                ("store", ("--port", "0"), "another emulator has this store open"),
            ):
                completed = run_ingester("emulate", "--store", tmp_path / store, *flags)
                assert completed.returncode == 1
                assert complaint(completed)[0].endswith(line)

    def test_says_that_a_host_has_no_address(self, tmp_path: Path) -> None:
        host = ("--host", "nosuch.invalid")
        completed = run_ingester("emulate", "--store", tmp_path / "s", "--port", "0", *host)
        assert completed.returncode == 1
        said = complaint(completed)[0]
        assert said.startswith("the emulator cannot start (")
        assert said.endswith(") at nosuch.invalid:0")
        assert "Unknown error" not in said

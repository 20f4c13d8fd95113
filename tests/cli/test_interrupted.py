"""Ctrl-C where nothing is going on yet, or any more: the process dies of it, without a word."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.process import clean_environment, run_ingester, start_ingester, start_python
from tests.support.scripted import ScriptedServer
from tests.support.waiting import wait_until

INSTALLED = "from ingester.__main__ import main; main()"
SLEEPS = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)"


class TestAnInterrupt:
    @pytest.mark.parametrize(
        "how", [("-m", "ingester"), ("-c", INSTALLED)], ids=["-m", "installed"]
    )
    def test_while_modules_are_loaded_is_silent(self, tmp_path: Path, how: tuple[str, ...]) -> None:
        (tmp_path / "click.py").write_text(SLEEPS)
        with start_python(*how, "--help", cwd=tmp_path) as process:
            wait_until((tmp_path / "begun").exists)
            process.signal(signal.SIGINT)
            ended = process.wait(20)
        assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")

    def test_is_whoever_s_it_was_where_the_module_is_imported_alone(self) -> None:
        """As by what lists the modules of a package."""
        program = (
            "import signal, ingester.__main__\n"
            "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
        )
        with start_python("-c", program) as process:
            ended = process.wait()
        assert (ended.returncode, ended.stderr) == (0, "")

    def test_of_a_run_that_has_ended_is_silent(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        (tmp_path / "archive").mkdir()
        at_exit = f"import atexit\n@atexit.register\ndef _at_exit(): {SLEEPS}\n"
        (tmp_path / "sitecustomize.py").write_text(at_exit)
        paths = f"{tmp_path}{os.pathsep}{clean_environment()['PYTHONPATH']}"
        run = ("run", "archive", "--url", server.url)
        for loop in ("asyncio", "auto"):
            (tmp_path / "begun").unlink(missing_ok=True)
            with start_ingester(
                *run, "--event-loop", loop, cwd=tmp_path, env={"PYTHONPATH": paths}
            ) as process:
                wait_until((tmp_path / "begun").exists)
                process.signal(signal.SIGINT)
                ended = process.wait(20)
            assert ended.returncode == -signal.SIGINT
            assert all(line.startswith("progress ") for line in ended.stderr.splitlines())
        assert run_ingester(*run, cwd=tmp_path).returncode == 0

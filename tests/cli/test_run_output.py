"""What ``ingester run`` says: stdout is data, stderr is people, and nobody has to listen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Outcome
from tests.support.dicom_files import write_corpus
from tests.support.process import clean_environment, run_ingester, start_python
from tests.support.scripted import ScriptedServer, StoreAll, Wait

SUMMARY = (
    "run_id started_at finished_at version files unreadable_directories skipped_directories "
    "outcomes studies bytes_stored requests retries elapsed_s mb_per_s instances_per_s peak_rss_mib bottleneck "
    "journal exit_code insecure"
)
RESULTS = (
    "run_id file_id root path path_b64 size outcome evidence other_file_id findings reason "
    "reason_code warning_code http_status attempts study_instance_uid series_instance_uid "
    "sop_instance_uid sop_class_uid transfer_syntax_uid sha256 request_id elapsed_s finished_at"
)
PROGRESS = re.compile(r"progress( [a-z_0-9]+=[a-z_0-9.]+)+")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three studies of four instances."""
    write_corpus(tmp_path / "archive", studies=3, instances_per_study=4)
    return tmp_path


def run_with(
    directory: Path, server: ScriptedServer, redirection: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command with its output redirected by a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "ingester",
         "run", "archive", "--url", server.url, *flags],
        cwd=directory, env=clean_environment(), check=False, timeout=60,
        capture_output=True, text=True,
    )  # fmt: skip


def stored(directory: Path) -> dict[str, object]:
    """What the journal says at the end."""
    status = json.loads(run_ingester("status", "--json", cwd=directory).stdout)
    return {"exit_code": status["run"]["exit_code"], **status["outcomes"]}


class TestJson:
    def test_is_one_object_alone_on_stdout(self, archive: Path, server: ScriptedServer) -> None:
        completed = run_ingester("run", "archive", "--url", server.url, "--json", cwd=archive)
        assert completed.returncode == 0
        assert completed.stdout.count("\n") == 1
        summary = json.loads(completed.stdout)
        assert " ".join(summary) == SUMMARY
        assert list(summary["outcomes"]) == [outcome.value for outcome in Outcome]
        assert summary["files"] == sum(summary["outcomes"].values()) == 12
        assert summary["outcomes"]["stored"] == 12
        assert summary["exit_code"] == 0

    def test_is_printed_for_a_run_that_had_to_stop_too(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        server.go_down()
        flags = ("--json", "--backoff-base-s", "0.001", "--backoff-cap-s", "0.001")
        completed = run_ingester("run", "archive", "--url", server.url, *flags, cwd=archive)
        assert completed.returncode == 1
        summary = json.loads(completed.stdout)
        assert summary["exit_code"] == 1
        assert summary["outcomes"]["pending"] == 12


class TestTheResultsFile:
    def test_has_the_keys_of_the_contract_and_a_line_each(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        flags = ("--url", server.url, "--results", "results.jsonl")
        run_ingester("run", "archive", *flags, cwd=archive)
        text = (archive / "results.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        assert len(lines) == 12
        for line in lines:
            assert " ".join(key for key in line if key != "failure_code") == RESULTS


class TestProgress:
    def test_is_a_line_an_interval_that_parses(self, archive: Path, server: ScriptedServer) -> None:
        flags = ("--url", server.url, "--progress-interval-s", "0.02")
        completed = run_ingester("run", "archive", *flags, cwd=archive)
        lines = completed.stderr.splitlines()
        assert lines
        for line in lines:
            assert PROGRESS.fullmatch(line), line
        last = dict(pair.split("=") for pair in lines[-1].split()[1:])
        assert (last["files"], last["known"], last["percent"]) == ("12", "12", "100")
        assert last["stored"] == "12"

    def test_names_no_file_and_no_patient(self, archive: Path, server: ScriptedServer) -> None:
        completed = run_ingester("run", "archive", "--url", server.url, cwd=archive)
        for word in (str(archive / "archive"), ".dcm", "Sample", "P00000", "2.25."):
            assert word not in completed.stderr
            assert word not in completed.stdout


class TestAFileName:
    def test_cannot_forge_a_line(self, tmp_path: Path, server: ScriptedServer) -> None:
        archive = tmp_path / "archive"
        names = [
            'a\n{"outcome":"stored","path":"forged"}\n.dcm',
            "b\r\x1b[2Kprogress files=999.dcm",
            "c\u2028\u202e.dcm",
            os.fsdecode(b"d\xff\n.dcm"),
        ]
        made = write_corpus(archive, studies=1, instances_per_study=len(names))
        for file, name in zip(sorted(made.files), names, strict=True):
            file.rename(file.with_name(name))
        flags = ("--url", server.url, "--results", "results.jsonl")
        completed = run_ingester("run", "archive", *flags, cwd=tmp_path)
        assert completed.returncode == 0
        lines = (tmp_path / "results.jsonl").read_bytes().split(b"\n")
        paths = [json.loads(line)["path"] for line in lines if line]
        assert len(paths) == len(names)
        assert {os.path.basename(path) for path in paths} == {
            *names[:3],
            "d\\xff\n.dcm",
        }
        for said in (completed.stdout, completed.stderr):
            assert "\x1b" not in said
            assert "forged" not in said
            assert "999" not in said


class TestWhoeverListens:
    def test_may_leave_stdout(self, archive: Path, server: ScriptedServer) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            completed = subprocess.run(
                [sys.executable, "-m", "ingester", "run", "archive", "--url", server.url],
                cwd=archive, env=clean_environment(), check=False, timeout=60,
                stdout=pipe, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert completed.returncode == 1
        assert all(PROGRESS.fullmatch(line) for line in completed.stderr.splitlines())
        assert stored(archive) == {"exit_code": 0, "stored": 12}

    @pytest.mark.parametrize("flags", [(), ("--json",)])
    def test_may_leave_stdout_of_a_run_that_a_signal_stops(
        self, archive: Path, server: ScriptedServer, flags: tuple[str, ...]
    ) -> None:
        """The code says that the same command resumes, whoever had gone first."""
        asked = threading.Event()
        server.default = Wait(asked, StoreAll())
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingester", "run", "archive", "--url", server.url, *flags],
                cwd=archive, env=clean_environment(), stdout=pipe, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        try:
            server.wait_until(lambda: bool(server.posts))
            process.send_signal(signal.SIGTERM)
            asked.set()
            _, stderr = process.communicate(timeout=60)
        finally:
            asked.set()
            process.kill()  # unless it has ended
            process.wait()
        assert process.returncode == 143
        assert "Error" not in stderr
        assert stored(archive)["exit_code"] == 143

    def test_may_leave_stderr_and_the_run_goes_on(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            completed = subprocess.run(
                [sys.executable, "-m", "ingester", "run", "archive", "--url", server.url,
                 "--progress-interval-s", "0.001", "--max-batch-instances", "1"],
                cwd=archive, env=clean_environment(), check=False, timeout=60,
                stdout=subprocess.PIPE, stderr=pipe, text=True,
            )  # fmt: skip
        assert completed.returncode == 0
        assert completed.stdout.startswith("12 files: stored 12\n")
        assert stored(archive) == {"exit_code": 0, "stored": 12}

    @pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full"])
    def test_need_not_be_there(
        self, redirection: str, archive: Path, server: ScriptedServer
    ) -> None:
        if "full" in redirection and not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        completed = run_with(archive, server, redirection)
        assert completed.returncode == 0
        assert "Traceback" not in completed.stderr
        assert stored(archive) == {"exit_code": 0, "stored": 12}

    def test_is_told_when_the_summary_cannot_be_written(
        self, archive: Path, server: ScriptedServer
    ) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        completed = run_with(archive, server, ">/dev/full", "--json")
        assert completed.returncode == 1
        last = completed.stderr.splitlines()[-1]
        assert last == "ingester: the output cannot be written (No space left on device)"
        assert "Traceback" not in completed.stderr
        assert stored(archive) == {"exit_code": 0, "stored": 12}


@pytest.mark.parametrize("encoding", ["iso8859-1", "koi8-r"])
class TestAnEncodingThatIsNotUtf8:
    """As of a locale that is not: what it cannot show is escaped, on stdout as on stderr."""

    def test_shows_the_help(self, encoding: str) -> None:
        completed = run_ingester("run", "--help", env={"PYTHONIOENCODING": encoding})
        assert (completed.returncode, completed.stderr) == (0, "")
        assert r"SOURCE\u2026" in completed.stdout

    def test_shows_a_journal_of_another_alphabet(
        self, encoding: str, archive: Path, server: ScriptedServer
    ) -> None:
        env, journal = {"PYTHONIOENCODING": encoding}, ("--journal", "ö日.db")
        run = run_ingester("run", "archive", "--url", server.url, *journal, cwd=archive, env=env)
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("12 files: stored 12\n")
        assert r"\u65e5.db, run 1" in run.stdout
        status = run_ingester("status", *journal, cwd=archive, env=env)
        assert (status.returncode, status.stderr) == (0, "")
        assert r"\u65e5.db, target " in status.stdout

    def test_shows_json_that_parses(
        self, encoding: str, archive: Path, server: ScriptedServer
    ) -> None:
        env, journal = {"PYTHONIOENCODING": encoding}, ("--json", "--journal", "ö日.db")
        run = run_ingester("run", "archive", "--url", server.url, *journal, cwd=archive, env=env)
        assert json.loads(run.stdout)["journal"] == "ö日.db"
        status = run_ingester("status", *journal, cwd=archive, env=env)
        assert json.loads(status.stdout)["journal"] == "ö日.db"


FEW_THREADS = """
import resource, runpy, sys, threading
threading.stack_size(1 << 30)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
most = used + (int(sys.argv.pop(1)) << 30) + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
runpy.run_module("ingester", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
class TestASystemWithFewThreads:
    """A stack is of 1 GiB, and there is memory for so many."""

    @pytest.mark.parametrize("flags", [(), ("--log-file", "log")], ids=["", "with a log"])
    @pytest.mark.parametrize("threads", [0, 1, 2, 3, 4])
    def test_is_told_of_by_name(
        self, archive: Path, server: ScriptedServer, threads: int, flags: tuple[str, ...]
    ) -> None:
        few = ("--scan-processes", "0", "--readers", "4096", *flags)
        run = ("run", "archive", "--url", server.url, *few)
        with start_python("-c", FEW_THREADS, str(threads), *run, cwd=archive) as process:
            ended = process.wait()
        assert ended.returncode == 1
        said = [line for line in ended.stderr.splitlines() if not PROGRESS.fullmatch(line)]
        assert said[-2] == "ingester: the system gives this process no thread"
        assert said[-1].startswith("  hint: raise the limit of processes and threads (ulimit -u")
        assert "  at " not in ended.stderr
        assert run_ingester(*run, cwd=archive).returncode == 0
        assert stored(archive) == {"exit_code": 0, "stored": 12}

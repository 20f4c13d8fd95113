"""``ingester bench`` on this machine: figures of right runs, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.cli.said import complaint
from tests.support.process import (
    Completed,
    Process,
    clean_environment,
    is_alive,
    run_ingester,
    start_ingester,
)
from tests.support.scripted import Answer, ScriptedServer, Wait
from tests.support.waiting import wait_until

SMALL = ("--tier=small", "--size-mb=1", "--concurrency=1,2", "--batch-instances=10")
LONG = ("--time-limit-s=600",)  # a busy machine is no failure


@dataclass(frozen=True, slots=True)
class Ran:
    """A benchmark that has ended."""

    completed: Completed
    output: Path
    temporary: Path

    @property
    def data(self) -> Any:
        """What it has written."""
        return json.loads((self.output / "bench.json").read_text(encoding="utf-8"))


def bench(directory: Path, *options: str) -> Ran:
    """Runs one in a directory of its own; options of a run in the environment are not its."""
    output, temporary = directory / "output", directory / "temporary"
    temporary.mkdir()
    completed = run_ingester(
        "bench", f"--output={output}", *options, *LONG,
        env={"TMPDIR": str(temporary), "INGESTER_URL": "http://127.0.0.1:9",
             "INGESTER_READERS": "nonsense"}, timeout=110, cwd=directory,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    return Ran(completed, output, temporary)


def children_of(pid: int) -> list[int]:
    """Processes that a process has started and not waited for."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in found.split()]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A sweep of two points, of 30 files each."""
    return bench(tmp_path_factory.mktemp("bench"), *SMALL)


class TestASweep:
    def test_measures_every_point(self, ran: Ran) -> None:
        points = ran.data["points"]
        assert [(one["concurrency"], one["batch_instances"]) for one in points] == [
            (1, 10),
            (2, 10),
        ]
        for one in points:
            assert (one["tier"], one["files"], one["stored"]) == ("small", 30, 30)
            assert (one["bytes_stored"], one["requests"], one["retries"]) == (30 * 32_768, 3, 0)
            assert one["in_time"] is True
            assert one["wall_s"] > one["elapsed_s"] > 0
            assert one["mb_per_s"] > 0
            assert one["instances_per_s"] > 0
            assert one["peak_rss_mib"] > 10
            assert one["sink_cores"] >= 0
            assert one["bottleneck"]
        assert ran.data["not_measured"] == []

    def test_measures_the_machine_apart(self, ran: Ran) -> None:
        (tier,) = ran.data["tiers"]
        assert tier["tier"] == "small"
        assert tier["file_bytes"] == 32_768
        assert tier["read"]["mb_per_s"] > 0
        assert tier["scanned_per_s"] > 0
        assert tier["alone"] is None
        assert ran.data["start"]["cpu_s"] > 0

    def test_of_a_store_that_only_the_environment_names_is_of_this_machine(self, ran: Ran) -> None:
        assert ran.data["target"]["kind"] == "sink"
        assert ran.data["target"]["url"] is None

    def test_says_where_it_was_made_and_names_no_host(self, ran: Ran) -> None:
        machine = ran.data["machine"]
        assert {"cpu", "cores", "system", "python", "libraries", "at"} <= set(machine)
        assert ran.data["version"]
        assert os.uname().nodename not in json.dumps(ran.data)

    def test_prints_a_table_and_a_sentence(self, ran: Ran) -> None:
        heading, *rows, sentence = ran.completed.stdout.splitlines()
        assert heading.split()[:6] == ["tier", "at", "a", "time", "a", "request"]
        assert [row.split()[:3] for row in rows] == [["small", "1", "10"], ["small", "2", "10"]]
        assert sentence == ran.data["tiers"][0]["bottleneck"]["sentence"]
        assert "bottleneck" in sentence

    def test_says_how_it_goes_on_stderr(self, ran: Ran) -> None:
        said = ran.completed.stderr
        assert "1/2 small, 1 at a time, 10 a request: " in said
        assert f"written: {ran.output / 'bench.json'}, {ran.output / 'bench.svg'}" in said
        assert "stays in the store" not in said

    def test_draws_a_line_a_batch_size(self, ran: Ran) -> None:
        root = ET.parse(ran.output / "bench.svg").getroot()  # noqa: S314 - our own
        (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
        assert len(line.attrib["points"].split()) == 2

    def test_leaves_nothing_but_its_output(self, ran: Ran) -> None:
        assert sorted(path.name for path in ran.output.iterdir()) == ["bench.json", "bench.svg"]
        assert list(ran.temporary.iterdir()) == []
        assert sorted(path.name for path in ran.output.parent.iterdir()) == ["output", "temporary"]


class TestOptions:
    def test_for_the_sink_are_heard(self, tmp_path: Path) -> None:
        """Answers are held back; a grid has its own points, and only those that were asked for."""
        ran = bench(
            tmp_path, "--grid", "--tier=mr", "--size-mb=6", "--concurrency=1,3", "--json",
            "--batch-instances=5", "--no-tls", "--latency-ms=40", "--payload-signing=sha256",
        )  # fmt: skip
        data = json.loads(ran.completed.stdout)
        assert data == ran.data
        assert data["target"] == {
            "kind": "sink",
            "url": None,
            "server": "generic",
            "sink": {"tls": False, "payload_signing": "sha256", "latency_ms": 40.0},
        }
        (point,) = data["points"]
        assert (point["tier"], point["concurrency"], point["files"]) == ("mr", 1, 10)
        assert point["elapsed_s"] >= 2 * 0.038  # two requests, one at a time
        assert data["not_measured"] == [
            {"tier": "mr", "concurrency": 3, "batch_instances": 5, "reason": "needs --size-mb 8"}
        ]
        assert (data["uid_root"], data["studies"]) == (None, [])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--concurrency=0",), "--concurrency: must be numbers from 1 to 4,096 with commas"),
            (("--concurrency=1,4097",), "must be numbers from 1 to 4,096 with commas between: 1,"),
            (("--batch-instances=10001",), "--batch-instances: must be numbers from 1 to 10,000"),
            (("--concurrency=1,,2",), "with commas between: 1,,2"),
            (("--batch-instances=ten",), "--batch-instances: must be numbers"),
            (("--tier=dx", "--size-mb=1"), "no point is left: dx"),
            (("--payload-signing=none",), "must be one of literal"),
            (("--region=us-east-1",), "only with a store: --region"),
            (("--insecure",), "only with a store: --insecure"),
            (("--yes",), "only with a store: --yes"),
            (("--url=http://127.0.0.1:9", "--latency-ms=1"), "only without a store: --latency-ms"),
            (("--url=http://127.0.0.1:9", "--no-tls"), "only without a store: --no-tls"),
            (("--url=nonsense",), "must be http://"),
            (("--datastore=1234",), "a data store id is 32"),
            (("--output=/dev/null/x",), "the output directory cannot be made"),
        ],
    )
    def test_that_cannot_be_are_refused_before_anything_is_made(
        self, options: tuple[str, ...], words: str, tmp_path: Path
    ) -> None:
        completed = run_ingester("bench", *options, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
        assert completed.returncode == 2
        assert words in complaint(completed)[0]
        assert list(tmp_path.iterdir()) == []


class TestTheTimeLimit:
    def test_leaves_out_a_whole_tier_when_it_is_over(self, tmp_path: Path) -> None:
        """Not even the machine alone is measured for it: that may take as long as a point."""
        completed = run_ingester(
            "bench", "--tier=small", "--tier=mr", "--size-mb=6", "--concurrency=1",
            "--batch-instances=10", "--latency-ms=700", "--time-limit-s=5", cwd=tmp_path,
            timeout=110,
        )  # fmt: skip
        assert completed.returncode == 0, completed.stderr
        data = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
        assert [one["in_time"] for one in data["points"]] == [False]
        (left_out,) = data["not_measured"]
        assert (left_out["tier"], left_out["reason"]) == ("mr", "the time was over, --time-limit-s")
        assert "measuring this machine alone, small" in completed.stderr
        assert "measuring this machine alone, mr" not in completed.stderr
        assert [tier["tier"] for tier in data["tiers"]] == ["small"]


class TestADiskWithoutRoom:
    def test_is_seen_before_anything_is_written(self, tmp_path: Path) -> None:
        completed = run_ingester(
            "bench", "--size-mb=1000000000", cwd=tmp_path, env={"TMPDIR": str(tmp_path)}
        )
        assert completed.returncode == 1
        assert "the corpus needs 1,000,000,064 MB" in complaint(completed)[0]
        assert list(tmp_path.iterdir()) == []


class TestFilesThatCannotBeWritten:
    @pytest.mark.parametrize("name", ["bench.json", "bench.svg"])
    def test_are_seen_before_anything_is_measured(self, name: str, tmp_path: Path) -> None:
        """One of another user is like this too; a FIFO nobody reads would be waited for."""
        output, temporary = tmp_path / "output", tmp_path / "temporary"
        temporary.mkdir()
        output.mkdir()
        os.mkfifo(output / name)
        completed = run_ingester(
            "bench", f"--output={output}", *SMALL, env={"TMPDIR": str(temporary)}
        )
        assert completed.returncode == 2
        assert complaint(completed) == (
            f"the output cannot be written ({os.strerror(errno.ENXIO)}): {output / name}",
            "name another directory with --output",
        )
        assert [path.name for path in output.iterdir()] == [name]
        assert list(temporary.iterdir()) == []

    def test_keep_what_they_have_until_there_is_something_new(self, tmp_path: Path) -> None:
        (tmp_path / "bench.json").write_text("earlier", encoding="utf-8")
        completed = run_ingester("bench", "--size-mb=1000000000", cwd=tmp_path)
        assert completed.returncode == 1
        assert (tmp_path / "bench.json").read_text(encoding="utf-8") == "earlier"
        assert not (tmp_path / "bench.svg").exists()

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
    def test_in_the_end_cost_neither_figures_nor_what_is_to_be_deleted(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        (tmp_path / "bench.json").symlink_to("/dev/full")
        completed = run_ingester(
            "bench", f"--url={server.url}", "--yes", *SMALL, *LONG, cwd=tmp_path, timeout=110
        )
        assert completed.returncode == 1
        heading, *rows, sentence = completed.stdout.splitlines()
        assert heading.startswith("tier")
        assert [row.split()[:3] for row in rows] == [["small", "1", "10"], ["small", "2", "10"]]
        assert "bottleneck" in sentence
        with server.ledger.changed:
            studies = {item.study for item in server.ledger.stored}
        *_, how, first, second, error = completed.stderr.splitlines()
        assert "what was sent stays in the store; to delete it" in how
        assert f"DELETE {server.url}/studies/UID" in how
        assert {first, second} == {f"  {study}" for study in studies}
        assert error == (
            "ingester: the output cannot be written (No space left on device): bench.json"
        )
        assert "written: " not in completed.stderr

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
    def test_in_the_end_change_nothing_about_a_signal(self, tmp_path: Path) -> None:
        (tmp_path / "bench.svg").symlink_to("/dev/full")
        many = ",".join(map(str, range(1, 201)))
        with start_ingester(
            "bench", "--tier=small", "--size-mb=7", f"--concurrency={many}", "--batch-instances=1",
            "--json", "--time-limit-s=3600", cwd=tmp_path,
        ) as process:  # fmt: skip
            wait_for(process, "1/200")
            process.signal(signal.SIGINT)
            completed = process.wait()
        assert completed.returncode == 130
        data = json.loads(completed.stdout)
        assert 1 <= len(data["points"]) < 200
        assert json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")) == data
        assert "cannot be written (No space left on device): bench.svg\n" in completed.stderr


class TestAnInterruption:
    @pytest.mark.parametrize(
        ("number", "at"),
        [
            (signal.SIGINT, "1/200"),
            (signal.SIGTERM, "measuring what a start costs"),
        ],
    )
    def test_leaves_neither_process_nor_corpus_and_keeps_what_was_measured(
        self, number: signal.Signals, at: str, tmp_path: Path
    ) -> None:
        output, temporary = tmp_path / "output", tmp_path / "temporary"
        temporary.mkdir()
        many = ",".join(map(str, range(1, 201)))
        with start_ingester(
            "bench", "--tier=small", "--size-mb=7", f"--concurrency={many}", "--batch-instances=1",
            f"--output={output}", "--time-limit-s=3600", env={"TMPDIR": str(temporary)},
        ) as process:  # fmt: skip
            wait_for(process, at)
            wait_until(lambda: children_of(process.pid), process)
            children = children_of(process.pid)
            process.signal(number)
            completed = process.wait()
        assert completed.returncode == 128 + number
        assert not any(map(is_alive, children))
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in completed.stderr
        if at == "1/200":
            points = json.loads((output / "bench.json").read_text(encoding="utf-8"))["points"]
            assert 1 <= len(points) < 200
        else:
            assert list(output.iterdir()) == []


def wait_for(process: Process, words: str) -> None:
    """Returns when it has said so."""
    wait_until(lambda: words in process.stderr_so_far(), process)


class TestAStore:
    def test_is_not_sent_to_where_nobody_can_be_asked(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        completed = run_ingester("bench", f"--url={server.url}", *SMALL, cwd=tmp_path)
        assert completed.returncode == 2
        assert "nothing was sent: there is no terminal to ask at" in completed.stderr
        assert "hint: agree with --yes" in completed.stderr
        assert server.requests == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("answer", "code"), [("n", 2), ("", 2), ("yes", 0)])
    def test_is_sent_to_only_after_a_yes(
        self, answer: str, code: int, tmp_path: Path, server: ScriptedServer
    ) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "ingester", "bench", f"--url={server.url}", *SMALL, *LONG]
        with subprocess.Popen(
            command, env=clean_environment(), cwd=tmp_path, stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            os.write(ours, f"{answer}\n".encode())
            stdout, stderr = process.communicate(timeout=110)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code, stderr
        assert f"to be sent to {server.url} (generic), in 600 s at most:" in stderr
        assert "  60 made instances, 2 MB" in stderr
        assert "all named INGESTER^BENCH" in stderr
        assert "They stay there" in stderr
        assert "Send them? [y/N] " in stderr
        if code:
            assert stdout == ""
            assert "nothing was sent" in stderr
            assert server.requests == []
            return
        data = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
        assert len(server.stored) == 60
        assert all(sop.startswith(f"{data['uid_root']}.") for sop in server.stored)
        assert f"all their UIDs begin with {data['uid_root']}." in stderr
        assert {len(copies) for copies in server.stored.values()} == {1}
        assert f"DELETE {server.url}/studies/UID" in stderr
        assert data["tiers"][0]["alone"]["mb_per_s"] > 0

    def test_that_refuses_ends_it_with_what_the_run_said(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        server.default = Answer(404)
        completed = run_ingester(
            "bench", f"--url={server.url}", "--yes", *SMALL, *LONG, cwd=tmp_path, timeout=110
        )
        assert completed.returncode == 1
        assert "ingester: a run went wrong (small, 1 at a time, 10 a request): " in completed.stderr
        assert "404" in completed.stderr
        assert "Traceback" not in completed.stderr
        data = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
        assert data["points"] == []
        assert len(data["studies"]) == 1

    def test_that_cannot_be_reached_is_an_error_and_no_table(self, tmp_path: Path) -> None:
        with socket.socket() as bound:  # nobody else can get the port
            bound.bind(("127.0.0.1", 0))
            completed = run_ingester(
                "bench", f"--url=http://127.0.0.1:{bound.getsockname()[1]}", "--yes", *SMALL, *LONG,
                cwd=tmp_path, env={"INGESTER_BACKOFF_BASE_S": "0.01"}, timeout=110,
            )  # fmt: skip
        assert completed.returncode == 1
        assert completed.stdout == ""
        assert (
            "ingester: a run went wrong (small, 1 at a time, 10 a request): the server cannot be "
            "reached (ClientConnectorError: Connection refused)\n"
            "  hint: check the address, the port, and that the server is running\n"
        ) in completed.stderr

    def test_that_was_sent_to_when_signals_came_is_told_how_to_delete_it(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        """The store never answers: it ends because the run that waits for it is told to, twice."""
        goes_on = threading.Event()
        server.default = Wait(goes_on)
        with start_ingester(
            "bench", f"--url={server.url}", "--yes", "--json", *SMALL, "--time-limit-s=3600",
            cwd=tmp_path, env={"TMPDIR": str(tmp_path)},
        ) as process:  # fmt: skip
            server.wait_until(lambda: len(server.posts) == 1)
            process.signal(signal.SIGINT)
            process.signal(signal.SIGINT)
            completed = process.wait()
            goes_on.set()
        assert completed.returncode == 130
        data = json.loads(completed.stdout)
        assert data["points"] == []
        assert len(data["studies"]) == 1
        assert data["how_to_delete"] in completed.stderr
        assert data["studies"][0].startswith(f"{data['uid_root']}.")
        assert sorted(os.listdir(tmp_path)) == ["bench.json", "bench.svg"]

    def test_that_stores_nothing_in_time_ends_it(
        self, tmp_path: Path, server: ScriptedServer
    ) -> None:
        server.default = Answer(503)
        completed = run_ingester(
            "bench", f"--url={server.url}", "--yes", "--tier=small", "--size-mb=1",
            "--concurrency=1", "--batch-instances=10", "--time-limit-s=2", cwd=tmp_path, timeout=110,
        )  # fmt: skip
        assert completed.returncode == 1
        assert "nothing was stored in 2 s (small, 1 at a time, 10 a request)" in completed.stderr
        assert "hint: is the store there? If it is slow, give it more time" in completed.stderr
        assert completed.stdout == ""

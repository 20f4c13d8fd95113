"""The benchmark measures honest clients, and a row with a wrong run has no value."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.entries import Entry, Row
from benchmarks.environment import machine
from benchmarks.figures import Start, of_run
from benchmarks.records import line_of, record
from benchmarks.rivals import BARE, BARE_NONE, BARE_PLAIN, Bare, Curl
from benchmarks.rows import Rows
from benchmarks.subjects import PLAIN, PLAIN_RESUMED, SCAN, SLOW_SYNC, Halves, Ingester, Resumed
from benchmarks.table import last_records, table
from benchmarks.turns import WrongStartError, measure, measure_group
from ingester.bench.corpora import Corpus
from ingester.bench.measure import Run
from ingester.bench.processes import send
from tests.support.process import is_alive, start_python
from tests.support.waiting import wait_until

CORPUS = Corpus("tiny", files=6, size=4096, studies=2)
ROOT = Path(__file__).parents[3]

CLIENT = r"""
import http.client, json, os, pathlib, sys, time

mode, verb, files = sys.argv[1:4]
options = dict(zip(sys.argv[4:10:2], sys.argv[5:10:2]))
assert verb == "run" and sys.argv[10] == "--json", sys.argv
unwanted = "INGESTER_MAX_CONCURRENCY", "AWS_PROFILE", "https_proxy", "HTTP_PROXY"
assert not [name for name in unwanted if name in os.environ]
if mode == "sleep":
    time.sleep(600)
host = options["--url"].removeprefix("http://")
connection = http.client.HTTPConnection(host)
paths = sorted(pathlib.Path(files).rglob("*.dcm"))
skips = mode == "skip" or mode == "skip-one-of-many" and len(paths) > 1
for path in paths[: -1 if skips else None]:
    content = path.read_bytes()
    if mode == "corrupt":
        content = content[:-1] + b"?"
    headers = {"Content-Type": "application/dicom"}
    for _ in range(2 if mode == "twice" else 1):
        connection.request("POST", "/studies", content, headers)
        connection.getresponse().read()
if mode == "refused":
    connection.request("POST", "/series", b"")
    connection.getresponse().read()
if mode != "mute":
    outcomes = {"stored": len(paths) - (mode == "failing"), "failed": int(mode == "failing")}
    print(json.dumps({"files": len(paths), "outcomes": outcomes, "retries": 0}))
sys.exit(3 if mode == "fail" else 0)
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "client.py").write_text(CLIENT)
    return tmp_path


def scripted(work: Path, mode: str) -> Entry:
    command = (sys.executable, str(work / "client.py"), mode)
    return Entry(Ingester(mode, tls=False, command=command), CORPUS)


def run(work: Path, mode: str, *, timeout_s: float = 60, verify: bool = False) -> Run:
    return measure(scripted(work, mode), str(work), timeout_s=timeout_s, verify=verify)


def compare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def sweep(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.sweep"),
            *("--scale", "0.0003", "--repeats", "1", "archive", *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


class TestASweep:
    def test_has_a_line_for_each_set_of_options(self) -> None:
        ran = sweep("--readers 1", "")
        lines = ran.stdout.splitlines()
        assert [line.split("  ")[0] for line in lines] == ["--readers 1", "defaults"], ran.stderr
        assert all("instances/s" in line for line in lines)

    def test_refuses_options_that_a_run_refuses(self) -> None:
        ran = sweep("--readers 0")
        assert ran.returncode == 2
        assert "--readers 0 on one file: exit code 2" in ran.stderr


class TestThreads:
    @pytest.mark.skipif(sys.platform != "linux", reason="/proc")
    def test_say_where_the_cpu_goes(self) -> None:
        command = [sys.executable, "-m", "benchmarks.threads", "--scale", "0.0003"]
        ran = subprocess.run(
            [*command, "archive", "plain", "--", "--readers", "1"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        first, *others, doing = ran.stdout.splitlines()
        assert (ran.returncode, first.split(", ")[1]) == (0, "exit code 0")
        figures = {line.split()[0]: float(line.split()[1]) for line in others}
        assert figures["loop"] > 0
        assert figures["sink"] > 0
        assert doing.startswith("the loop's thread: ")
        assert 95 <= sum(map(int, re.findall(r"(\d+)%", doing))) <= 105


class TestMeasure:
    def test_an_honest_client_has_no_problems(
        self, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("INGESTER_MAX_CONCURRENCY", "AWS_PROFILE", "https_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "1")
        seen = run(work, "honest", verify=True)
        assert seen.problems == []
        assert (seen.exit_code, seen.sink["instances"], seen.sink["requests"]) == (0, 6, 6)
        assert 0 < seen.cpu_s < seen.wall_s * 4
        assert seen.peak_rss_mib > 5  # no upper bound: the kernel counts from the fork of this test
        assert [path.name for path in work.glob("run-*")] == []

    @pytest.mark.parametrize(
        ("mode", "problem"),
        [
            ("skip", "instances the sink knows: 5, not 6"),
            ("twice", "instances the sink was sent: 12, not 6"),
            ("refused", "requests the sink refused: 1, not 0"),
            ("failing", "outcomes of the client: {'stored': 5, 'failed': 1}, not {'stored': 6}"),
            ("fail", "exit code 3"),
            ("mute", "no summary on stdout"),
        ],
    )
    def test_a_client_that_is_wrong_has_a_problem(
        self, work: Path, mode: str, problem: str
    ) -> None:
        assert problem in run(work, mode).problems

    def test_verify_finds_what_did_not_arrive_byte_for_byte(self, work: Path) -> None:
        problems = run(work, "corrupt", verify=True).problems
        assert problems == ["instances that did not arrive byte for byte: 6"]

    @pytest.mark.parametrize("verify", [False, True])
    def test_a_scan_alone_reads_everything_and_sends_nothing(
        self, work: Path, verify: bool
    ) -> None:
        """Of what nobody sends no byte is missing."""
        seen = measure(Entry(SCAN, CORPUS), str(work), timeout_s=60, verify=verify)
        assert seen.problems == []
        assert (seen.summary, seen.sink["requests"]) == ({"instances": 6}, 0)
        assert of_run(seen, Start(0, 0), None)["instances_per_s"] == 6 / seen.wall_s

    def test_a_run_that_is_resumed_has_nothing_left_to_send(self, work: Path) -> None:
        seen = measure(Entry(PLAIN_RESUMED, CORPUS), str(work), timeout_s=60)
        assert seen.problems == []
        assert (seen.summary["run_id"], seen.summary["requests"]) == (2, 0)

    def test_a_first_run_that_fails_is_a_problem_of_the_second(self, work: Path) -> None:
        command = (sys.executable, str(work / "client.py"), "fail")
        failing = Resumed(Ingester("fail", tls=False, command=command))
        problems = measure(Entry(failing, CORPUS), str(work), timeout_s=60).problems
        assert "exit code 3 of the first run" in problems

    def test_two_runs_of_one_half_each_send_everything(self, work: Path) -> None:
        seen = measure(Entry(Halves(PLAIN), CORPUS), str(work), timeout_s=60, verify=True)
        assert seen.problems == []
        assert (seen.summary["files"], seen.summary["outcomes"]["stored"]) == (6, 6)

    def test_a_half_that_fails_is_a_problem(self, work: Path) -> None:
        command = (sys.executable, str(work / "client.py"), "fail")
        halves = Halves(Ingester("fail", tls=False, command=command))
        problems = measure(Entry(halves, CORPUS), str(work), timeout_s=60).problems
        assert "exit code 3" in problems

    def test_a_client_that_hangs_is_killed(self, work: Path) -> None:
        seen = run(work, "sleep", timeout_s=0.5)
        assert seen.wall_s < 60
        assert seen.problems[0] == "exit code -9, out of time"

    @pytest.mark.skipif(sys.platform != "linux", reason="prctl")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_clients_that_run_at_once_end_with_what_started_them(
        self, work: Path, number: signal.Signals
    ) -> None:
        program = "import os, pathlib, sys, time; "
        program += "pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(600)"
        pids = work / "pids"
        pids.mkdir()
        command = json.dumps([sys.executable, "-c", program, str(pids)])
        at_once = ("-m", "benchmarks.at_once", command, command)
        with start_python(*at_once, cwd=ROOT) as process:
            try:
                wait_until(lambda: len(list(pids.iterdir())) == 2, process)
                process.signal(number)
                assert process.wait().returncode == -number
                wait_until(lambda: not any(is_alive(int(each.name)) for each in pids.iterdir()))
            finally:
                for each in pids.iterdir():
                    send(int(each.name), signal.SIGKILL)


class TestCurl:
    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
    def test_sends_every_body_so_many_times(self, work: Path, tls: bool) -> None:
        subject = Curl("curl", tls, max_instances=2, rounds=3)
        seen = measure(Entry(subject, CORPUS), str(work), timeout_s=60, verify=True)
        assert seen.problems == []
        assert (seen.sink["requests"], seen.sink["instances"]) == (4 * 3, 6 * 3)
        assert (seen.files, seen.content_bytes) == (18, 18 * 4096)
        assert seen.summary == {"answers": {"200": 12}}

    def test_has_a_problem_where_one_body_was_refused(self, work: Path) -> None:
        entry = Entry(Curl("curl", tls=False), CORPUS, max_rps=0.001)
        seen = measure(entry, str(work), timeout_s=60)
        assert "answers of the client: {'200': 1, '503': 1}, not {'200': 2}" in seen.problems


class TestTheBareSender:
    @pytest.mark.parametrize(
        "corpus",
        [
            Corpus("files-together", files=90, size=50_000, studies=2),
            Corpus("more-than-its-buffers", files=50, size=700_000, studies=1),
            Corpus("larger-than-a-body", files=2, size=40_000_000, studies=2),
        ],
        ids=lambda corpus: corpus.name,
    )
    @pytest.mark.parametrize("sender", [BARE, BARE_NONE, BARE_PLAIN], ids=lambda one: one.name)
    def test_sends_every_byte(self, work: Path, sender: Bare, corpus: Corpus) -> None:
        found = measure(Entry(sender, corpus), str(work), timeout_s=60, verify=True)
        assert (found.problems, found.summary["files"]) == ([], corpus.files)

    def test_ends_where_a_body_is_refused(self, work: Path) -> None:
        found = measure(Entry(BARE_PLAIN, CORPUS, max_rps=0.001), str(work), timeout_s=60)
        assert found.exit_code == 1
        assert "exit code 1" in found.problems


class TestSlowSync:
    def test_delays_the_journal(self, work: Path) -> None:
        entry = Entry(replace(SLOW_SYNC, slow_sync_ms=1), CORPUS)
        assert measure(entry, str(work), timeout_s=100).problems == []

    def test_is_a_problem_where_nothing_was_delayed(self, work: Path) -> None:
        honest = scripted(work, "honest")
        assert isinstance(honest.subject, Ingester)
        entry = replace(honest, subject=replace(honest.subject, slow_sync_ms=1))
        assert measure(entry, str(work), timeout_s=60).problems == ["no fsync was slow"]


class TestARow:
    def row(self, work: Path, mode: str) -> dict[str, Any]:
        row = Row("a row", "group", "says", "mb_per_s", scripted(work, mode), None, 0.1)
        row = replace(row, rival=Entry(Curl("curl", tls=False), CORPUS))
        assert row.rival is not None
        entries = [row.subject, row.rival]
        runs, starts = measure_group(entries, str(work), repeats=2, timeout_s=60)
        return record(row, runs, starts, machine())

    def test_of_honest_clients_has_a_ratio(self, work: Path) -> None:
        made = self.row(work, "honest")
        subject, rival = made["subject"]["figures"], made["rival"]["figures"]
        ratio = subject["mb_per_s"]["median"] / rival["mb_per_s"]["median"]
        assert made["value"]["median"] == pytest.approx(ratio, rel=1e-3)
        best = subject["mb_per_s"]["best"] / rival["mb_per_s"]["best"]
        assert made["value"]["best"] == pytest.approx(best, rel=1e-3)
        assert made["reached"] == (made["value"]["median"] >= 0.1)
        assert len(made["subject"]["runs"]) == len(made["rival"]["runs"]) == 2
        shares = [side["start_share"]["median"] for side in (subject, rival)]
        assert made["start_share"] == pytest.approx(max(shares), rel=1e-2)
        assert "median" in line_of(made)
        assert "too small a scale" in line_of({**made, "start_share": 0.051})
        assert "too small a scale" not in line_of({**made, "start_share": 0.05})

    def test_of_a_subject_that_skips_a_file_has_none(self, work: Path) -> None:
        made = self.row(work, "skip-one-of-many")
        assert (made["value"], made["reached"]) == (None, None)
        assert made["subject"]["figures"] == {}
        assert made["rival"]["figures"]
        assert "instances the sink knows: 5, not 6" in line_of(made)
        assert "median" not in line_of(made)

    def test_of_a_subject_that_is_wrong_on_one_file_is_not_measured(self, work: Path) -> None:
        with pytest.raises(WrongStartError, match="skip on one file"):
            self.row(work, "skip")


@pytest.mark.timeout(400)
class TestTheCommand:
    def test_runs_rows_with_ingester_and_curl_and_makes_the_table(self, tmp_path: Path) -> None:
        """TLS, signed and plain, on a corpus of a few MB."""
        kept = tmp_path / "results" / "compare.jsonl"
        rows = ("ct-tls-literal", "ct-plain-none", "ct-rss")
        done = compare(
            *(word for row in rows for word in ("--row", row)),
            *("--scale", "0.004", "--repeats", "1", "--work", str(tmp_path / "work")),
            *("--record", str(kept), "--json"),
        )
        assert done.returncode == 0, done.stderr
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        assert tuple(made["row"] for made in printed) == rows
        signed, plain, rss = printed
        for made in (signed, plain):
            assert made["value"]["median"] > 0
            assert made["subject"]["corpus"]["bytes"] == 8 * 525_312
            assert made["subject"]["runs"][0]["client"]["retries"] == 0
            assert made["rival"]["runs"][0]["sink"]["instances"] == 8
            assert set(made["rivals"]) == {"curl"}
        assert signed["subject"]["sink_options"]["tls"]
        assert not plain["subject"]["sink_options"]["tls"]
        assert plain["reached"] is None
        assert rss["rival"] is None
        assert rss["reached"] == (rss["value"]["worst"] <= 256)
        lines = list(table(last_records(str(kept))))
        measured = [line for line in lines if "not measured" not in line]
        assert [line.split(" | ")[0] for line in measured[2:5]] == [f"| `{row}`" for row in rows]
        assert f"{signed['value']['median']:.3g}" in measured[2]
        assert len(lines) == 2 + len(Rows().all()) + 2

    def test_goes_on_after_a_group_that_cannot_be_measured(self, tmp_path: Path) -> None:
        done = compare(
            *("--row", "huge-rss", "--row", "million-rss", "--client-args=--no-such-option"),
            *("--scale", "0.0001", "--repeats", "1", "--work", str(tmp_path)),
        )
        assert done.returncode == 1
        assert "huge-rss: tls on one file: exit code 2" in done.stderr
        assert "million-rss: tls on one file: exit code 2" in done.stderr
        assert done.stdout == ""

    def test_gives_a_run_its_options_also_where_it_is_inside_another_subject(
        self, tmp_path: Path
    ) -> None:
        done = compare(
            *("--row", "small-halves", "--row", "million-resumed"),
            *("--client-args=--no-such-option", "--scale", "0.0001", "--repeats", "1"),
            *("--work", str(tmp_path)),
        )
        assert done.returncode == 1
        assert "small-halves: tls-literal-halves on one file: exit code 2" in done.stderr
        assert "million-resumed: plain-resumed on one file: exit code 2" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ["--row", "ct-plain", "--row", "ct-bare", "--row", "scan", "--client-args=-x"],
                "--client-args is for `ingester run`, which is not in ct-bare, scan",
            ),
            (["--repeats", "0"], "--repeats is from"),
            (["--scale", "0"], "--scale is above 0"),
            (["--row", "nonsense"], "invalid choice"),
            (["--record", "--verify"], "rows as they are"),
            (["--row", "ct-dicomweb-client"], "need --dicomweb-client-python PATH"),
            (
                ["--row", "ct-dicomweb-client", "--dicomweb-client-python", sys.executable],
                f"none at {sys.executable}",
            ),
        ],
    )
    def test_refuses_what_it_cannot_do(self, arguments: list[str], words: str) -> None:
        done = compare(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stdout == ""


class TestFigures:
    RUN = Run(
        wall_s=10.0,
        cpu_s=6.0,
        files=1000,
        content_bytes=2_000_000_000,
        sink={
            "requests": 190,
            "cpu_s": 2.0,
            "span_s": 9.0,
            "bytes": 980,
            "wasted_bytes": 20,
        },
    )

    def test_deduct_the_start_from_the_cpu_of_a_file_only(self) -> None:
        figures = of_run(self.RUN, Start(wall_s=0.5, cpu_s=1.0), None)
        assert figures["cpu_us_per_file"] == 5000
        assert figures["cpu_s_per_gb"] == 3
        assert (figures["mb_per_s"], figures["instances_per_s"]) == (200, 100)
        assert figures["start_share"] == 0.05
        assert figures["sink_cpu_share"] == 0.25

    def test_compare_the_requests_taken_with_a_bucket_of_one_second(self) -> None:
        figures = of_run(self.RUN, Start(0, 0), 20)
        assert figures["allowance_used"] == 190 / (20 + 9 * 20)
        assert figures["wasted_share"] == 0.02


class TestRecord:
    def test_names_the_machine_and_the_versions_but_no_host(self) -> None:
        seen = machine()
        assert {"commit", "dirty", "cpu", "cores", "python", "libraries"} < set(seen)
        assert {"aiohttp", "uvloop"} <= set(seen["libraries"])
        assert os.uname().nodename not in json.dumps(seen)

    def test_judges_a_row_without_a_rival_by_its_worst_run(self) -> None:
        entry = Entry(PLAIN, CORPUS)
        row = Row("a", "a", "", "peak_rss_mib", entry, None, 256, at_most=True)
        sink = {"requests": 1, "cpu_s": 1.0, "bytes": 1, "wasted_bytes": 0}
        runs = [
            Run(wall_s=1, files=1, content_bytes=1, peak_rss_mib=rss, sink=sink)
            for rss in (90, 100, 257)
        ]
        made = record(row, {entry: runs}, {entry: Start(1, 1)}, {})
        assert made["value"] == {"median": 100, "best": 90, "worst": 257}
        assert made["reached"] is False

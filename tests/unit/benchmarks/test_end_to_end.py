"""The end-to-end benchmark measures honest clients and refuses the figures of others."""

import sys
from pathlib import Path

import pytest

from benchmarks.corpora import Corpus, make
from benchmarks.end_to_end import figures, machine, main, measure, table
from benchmarks.measure import Run

CORPUS = Corpus("tiny", files=6, size=4096, studies=2)

CLIENT = r"""
import http.client, json, os, pathlib, sys, time

mode, verb, files = sys.argv[1:4]
options = dict(zip(sys.argv[4:10:2], sys.argv[5:10:2]))
assert verb == "run" and sys.argv[10] == "--json", sys.argv
assert not [name for name in os.environ if name.startswith("INGESTER_")]
if mode == "sleep":
    time.sleep(600)
host = options["--url"].removeprefix("http://")
connection = http.client.HTTPConnection(host)
paths = sorted(pathlib.Path(files).rglob("*.dcm"))
for path in paths[: -1 if mode == "skip" else None]:
    content = path.read_bytes()
    if mode == "corrupt":
        content = content[:-1] + b"?"
    headers = {"Content-Type": "application/dicom"}
    for _ in range(2 if mode == "twice" else 1):
        connection.request("POST", "/studies", content, headers)
        connection.getresponse().read()
if mode != "mute":
    outcomes = {"stored": len(paths), "failed": 0}
    print(json.dumps({"files": len(paths), "outcomes": outcomes, "retries": 0}))
sys.exit(3 if mode == "fail" else 0)
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "client.py").write_text(CLIENT)
    return tmp_path


def run(work: Path, mode: str, *, timeout_s: float = 60, verify: bool = False) -> Run:
    return measure(
        CORPUS,
        make(CORPUS, str(work)),
        work=str(work),
        client=(sys.executable, str(work / "client.py"), mode),
        timeout_s=timeout_s,
        verify=verify,
    )


class TestMeasure:
    def test_an_honest_client_has_figures(
        self, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INGESTER_MAX_CONCURRENCY", "1")
        seen = run(work, "honest", verify=True)
        assert seen.problems == []
        assert (seen.exit_code, seen.sink["instances"], seen.sink["requests"]) == (0, 6, 6)
        assert 0 < seen.cpu_s < seen.wall_s * 4
        assert seen.peak_rss_mib > 5  # no upper bound: the kernel counts from the fork of this test
        values = figures([seen, seen], CORPUS)
        assert values["instances_per_s"]["best"] == pytest.approx(6 / seen.wall_s, rel=1e-3)
        assert values["requests"] == {"best": 6, "median": 6}
        assert [path.name for path in work.glob("run-*")] == []

    @pytest.mark.parametrize(
        ("mode", "problem"),
        [
            ("skip", "instances the sink knows: 5, not 6"),
            ("twice", "instances the sink was sent: 12, not 6"),
            ("fail", "exit code 3"),
            ("mute", "no JSON summary on stdout"),
        ],
    )
    def test_a_client_that_is_wrong_has_a_problem(
        self, work: Path, mode: str, problem: str
    ) -> None:
        assert problem in run(work, mode).problems

    def test_verify_finds_what_did_not_arrive_byte_for_byte(self, work: Path) -> None:
        problems = run(work, "corrupt", verify=True).problems
        assert problems == ["instances that did not arrive byte for byte: 6"]

    def test_a_client_that_hangs_is_killed(self, work: Path) -> None:
        seen = run(work, "sleep", timeout_s=0.5)
        assert seen.wall_s < 60
        assert seen.problems[0] == "exit code -9, out of time"


class TestRecord:
    def test_names_the_machine_and_the_versions_but_no_host(self) -> None:
        seen = machine()
        assert {"commit", "dirty", "cpu", "cores", "python", "libraries"} < set(seen)
        assert {"aiohttp", "uvloop"} <= set(seen["libraries"])

    def test_a_table_shows_no_figures_where_every_run_was_wrong(self) -> None:
        wrong = {"problems": ["exit code 1"]}
        line = {
            "corpus": {"name": "ct", "files": 2, "bytes": 4e6},
            "runs": [wrong],
            "figures": None,
        }
        assert list(table([line]))[1].split() == ["ct", "2", "4", "0/1"]


@pytest.mark.parametrize(
    "arguments",
    [["--repeats", "0"], ["--files", "3"], ["--tier", "ct", "--files", "3", "--size", "4096"]],
)
def test_bad_options_are_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err

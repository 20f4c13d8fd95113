"""One job against a scripted server, broken off at a moment that the server chooses.

A job knows what the archive holds, what the server was sent and what the journal has committed,
and checks one against the other after every run, however that has ended.
"""

import json
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from ingester.dicomweb.outcome import HOLDS_ITS_CLAIM, IN_THE_STORE, Outcome
from ingester.journal import FileRow
from tests.crash.archive import Archive, Key, make_archive
from tests.support.exchange import Exchange
from tests.support.journals import Copied, copy_journal
from tests.support.process import Completed, Process, start_ingester
from tests.support.scripted import ScriptedServer, StoreAll


class Summary(TypedDict):
    """What `run --json` prints, as far as it is looked at here."""

    run_id: int
    files: int
    skipped_directories: int
    outcomes: dict[str, int]
    requests: int
    exit_code: int


class Line(TypedDict):
    """A line of the results file, as far as it is looked at here."""

    run_id: int
    file_id: int
    path: str
    outcome: str
    reason_code: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is done to a run, counted from that run's start."""

    kind: Literal["before_answer", "after_answer", "body"]
    number: int  # of the answer, or of the body byte
    delay_s: float = 0.0

    def arm(self, server: ScriptedServer, act: Callable[[], None]) -> None:
        """Has `act` called in the thread of the connection, which goes on when it returns.

        Later answers wait for it, so that a run does not end while one thread has no processor.
        """
        due = server.answers + self.number
        done = threading.Event()

        def at_answer(number: int) -> None:
            if number == due:
                time.sleep(self.delay_s)
                act()
                done.set()
            elif number > due and self.number:
                done.wait(60)

        def nothing(_number: int) -> None:
            return None

        server.before_answer(at_answer if self.kind == "before_answer" else nothing)
        server.after_answer(at_answer if self.kind == "after_answer" else nothing)
        if self.kind == "body":
            server.at_body_bytes(server.body_bytes + self.number, act)


NEVER = Moment("before_answer", 0)


@dataclass(frozen=True, slots=True)
class Serve:
    """Takes its time, then stores what it takes; it stores even when the client has gone."""

    archive: Archive
    pause_s: float

    def play(self, exchange: Exchange) -> None:
        """Reads, stores, answers."""
        exchange.read_body(keep_all=True)
        time.sleep(self.pause_s)
        poison = {uid for uid in self.archive.poison if uid.encode() in exchange.request.body}
        StoreAll(
            status=400 if poison else None,
            only=lambda uid: uid not in poison,
            failures=dict.fromkeys(self.archive.refused, 0xC122),
        ).play(exchange)


@dataclass(slots=True)
class Job:
    """An archive, a journal, a results file and the options of the command."""

    seed: int
    directory: Path
    server: ScriptedServer
    archive: Archive = field(init=False)
    options: dict[str, str] = field(init=False)
    concurrency: int = field(init=False)
    batch: int = field(init=False)
    chance: random.Random = field(init=False)
    safe: set[Key] = field(default_factory=set)  # committed when the last run ended
    looks: Counter[Key] = field(default_factory=Counter)  # see ``stored``
    sent: Counter[Key] = field(default_factory=Counter)  # how often stored until then
    environment: dict[str, str] = field(default_factory=dict)
    killed_posts: int | None = None  # where the requests of the last run begin, if it was killed

    def __post_init__(self) -> None:
        self.chance = chance = random.Random(f"job {self.seed}")
        self.archive = make_archive(self.directory / "archive", self.seed)
        self.concurrency, self.batch = chance.randint(2, 4), chance.randint(5, 20)
        self.options = {
            "--max-concurrency": str(self.concurrency),
            "--max-batch-instances": str(self.batch),
            "--readers": str(chance.randint(1, 4)),
            "--inline-limit": chance.choice(["1", "1500", "1MiB"]),
            "--checksums": chance.choice(["sha256", "none"]),
            "--operation": chance.choice(["StoreDICOM", "StoreDICOMStudy"]),
            "--event-loop": chance.choice(["uvloop", "asyncio"]),
            "--server": chance.choice(["generic", "orthanc"]),
            "--scan-processes": chance.choice(["0", "0", "1"]),
            "--memory-budget": chance.choice(["10000", "96MiB"]),
        }
        self.server.default = Serve(self.archive, chance.choice([0.0, 0.002, 0.01]))

    @property
    def journal(self) -> Path:
        """The same in every run."""
        return self.directory / "journal.db"

    @property
    def results(self) -> Path:
        """The same in every run."""
        return self.directory / "results.jsonl"

    def moment(self, *, certain: bool = False, early: bool = False) -> Moment:
        """The next one that the seed gives.

        Args:
            certain: a request is on the wire then, so the run cannot have ended.
            early: within the first answers, for a run of which nobody knows how many it gets.
        """
        kinds: list[Literal["before_answer", "after_answer", "body"]] = ["before_answer", "body"]
        kind = self.chance.choice(kinds if certain else [*kinds, "after_answer"])
        if kind == "body":
            count = 30_000 if early else self.archive.least_body_bytes()
            return Moment(kind, self.chance.randint(1, count))
        count = 3 if early else self.archive.least_requests(self.batch)
        delay_s = self.chance.choice([0.0, 0.0, self.chance.uniform(0, 0.008)])
        return Moment(kind, self.chance.randint(1, count), delay_s)

    def start(self) -> Process:
        """Starts the command."""
        return start_ingester(
            "run",
            self.archive.root,
            f"--url={self.server.url}",
            f"--journal={self.journal}",
            f"--results={self.results}",
            "--json",
            *(f"{name}={value}" for name, value in self.options.items()),
            env=self.environment,
        )

    def run(self, moment: Moment, act: Callable[[Process], None]) -> Completed:
        """Runs to the end; at the moment something is done to the process."""
        posts = len(self.server.posts)
        started: Future[Process] = Future()  # the moment may come before `start` returns
        moment.arm(self.server, lambda: act(started.result(60)))
        with self.start() as process:
            started.set_result(process)
            ended = process.wait()
        self.ended(ended, posts)
        return ended

    def ended(self, ended: Completed, posts: int) -> None:
        """A run has ended, before which there were so many requests."""
        self.server.settle()
        self.killed_posts = posts if ended.returncode == -signal.SIGKILL else None

    def kill_at(self, moment: Moment) -> bool:
        """Runs until SIGKILL at the moment; False when the run had ended by then."""
        ended = self.run(moment, Process.kill)
        self.check()
        assert ended.returncode in {-signal.SIGKILL, 3}, ended
        return ended.returncode == -signal.SIGKILL

    def signal_at(self, moment: Moment, number: signal.Signals) -> Completed:
        """Runs until a signal at the moment has ended it."""
        return self.run(moment, lambda process: process.signal(number))

    def finish(self) -> Summary:
        """Runs to the end, and checks that nothing is missing anywhere."""
        ended = self.run(NEVER, lambda _: None)
        self.check()
        assert ended.returncode == 3, ended.stderr  # the archive has what cannot be stored
        summary: Summary = json.loads(ended.stdout)
        assert summary["exit_code"] == 3
        self.check_complete(summary)
        return summary

    def rows(self) -> list[FileRow]:
        """What the journal has committed, from a copy: the next run finds it as it was left."""
        copied = self._copy()
        return [] if copied is None else copied.rows()

    def recovered(self) -> list[FileRow]:
        """What the next run will find: what a killed one had announced is in doubt."""
        copied = self._copy()
        return [] if copied is None else copied.recovered()

    def _copy(self) -> Copied | None:
        return copy_journal(self.journal, self.directory / "copy")

    def lines(self) -> list[Line]:
        """All results lines so far, of all runs; a kill may have torn the last one."""
        if not self.results.exists():
            return []
        whole, _, _ = self.results.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def stored(self) -> dict[Key, list[str]]:
        """The digests of what the server has stored, in the order of storing.

        Without what the program says that it sends again: where nothing but refusals came at the
        end, one stored file, to see whether the setting is still right.
        """
        found = stored_by(self.server)
        for key, count in self.looks.items():
            del found[key][-count:]
        return found

    def check(self) -> None:
        """What must hold whenever a run has ended, and however it has."""
        rows, stored = self.rows(), self.stored()
        self._check_claims(rows, stored)
        self._check_lines(rows)
        self._check_announced(stored)
        times = Counter({key: len(digests) for key, digests in stored.items()})
        allowed = {key: self.sent[key] + (key not in self.safe) for key in times}
        again = {key: times[key] - allowed[key] for key in times if times[key] > allowed[key]}
        # Six refusals in a row and the end of the input: one file, twice.
        assert len(again) <= 1, f"stored twice in one run, or committed and sent again: {again}"
        assert all(count <= 2 for count in again.values()), again
        self.looks.update(again)
        times.subtract(again)
        self.safe = {key_of(row) for row in rows if row.outcome in IN_THE_STORE}
        self.sent = times

    def in_flight(self) -> set[Key]:
        """What the server has stored and the journal does not know, as of the last check."""
        return set(self.sent) - self.safe

    def _check_claims(self, rows: list[FileRow], stored: dict[Key, list[str]]) -> None:
        assert len({row.path for row in rows}) == len(rows)
        claimed = [row for row in rows if row.outcome in IN_THE_STORE]
        assert len({key_of(row) for row in claimed}) == len(claimed), "two files, one claim"
        for row in claimed:
            assert key_of(row) in stored, f"claimed, but the server does not have it: {row}"
            file = self.archive.files.get(Path(row.path.decode()))
            if file is not None:
                assert file.sha256 in stored[key_of(row)], f"other bytes: {row}"

    def _check_announced(self, stored: dict[Key, list[str]]) -> None:
        """Whatever the server may have bytes of, the journal speaks of, however a run has ended."""
        rows, files = defaultdict(list), self.archive.files
        for row in self.recovered():
            rows[key_of(row)].append(row)
        for key, digests in stored.items():
            known = [row for row in rows[key] if row.outcome in HOLDS_ITS_CLAIM]
            assert known, f"forgotten: {key}"
            paths = [Path(row.path.decode()) for row in known]
            if all(path in files for path in paths):  # none was renamed meanwhile
                assert set(digests) <= {files[path].sha256 for path in paths}, key
        if self.killed_posts is not None:
            keys = {file.key for file in files.values() if file.kind == "instance"}
            for post in self.server.posts[self.killed_posts :]:
                for key in keys:
                    if all(uid.encode() in post.body for uid in key):
                        outcomes = {row.outcome for row in rows[key]}
                        assert outcomes - {Outcome.PENDING}, f"sent, and not announced: {key}"

    def _check_lines(self, rows: list[FileRow]) -> None:
        by_id = {row.file_id: row for row in rows}
        lines = self.lines()
        assert len({(line["run_id"], line["file_id"]) for line in lines}) == len(lines)
        for line in lines:
            row = by_id.get(line["file_id"])
            assert row is not None, f"a line without a committed row: {line}"
            if row.decided_run_id == line["run_id"]:
                assert line["outcome"] == row.outcome, (line, row)
                assert line["sop_instance_uid"] == row.sop_instance_uid, (line, row)

    def check_complete(self, summary: Summary, *, lost_answers: bool = False) -> None:
        """Every file has its one right outcome, and the server has all that it takes.

        Of a file that it refuses, and that may have been in a body without an answer, nobody can
        be certain. (It need not be in the bytes that the server has of that body.)
        """
        files, rows, stored = self.archive.files, self.rows(), self.stored()
        assert summary["files"] == sum(summary["outcomes"].values()) == len(files)
        by_path = {Path(row.path.decode()): row for row in rows if row.seen_run_id}
        met = {p: row for p, row in by_path.items() if row.seen_run_id == summary["run_id"]}
        assert met.keys() == files.keys()
        counts = Counter(row.outcome.value for row in met.values())
        assert counts == Counter({k: n for k, n in summary["outcomes"].items() if n})
        storable = self.archive.storable
        assert stored.keys() == storable.keys()
        for key, digests in stored.items():
            assert set(digests) <= storable[key], key
        self._check_outcomes(met, {"rejected", "in_doubt"} if lost_answers else {"rejected"})
        decided = {row.file_id for row in rows if row.decided_run_id == summary["run_id"]}
        lines = [line for line in self.lines() if line["run_id"] == summary["run_id"]]
        told = {line["file_id"] for line in lines if line["reason_code"] != "moved"}
        assert told == decided

    def _check_outcomes(self, met: dict[Path, FileRow], refused: set[str]) -> None:
        groups: dict[Key, list[Path]] = defaultdict(list)
        for path, file in self.archive.files.items():
            if file.kind == "instance":
                groups[file.key].append(path)
            else:
                expected = Outcome.INVALID if file.kind == "cut" else Outcome.NOT_DICOM
                assert met[path].outcome is expected, met[path]
        for key, paths in groups.items():
            if key in self.archive.storable:
                self._check_group(paths, met)
            else:
                here = [met[path] for path in paths]
                assert {how_refused(row) for row in here} <= refused, here

    def _check_group(self, paths: list[Path], met: dict[Path, FileRow]) -> None:
        holders = [path for path in paths if met[path].outcome in IN_THE_STORE]
        assert len(holders) == 1, [met[path] for path in paths]
        holder = holders[0]
        assert met[holder].outcome is Outcome.STORED
        assert met[holder].evidence == "manifest"
        for path in paths:
            if path != holder:
                file, row = self.archive.files[path], met[path]
                same = file.data_set == self.archive.files[holder].data_set
                assert row.outcome is (Outcome.DUPLICATE if same else Outcome.CONFLICT), row
                assert row.reason_code == ("same_data_set" if same else "other_data_set"), row
                assert row.other_file_id == met[holder].file_id


def key_of(row: FileRow) -> Key:
    """Study and SOP Instance UID of a row."""
    return row.study_instance_uid, row.sop_instance_uid


def stored_by(server: ScriptedServer) -> dict[Key, list[str]]:
    """Like `server.stored`, by study too."""
    found: dict[Key, list[str]] = defaultdict(list)
    with server.ledger.changed:
        for item in server.ledger.stored:
            found[item.study, item.sop].append(item.sha256)
    return dict(found)


def how_refused(row: FileRow) -> str:
    """The end of a refused file. Where nothing else was left to succeed in a run, it is open."""
    open_end = row.reason_code == "refused_without_any_success"
    return "rejected" if open_end else row.outcome.value

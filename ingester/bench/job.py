"""The whole benchmark: what a start costs, what files cost, then one point after the other.

Takes: a plan and a target.
Gives: a `Bench` that fills while it goes, so that an interrupted one has what it measured.
Bounds: a corpus of the plan's bytes in a temporary directory, which is removed in any case; after
the time limit nothing begins, no point and no tier; each point has its share of what is left of it,
`POINT_S` at least.
Ends: with the last point, with the first run that is wrong, or with a signal.
"""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ingester.bench.apart import Apart, measure_apart
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import write_files
from ingester.bench.environment import busy_share, cpu_times, machine
from ingester.bench.measure import Run
from ingester.bench.plan import LeftOut, Plan, Point, corpus_of
from ingester.bench.points import Measured, Place, Target, ToSink, stored_of
from ingester.bench.processes import Children
from ingester.bench.sink_process import SinkError
from ingester.bench.verdict import Evidence, Verdict, verdict_of
from ingester.errors import FatalError

POINT_S: Final = 5.0
_SPARE_BYTES: Final = 64_000_000  # for journals, results and what else uses the disk
_START: Final = Point("small", 1, 1)
_STARTS: Final = 2  # the first warms up
_START_LIMIT_S: Final = 120.0
_FIRST_ARC: Final = 100  # below the UID root; a point has the one with its number added
_SEEDS: Final = 1_000_000


def new_uid_root() -> str:
    """A UUID-derived UID (PS3.5 B.2) of 44 characters that nobody has had before."""
    while True:
        number = str(uuid.uuid4().int)
        if len(number) == 39:
            return f"2.25.{number}"


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be measured."""

    plan: Plan
    time_limit_s: float
    target: Target
    sink: ToSink  # to measure this machine with; the target itself where there is no store
    uid_root: str = field(default_factory=new_uid_root)

    @property
    def to_store(self) -> bool:
        """Whether what is sent stays somewhere."""
        return self.target is not self.sink

    def corpus_of(self, point: Point) -> Corpus:
        """The files of a point. To a store no point sends what another has sent."""
        points = self.plan.points
        number = points.index(point) + 1
        if not self.to_store:
            same = (point.tier, point.batch_instances)
            number = 1 + next(
                n for n, other in enumerate(points) if (other.tier, other.batch_instances) == same
            )
        return corpus_of(
            point,
            self.plan.point_bytes,
            seed=(int(self.uid_root[-6:]) + number) % _SEEDS,
            uid_root=f"{self.uid_root}.{_FIRST_ARC + number}",
        )


@dataclass(slots=True)
class Bench:
    """What was measured, as far as it went."""

    machine: dict[str, Any] = field(default_factory=machine)
    start: Run | None = None
    apart: dict[str, Apart] = field(default_factory=dict)  # by tier
    alone: dict[str, Measured] = field(default_factory=dict)  # by tier: to the sink, for a store
    points: list[Measured] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)  # Study Instance UIDs that a store was sent

    def best(self, tier: str) -> Measured | None:
        """The fastest point of a tier."""
        points = [one for one in self.points if one.point.tier == tier]
        return max(points, key=lambda one: one.rate.mb_per_s, default=None)

    def verdict(self, tier: str, latency_ms: float) -> Verdict | None:
        """What holds a load of this tier up."""
        best, apart = self.best(tier), self.apart.get(tier)
        if best is None or apart is None:
            return None
        alone = self.alone.get(tier)
        return verdict_of(
            Evidence(
                sent=best.rate,
                own=best.run.summary["bottleneck"],
                cores=self.machine["cores"],
                client_cores=best.client_cores,
                sink_cores=best.sink_cores,
                scanned_per_s=apart.scanned_per_s,
                read=apart.read,
                read_cold=apart.read_cold,
                alone=None if alone is None else alone.rate,
                busy=best.busy,
                latency_ms=latency_ms,
            )
        )


def run_bench(
    options: Options, bench: Bench, children: Children, tell: Callable[[str], None]
) -> None:
    """Do it all; `tell` gets a line a step.

    Raises:
        StoppedError: a signal came; every process has ended.
        FatalError: the disk is full, the sink does not start, or a run went wrong.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="ingester-bench-") as work:
            _Runner(options, bench, children, tell, work).run()
    except SinkError as error:
        raise FatalError(f"{error}: the server to measure this machine with") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise FatalError(f"the corpus cannot be written or read ({reason})") from error


class _Runner:
    """The steps, and the corpus that lies there now."""

    def __init__(
        self,
        options: Options,
        bench: Bench,
        children: Children,
        tell: Callable[[str], None],
        work: str,
    ) -> None:
        self._options = options
        self._bench = bench
        self._children = children
        self._tell = tell
        self._work = work
        self._least_s = min(POINT_S, options.time_limit_s)
        self._files = os.path.join(work, "corpus")
        self._written: Corpus | None = None
        self._deadline = 0.0  # set when the first point begins

    def run(self) -> None:
        points = self._options.plan.points
        self._bench.left_out += self._options.plan.left_out
        _check_room(self._work, self._options.plan.point_bytes)
        self._measure_start()
        for number, point in enumerate(points, 1):
            over = 0 < self._deadline <= time.monotonic()
            if not over and point.tier not in self._bench.apart:
                self._measure_machine(point)
            now = time.monotonic()
            self._deadline = self._deadline or now + self._options.time_limit_s
            left_s = self._deadline - now
            if left_s <= 0:
                self._bench.left_out.append(LeftOut(point, "the time was over, --time-limit-s"))
                continue
            corpus = self._write(self._options.corpus_of(point))
            if self._options.to_store:
                self._bench.studies += map(corpus.study_instance_uid, range(corpus.studies))
            share_s = max(self._least_s, left_s / (len(points) - number + 1))
            measured = self._measure(self._options.target, point, corpus, share_s)
            self._tell(
                f"{number}/{len(points)} {point.name}: {self._keep(point, measured, share_s)}"
            )

    def _keep(self, point: Point, measured: Measured | None, share_s: float) -> str:
        """What is said of it. Raises FatalError where not even the first stored anything."""
        if measured is not None:
            self._bench.points.append(measured)
            return str(measured.rate)
        reason = f"nothing was stored in {share_s:.0f} s"
        if not self._bench.points:
            hint = "is the store there? If it is slow, give it more time with --time-limit-s"
            raise FatalError(f"{reason} ({point.name})", hint)
        self._bench.left_out.append(LeftOut(point, reason))
        return reason

    def _measure_start(self) -> None:
        self._tell("measuring what a start costs")
        root = f"{self._options.uid_root}.{_FIRST_ARC}"
        corpus = Corpus("start", files=1, size=32_768, studies=1, uid_root=root)
        self._write(corpus)
        for _ in range(_STARTS):
            with self._place(corpus, _START_LIMIT_S) as place:
                run = self._options.sink.run(_START, place, self._children)
            if run.problems or run.asked_to_end:
                raise _wrong(_START, run)
            self._bench.start = run

    def _measure_machine(self, point: Point) -> None:
        """What files of this tier cost here; of a store also how fast this machine sends them."""
        self._tell(f"measuring this machine alone, {point.tier}")
        same = [one for one in self._options.plan.points if one.tier == point.tier]
        point = max(same, key=lambda one: (one.batch_instances, one.concurrency))
        corpus = self._write(self._options.corpus_of(point))
        paths = list(corpus.paths(self._files))
        self._bench.apart[point.tier] = measure_apart(paths, corpus.size, self._children)
        if self._options.to_store:
            share_s = max(POINT_S, self._options.time_limit_s / 4)
            alone = self._measure(self._options.sink, point, corpus, share_s)
            if alone is not None:
                self._bench.alone[point.tier] = alone

    def _measure(
        self, target: Target, point: Point, corpus: Corpus, share_s: float
    ) -> Measured | None:
        """None when nothing was stored in its time."""
        assert self._bench.start is not None  # noqa: S101 - measured first
        before = cpu_times()
        with self._place(corpus, share_s) as place:
            run = target.run(point, place, self._children)
        busy = busy_share(before, cpu_times())
        stored = stored_of(run)
        if run.asked_to_end and not stored:
            return None
        if run.problems:
            raise _wrong(point, run)
        start_cpu_s = self._bench.start.cpu_s
        in_time = not run.asked_to_end
        return Measured(point, corpus.files, stored, in_time, busy, start_cpu_s, run)

    @contextmanager
    def _place(self, corpus: Corpus, ask_after_s: float) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._work) as directory:
            yield Place(corpus, self._files, directory, ask_after_s)

    def _write(self, corpus: Corpus) -> Corpus:
        """Have the files of this corpus lie there, and no others."""
        if corpus != self._written:
            self._written = None
            shutil.rmtree(self._files, ignore_errors=True)
            write_files(corpus, self._files, self._children.check)
            self._written = corpus
        return corpus


def _check_room(directory: str, corpus_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    needed = corpus_bytes + _SPARE_BYTES
    if free < needed:
        raise FatalError(
            f"the corpus needs {needed / 1e6:,.0f} MB, and the temporary directory has "
            f"{free / 1e6:,.0f} MB left",
            "name another one with TMPDIR, or lower --size-mb",
        )


def _wrong(point: Point, run: Run) -> FatalError:
    """A run that does not count, in its own words where it has any."""
    said = [line for line in run.last_words if line.startswith("ingester: ")]
    hints = [line for line in run.last_words if line.startswith("  hint: ")]
    why = said[-1].removeprefix("ingester: ").strip() if said else "; ".join(run.problems)
    hint = hints[-1].removeprefix("  hint: ").strip() if said and hints else ""
    return FatalError(f"a run went wrong ({point.name}): {why}", hint)

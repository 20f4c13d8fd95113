"""One point measured: `ingester run` in a fresh process, and what it says of itself.

Takes: a point, its files, and where they are sent: to a sink in another process, or to a store.
Gives: a `Measured`; a run is right only when every file was stored, or it was asked to end in time.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ingester.bench.corpora import Corpus
from ingester.bench.environment import environment
from ingester.bench.measure import Job, Run, check, run_client
from ingester.bench.plan import Point
from ingester.bench.processes import PYTHON, Children, same_package
from ingester.bench.sink_process import DATASTORE, KEYS, SinkOptions, running_sink
from ingester.bench.verdict import Rate
from ingester.dicomweb.outcome import IN_THE_STORE

_GRACE_S: Final = 60.0  # after it was asked to end it is killed
_DRAIN_TIMEOUT_S: Final = "5"
_ABOVE_START: Final = 0.2  # starts differ by a tenth among themselves


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of a point are, and its time."""

    corpus: Corpus
    files: str
    directory: str  # of journal and results, empty
    ask_after_s: float  # when the run is asked to end


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a point. Rates are the run's own, which begins after its imports."""

    point: Point
    files: int
    stored: int
    in_time: bool  # False: it was asked to end, and its rates are of what it had stored
    busy: float | None  # share of all cores that anybody used meanwhile; None: not known
    start_cpu_s: float  # what a run costs before it has anything to do
    run: Run

    @property
    def rate(self) -> Rate:
        """Of what was stored."""
        summary = self.run.summary
        return Rate(summary["instances_per_s"], summary["mb_per_s"])

    @property
    def elapsed_s(self) -> float:
        """From the end of its imports to its last commit."""
        return float(self.run.summary["elapsed_s"])

    @property
    def cpu_s(self) -> float | None:
        """CPU seconds without the start's; None: it was too short to tell them apart."""
        cpu_s = self.run.cpu_s - self.start_cpu_s
        return cpu_s if cpu_s >= _ABOVE_START * self.start_cpu_s else None

    @property
    def client_cores(self) -> float | None:
        """CPU seconds a second, without the start's; None as with them."""
        return None if self.cpu_s is None else self.cpu_s / max(self.elapsed_s, 1e-3)

    @property
    def sink_cores(self) -> float | None:
        """The same of the sink; None of a store."""
        return self.run.sink["cpu_s"] / max(self.elapsed_s, 1e-3) if self.run.sink else None

    def to_data(self) -> dict[str, Any]:
        """As `bench.json` has it."""
        run, summary = self.run, self.run.summary
        gb = summary["bytes_stored"] / 1e9
        cpu_s = self.cpu_s
        return {
            "tier": self.point.tier,
            "concurrency": self.point.concurrency,
            "batch_instances": self.point.batch_instances,
            "files": self.files,
            "stored": self.stored,
            "bytes_stored": summary["bytes_stored"],
            "in_time": self.in_time,
            "wall_s": round(run.wall_s, 3),
            "elapsed_s": self.elapsed_s,
            "mb_per_s": summary["mb_per_s"],
            "instances_per_s": summary["instances_per_s"],
            "cpu_s": _rounded(cpu_s),
            "cpu_s_per_gb": _rounded(cpu_s / gb) if cpu_s is not None and gb else None,
            "client_cores": _rounded(self.client_cores),
            "busy": _rounded(self.busy),
            "sink_cores": _rounded(self.sink_cores),
            "peak_rss_mib": summary["peak_rss_mib"],
            "requests": summary["requests"],
            "retries": summary["retries"],
            "bottleneck": summary["bottleneck"],
        }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)


class Target(Protocol):
    """Where files are sent."""

    def run(self, point: Point, place: Place, children: Children) -> Run:
        """Send them; `problems` has whatever is wrong.

        Raises:
            StoppedError: a signal came.
        """


@dataclass(frozen=True, slots=True)
class ToSink:
    """A sink of its own for each run, in another process."""

    tls: bool = True
    payload_signing: str | None = "literal"  # as to a HealthImaging store; None: not signed
    latency_ms: float = 0.0

    def run(self, point: Point, place: Place, children: Children) -> Run:
        """See Target. What the client claims is compared with what the sink has."""
        with running_sink(SinkOptions(self.tls, self.latency_ms)) as sink:
            flags = [f"--url={sink.url}"]
            if self.payload_signing is not None:
                flags = [f"--url={sink.url}/datastore/{DATASTORE}", "--auth=sigv4"]
                flags += ["--region=us-east-1", f"--payload-signing={self.payload_signing}"]
            flags += [] if sink.ca is None else [f"--ca-bundle={sink.ca}"]
            job = _job(point, place, flags, {**environment(), **KEYS})
            run = _run(job, place, children)
        run.sink = sink.totals
        if not run.asked_to_end:
            check(run, job)
        return run


@dataclass(frozen=True, slots=True)
class ToStore:
    """A real store, as the flags and this process's environment say."""

    flags: tuple[str, ...]

    def run(self, point: Point, place: Place, children: Children) -> Run:
        """See Target."""
        return _run(_job(point, place, self.flags, os.environ), place, children)


def stored_of(run: Run) -> int:
    """Instances that are in the store."""
    outcomes = run.summary.get("outcomes", {})
    return sum(outcomes.get(outcome.value, 0) for outcome in IN_THE_STORE)


def _job(point: Point, place: Place, flags: Sequence[str], variables: Mapping[str, str]) -> Job:
    corpus = place.corpus
    return Job(
        command=(
            *(*PYTHON, "ingester", "run", place.files, "--json"),
            f"--journal={os.path.join(place.directory, 'ingester.db')}",
            f"--results={os.path.join(place.directory, 'results.jsonl')}",
            f"--max-concurrency={point.concurrency}",
            f"--max-batch-instances={point.batch_instances}",
            f"--max-batch-bytes={point.batch_bytes}",
            f"--drain-timeout-s={_DRAIN_TIMEOUT_S}",
            *flags,
        ),
        environment={**variables, **same_package()},
        files=corpus.files,
        distinct=corpus.files,
        content_bytes=corpus.bytes,
        claims={"files": corpus.files, "outcomes": {"stored": corpus.files}},
    )


def _run(job: Job, place: Place, children: Children) -> Run:
    run = run_client(
        job,
        place.directory,
        place.ask_after_s + _GRACE_S,
        children=children,
        ask_after_s=place.ask_after_s,
    )
    children.check()
    if run.asked_to_end:
        run.problems.clear()  # what it had stored by then is right
    elif stored_of(run) != job.files and not run.problems:
        run.problems.append(f"stored: {stored_of(run)}, not {job.files}")
    return run

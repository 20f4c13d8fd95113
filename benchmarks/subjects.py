"""Who is measured: `ingester run` under named options. `rivals` has the others.

Takes: a `Place`: a corpus on the disk, a directory of the run's own and a sink.
Gives: a `Job`.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from benchmarks import slow_sync
from ingester.bench.corpora import Corpus
from ingester.bench.environment import environment
from ingester.bench.measure import Job
from ingester.bench.processes import PYTHON, same_package
from ingester.bench.sink_process import DATASTORE, KEYS

_FIRST_RUN_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run finds what it needs."""

    corpus: Corpus
    files: str  # the directory that holds nothing but the corpus's files
    directory: str  # the run's own, empty
    url: str  # of the sink
    ca: str | None  # the authority to trust, where the sink has TLS


class Subject(Protocol):
    """A client that can be measured."""

    @property
    def name(self) -> str:
        """As records have it."""

    @property
    def tls(self) -> bool:
        """Whether it wants a sink with TLS."""

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """Every file it will read; they are made if they are not there."""

    def job(self, place: Place) -> Job:
        """What to run, and what must come of it."""


@dataclass(frozen=True, slots=True)
class Ingester:
    """`ingester run` with a journal and a results file, as a user has it."""

    name: str
    tls: bool
    payload_signing: str | None = None  # with it: signed, as to a HealthImaging data store
    options: tuple[str, ...] = ()
    slow_sync_ms: int = 0  # how much longer each fsync takes
    command: tuple[str, ...] = (*PYTHON, "ingester")

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself."""
        return corpus.paths(files)

    def job(self, place: Place) -> Job:
        """The command with files of its own in the place's directory."""
        url = place.url
        variables = {**environment(), **same_package()}
        problems: Callable[[], list[str]] = list
        options = [*self.options]
        if self.payload_signing is not None:
            url += f"/datastore/{DATASTORE}"
            variables.update(KEYS)
            options += ["--server", "healthimaging", "--auth", "sigv4", "--region", "us-east-1"]
            options += ["--payload-signing", self.payload_signing]
        if place.ca is not None:
            options += ["--ca-bundle", place.ca]
        if self.slow_sync_ms:
            count = os.path.join(place.directory, "syncs")
            library = slow_sync.compile_library(place.directory)
            variables.update(slow_sync.environment(library, self.slow_sync_ms, count))
            problems = partial(_fast_syncs, count)

        corpus = place.corpus
        return Job(
            command=(
                *self.command,
                *("run", place.files, "--url", url),
                *("--journal", os.path.join(place.directory, "ingester.db")),
                *("--results", os.path.join(place.directory, "results.jsonl")),
                *("--json", *options),
            ),
            environment=variables,
            files=corpus.files,
            distinct=corpus.files,
            content_bytes=corpus.bytes,
            claims={"files": corpus.files, "outcomes": {"stored": corpus.files}},
            problems=problems,
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """The command of another subject once more, when it has stored everything before."""

    first: Ingester

    @property
    def name(self) -> str:
        """As records have it."""
        return f"{self.first.name}-resumed"

    @property
    def tls(self) -> bool:
        """As the first run."""
        return self.first.tls

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself, in the first run."""
        return self.first.reads(corpus, files)

    def job(self, place: Place) -> Job:
        """Does the first run; what the sink has is of that one."""
        job = self.first.job(place)
        problems: list[str] = []
        try:
            done = subprocess.run(
                job.command,
                env=job.environment,
                check=False,
                capture_output=True,
                timeout=_FIRST_RUN_TIMEOUT_S,
            )
            if done.returncode:
                problems = [f"exit code {done.returncode} of the first run"]
        except subprocess.TimeoutExpired:
            problems = ["the first run was out of time"]
        return replace(job, claims={**job.claims, "requests": 0}, problems=lambda: problems)


@dataclass(frozen=True, slots=True)
class Halves:
    """Another subject twice at the same time, each with every other study.

    What a second interpreter would give a run, but for a start that comes twice.
    """

    whole: Ingester

    @property
    def name(self) -> str:
        """As records have it."""
        return f"{self.whole.name}-halves"

    @property
    def tls(self) -> bool:
        """As the whole."""
        return self.whole.tls

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself."""
        return self.whole.reads(corpus, files)

    def job(self, place: Place) -> Job:
        """Both commands, with links to the files in a directory of each."""
        halves = [self._half(place, number) for number in range(2)]
        job = self.whole.job(place)
        commands = [json.dumps(each.command) for each in halves]
        return replace(job, command=(*PYTHON, "benchmarks.at_once", *commands))

    def _half(self, place: Place, number: int) -> Job:
        directory = os.path.join(place.directory, str(number))
        files = os.path.join(directory, "files")
        os.makedirs(files)
        for name in sorted(os.listdir(place.files))[number::2]:
            os.mkdir(os.path.join(files, name))
            for file in os.scandir(os.path.join(place.files, name)):
                os.link(file.path, os.path.join(files, name, file.name))
        return self.whole.job(replace(place, directory=directory, files=files))


@dataclass(frozen=True, slots=True)
class Scan:
    """Walk and scan alone, see `scan`: nothing is sent."""

    name: str = "scan"
    tls: bool = False

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself."""
        return corpus.paths(files)

    def job(self, place: Place) -> Job:
        """The program, with a journal in the place's directory."""
        journal = os.path.join(place.directory, "ingester.db")
        return Job(
            command=(*PYTHON, "benchmarks.scan", place.files, journal),
            environment={**environment(), **same_package()},
            files=place.corpus.files,
            distinct=0,
            sent=0,
            content_bytes=place.corpus.bytes,
            claims={"instances": place.corpus.files},
        )


def _fast_syncs(count_file: str) -> list[str]:
    return [] if slow_sync.times(count_file) else ["no fsync was slow"]


_NO_CHECKSUMS: Final = ("--checksums", "none")
PLAIN: Final = Ingester("plain", tls=False)
PLAIN_NONE: Final = Ingester("plain-none", tls=False, options=_NO_CHECKSUMS)
TLS: Final = Ingester("tls", tls=True)
TLS_LITERAL: Final = Ingester("tls-literal", tls=True, payload_signing="literal")
TLS_LITERAL_NONE: Final = replace(TLS_LITERAL, name="tls-literal-none", options=_NO_CHECKSUMS)
TLS_SHA256: Final = replace(TLS_LITERAL, name="tls-sha256", payload_signing="sha256")
TLS_SHA256_NONE: Final = replace(TLS_SHA256, name="tls-sha256-none", options=_NO_CHECKSUMS)
PLAIN_RESUMED: Final = Resumed(PLAIN)
TLS_LITERAL_HALVES: Final = Halves(TLS_LITERAL)
SCAN: Final = Scan()
SLOW_SYNC: Final = replace(PLAIN, name="plain-slow-sync", slow_sync_ms=20)

"""What a comparison consists of: entries, which are run, and rows, which are worked out of them."""

from dataclasses import dataclass

from benchmarks.subjects import Subject
from ingester.bench.corpora import Corpus
from ingester.bench.sink_process import SinkOptions


@dataclass(frozen=True, slots=True)
class Entry:
    """A subject on a corpus against a sink: what is run again and again."""

    subject: Subject
    corpus: Corpus
    latency_ms: float = 0.0
    max_rps: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        words = [self.subject.name, self.corpus.directory]
        words += [f"latency {self.latency_ms:g} ms"] if self.latency_ms else []
        words += [f"{self.max_rps:g} requests/s"] if self.max_rps is not None else []
        return ", ".join(words)

    @property
    def sink(self) -> SinkOptions:
        """The sink it runs against."""
        return SinkOptions(self.subject.tls, self.latency_ms, self.max_rps)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    group: str  # rows of one group are measured in one interleaved run
    says: str  # what is compared, for people
    figure: str  # of `figures.of_run`
    subject: Entry
    rival: Entry | None = None  # None: the figure itself is the value, not a ratio
    target: float | None = None  # None: shown beside the others
    at_most: bool = False  # the target is an upper bound

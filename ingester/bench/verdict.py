"""What holds a load up, in one plain sentence: a pure function of what was measured.

Takes: the best point of a tier, and what was measured apart from it.
Gives: the kind of bottleneck and the sentence; every figure in it was measured.
"""

from dataclasses import dataclass
from typing import Final

from ingester.progress import BUSY_SHARE

WHOLE_CORE: Final = 0.9  # of a core: a client's event loop, or the sink, has no more
WHOLE_MACHINE: Final = 0.9  # of all cores
NEAR: Final = 1.25  # two rates that are no further apart are the same
_WAITED: Final = f"for {BUSY_SHARE:.0%} of the time or more"


def short(rate: float) -> str:
    """A rate for people."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast something went."""

    instances_per_s: float
    mb_per_s: float

    def __str__(self) -> str:
        return f"{short(self.instances_per_s)} instances/s ({short(self.mb_per_s)} MB/s)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a tier."""

    sent: Rate  # at the best point
    own: str  # what that run calls its bottleneck, see `ingester.progress.bottleneck_of`
    cores: int
    client_cores: float | None  # CPU seconds a second, without the start's; None: not known
    sink_cores: float | None  # the same; None: it was sent to a store
    scanned_per_s: float  # instances read from memory and parsed, nothing else
    read: Rate  # from the disk
    read_cold: bool  # False: it came from memory, and says nothing of a disk
    alone: Rate | None = None  # sent to a sink on this machine; None: that is what was measured
    busy: float | None = None  # share of all cores that anybody used meanwhile; None: not known
    latency_ms: float = 0.0  # that the sink was asked to wait


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds a load up."""

    kind: str  # disk, parsing, cpu, server, server or network, none
    sentence: str


def verdict_of(seen: Evidence) -> Verdict:
    """Decide what the bottleneck is: the slowest of what was measured apart comes first."""
    sent = seen.sent
    if seen.read_cold and seen.read.mb_per_s < sent.mb_per_s:
        return Verdict(
            "disk",
            f"The disk is the bottleneck: what is not in memory yet is read at {seen.read}, and "
            f"{sent} were sent.",
        )
    if seen.alone is not None and sent.mb_per_s * NEAR < seen.alone.mb_per_s:
        waited = f"; the run waited for it {_WAITED}" if seen.own == "server or network" else ""
        return Verdict(
            "server or network",
            f"The store, or the network to it, is the bottleneck: it took {sent} at best, and this "
            f"machine sends {seen.alone} to a server that stores nothing{waited}{_used(seen)}.",
        )
    return _of_this_machine(seen)


def _of_this_machine(seen: Evidence) -> Verdict:
    sent, sink_cores = seen.sent, seen.sink_cores or 0.0
    if seen.own == "journal":
        return Verdict(
            "disk",
            f"The disk is the bottleneck: the run waited for its journal {_WAITED}; {sent} were "
            "sent.",
        )
    if seen.scanned_per_s < sent.instances_per_s * NEAR:
        return Verdict(
            "parsing",
            f"Parsing is the bottleneck: this machine reads and parses "
            f"{short(seen.scanned_per_s)} instances/s from memory, and {sent} were sent.",
        )
    if seen.own == "reading files":
        return Verdict(
            "parsing",
            f"Reading and parsing files is the bottleneck: the run waited for it {_WAITED}; {sent} "
            "were sent.",
        )
    if seen.latency_ms and seen.own != "cpu":
        return Verdict(
            "server",
            f"The server is the bottleneck, as it was asked to be: it holds each answer back for "
            f"{seen.latency_ms:g} ms; {sent} were sent.",
        )
    if seen.busy is not None and seen.busy >= WHOLE_MACHINE:
        return Verdict(
            "cpu",
            f"The CPU is the bottleneck: this machine was busy for {seen.busy:.0%}{_used(seen)}; "
            f"{sent} were sent.",
        )
    if seen.client_cores is not None and seen.client_cores >= WHOLE_CORE:
        return Verdict(
            "cpu",
            f"The CPU is the bottleneck: most of the client's work is on one core{_used(seen)}; "
            f"{sent} were sent.",
        )
    if sink_cores >= WHOLE_CORE:
        return Verdict(
            "server",
            "The server on this machine is the bottleneck, which can use one core"
            f"{_used(seen)}; {sent} were sent, and this machine may send more.",
        )
    if seen.own == "server or network":
        return Verdict(
            "server or network",
            f"Waiting for the server is the bottleneck: the run did so {_WAITED}{_used(seen)}; "
            f"{sent} were sent.",
        )
    if seen.own in ("cpu", "grouping"):  # the loop groups
        return Verdict(
            "cpu",
            f"The CPU is the likely bottleneck: the run itself names {seen.own}{_used(seen)}; "
            f"{sent} were sent.",
        )
    return Verdict(
        "none",
        f"Nothing stands out as the bottleneck: {sent} were sent{_used(seen)}; more data, "
        "--size-mb, may tell more.",
    )


def _used(seen: Evidence) -> str:
    """What the processes used of the cores, as far as it is known."""
    if seen.client_cores is None:
        return ""
    server = "" if seen.sink_cores is None else f" and the server {seen.sink_cores:.1f}"
    cores = f"{seen.cores} core{'s' if seen.cores > 1 else ''}"
    return f"; of {cores} the client used {seen.client_cores:.1f}{server}"

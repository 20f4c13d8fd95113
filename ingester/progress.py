"""What a run has done so far, and what holds it up, as numbers and as one parseable line."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

BUSY_SHARE = 0.3
"""A stage that others waited for during so much of the time holds the run up."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of a run. Counts of files are of what is committed."""

    elapsed_s: float
    files_met: int
    all_met: bool  # False: still discovering
    bytes_met: int
    committed: int
    outcomes: dict[str, int]
    bytes_stored: int
    instances_stored: int
    requests: int
    retries: int
    in_flight: int
    bottleneck: str
    away_s: float = 0.0  # since the server took nothing any more; 0 while it takes something


@dataclass(slots=True)
class Waits:
    """Seconds that producers waited for each consumer since the start, and CPU seconds."""

    elapsed_s: float
    journal_s: float
    server_s: float
    grouping_s: float
    reading_s: float
    cpu_s: float
    listed_s: float = 0.0  # since the last directory was listed


def bottleneck_of(now: Waits, before: Waits | None = None) -> str:
    """What holds the run up, by name: the last stage on the road that others waited for."""
    since = before or Waits(0, 0, 0, 0, 0, 0)
    elapsed_s = max(now.elapsed_s - since.elapsed_s, 1e-9)

    def share(name: str) -> float:
        return float(getattr(now, name) - getattr(since, name)) / elapsed_s

    if share("journal_s") >= BUSY_SHARE:
        return "journal"
    if share("cpu_s") >= 0.9:
        return "cpu"
    if share("server_s") >= BUSY_SHARE:
        return "server or network"
    if share("grouping_s") >= BUSY_SHARE:
        return "grouping"
    if share("reading_s") >= BUSY_SHARE:
        return "reading files"
    if share("cpu_s") >= 0.5:
        return "cpu"
    return "server or network" if share("listed_s") >= BUSY_SHARE else "listing directories"


def progress_line(snapshot: Snapshot, before: Snapshot | None = None) -> str:
    """``progress key=value …``: names and numbers only, no file, no patient.

    ``percent`` is of the files met, once all are met, by what is committed: 100 means recorded.
    Rates are since ``before``.
    """
    since_s = snapshot.elapsed_s - (before.elapsed_s if before else 0.0)
    stored = snapshot.instances_stored - (before.instances_stored if before else 0)
    stored_bytes = snapshot.bytes_stored - (before.bytes_stored if before else 0)
    seconds = max(since_s, 1e-9)
    known = str(snapshot.files_met) if snapshot.all_met else "discovering"
    percent = ""
    if snapshot.all_met and snapshot.files_met:
        percent = f" percent={100 * snapshot.committed // snapshot.files_met}"
    outcomes = "".join(f" {name}={count}" for name, count in snapshot.outcomes.items() if count)
    away = f" away_s={snapshot.away_s:.0f}" if snapshot.away_s else ""
    return (
        f"progress elapsed_s={snapshot.elapsed_s:.0f} files={snapshot.committed}"
        f" met={snapshot.files_met} known={known}{percent}"
        f" bytes_met={snapshot.bytes_met} bytes_stored={snapshot.bytes_stored}"
        f" mb_per_s={stored_bytes / 1e6 / seconds:.1f} instances_per_s={stored / seconds:.1f}"
        f" in_flight={snapshot.in_flight} requests={snapshot.requests}"
        f" retries={snapshot.retries}{away}{outcomes}"
        f" bottleneck={snapshot.bottleneck.replace(' ', '_')}"
    )


def peak_rss_mib() -> float:
    """Most memory this process had in RAM, MiB.

    From VmHWM where there is one: ru_maxrss of a child begins with its parent's.
    """
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource  # noqa: PLC0415 - only where there is no /proc

    scale = 1 << 20 if os.uname().sysname == "Darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


@dataclass(slots=True)
class Clock:
    """Seconds since the run started: monotonic, and of CPU."""

    started: float = field(default_factory=time.monotonic)
    started_cpu: float = field(default_factory=time.process_time)

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, of all threads."""
        return time.process_time() - self.started_cpu

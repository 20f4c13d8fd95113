"""What the cores have room for: the work of a row against curl, part by part, and what is left.

Takes: the records, and how fast this machine hashes and reads from its page cache, which it
measures; so it belongs on the machine of the records.
Gives: a table in µs of CPU a file. `send` is curl's own CPU and `receive` the sink's, both from the
record; `read` is a read of the whole file from the page cache, `hash` its SHA-256 where the row has
one. `room` is what the wanted rate leaves on all cores for everything else, `rest` what everything
else takes: walk, parsing, groups, journal, results, and what two processes and an interpreter cost.
`busy` is the share of all cores that client and sink used. The last two are what the row would say
with all cores busy, and with no rest at all.

    python -m benchmarks.bounds
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.compare import RESULTS
from benchmarks.table import last_records

_COLUMNS: Final = (
    *("row", "wanted", "measured", "send", "receive", "read", "hash", "room", "rest"),
    *("busy", "all busy", "no rest"),
)
_AT_LEAST_S: Final = 0.2
_FILE_BYTES: Final = 256 << 20  # what is read, and where it goes, is in no cache of the processor
_BUFFER_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """What a file of a size costs here, in µs."""

    hash_us: Callable[[int], float]
    read_us: Callable[[int], float]


def line(record: Mapping[str, Any], machine: Machine) -> str:
    """The table's line of a row that has a rival and a value."""
    subject, rival = record["subject"], record["rival"]
    size, files = subject["corpus"]["size"], subject["corpus"]["files"]
    cores_us = record["cores"] * 1e6
    figures, ceiling = subject["figures"], rival["figures"]
    rate = ceiling["instances_per_s"]["median"]
    send = ceiling["cpu_us_per_file"]["median"]
    receive = figures["sink_cpu_s"]["median"] / files * 1e6
    read = machine.read_us(size)
    hashed = "sha256" in subject["name"] or "none" not in subject["name"]
    digest = machine.hash_us(size) if hashed else 0.0
    needed = send + receive + read + digest
    total = figures["cpu_us_per_file"]["median"] + receive
    client_cpu_s = figures["cpu_s_per_gb"]["median"] * subject["corpus"]["bytes"] / 1e9
    used_s = client_cpu_s + figures["sink_cpu_s"]["median"]
    busy = used_s / (figures["wall_s"]["median"] * record["cores"])
    cells = [
        f"`{record['row']}`",
        f"{record['target']:g}",
        f"{record['value']['median']:.3g}",
        *(f"{part:,.0f}" for part in (send, receive, read, digest)),
        f"{cores_us / (record['target'] * rate) - needed:,.0f}",
        f"{total - needed:,.0f}",
        f"{busy:.0%}",
        f"{cores_us / total / rate:.2f}",
        f"{cores_us / needed / rate:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(records: Mapping[str, Mapping[str, Any]], machine: Machine) -> Iterator[str]:
    """All rows against curl that have a target and a value."""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    for record in records.values():
        rival = record["rival"]
        if rival and rival["name"].startswith("curl") and record["target"] and record["value"]:
            yield line(record, machine)


def _hash_us(size: int) -> float:
    """At best: it is the processor that counts, not what else the machine does."""
    data = os.urandom(size)
    best, end = float("inf"), time.monotonic() + _AT_LEAST_S
    while time.monotonic() < end:
        began = time.process_time_ns()
        hashlib.sha256(data).digest()
        best = min(best, (time.process_time_ns() - began) / 1e3)
    return best


def _read_us(size: int) -> float:
    """Of one pass over a file that was written just now; the second one, whose buffer is there."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_FILE_BYTES // _BUFFER_BYTES):
            file.write(os.urandom(_BUFFER_BYTES))
        for _ in range(2):
            began, places = time.process_time_ns(), range(0, _FILE_BYTES - size, size)
            for at in places:
                start = at % (_BUFFER_BYTES - size)
                os.preadv(file.fileno(), [buffer[start : start + size]], at)
            took = (time.process_time_ns() - began) / 1e3 / len(places)
    return took


def main() -> int:
    """Prints the table; returns the exit status."""
    for text in table(last_records(RESULTS), Machine(_hash_us, _read_us)):
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

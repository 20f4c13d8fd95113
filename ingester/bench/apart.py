"""What is measured apart from a load: how fast files come from the disk, and are parsed.

Takes: the files of a corpus.
Gives: rates of `READERS` threads, and of the processes that parse for them, as a run has them.
Bounds: of the disk a sample of `SAMPLE_FILES` files and `SAMPLE_BYTES`.
"""

import os
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from ingester.bench.processes import Children
from ingester.bench.verdict import Rate
from ingester.budget import Budget
from ingester.items import Directory, FileRef, Instance, Root
from ingester.options import MEMORY_BUDGET_BYTES
from ingester.readers import LOCAL_READERS
from ingester.scan import Found, Scanner, ScanOptions
from ingester.scan_pool import ScanPool, default_processes
from ingester.walk import lists_of

READERS: Final = LOCAL_READERS
SAMPLE_FILES: Final = 200
SAMPLE_BYTES: Final = 100_000_000
_COLD_SHARE: Final = 0.9
_BLOCK_BYTES: Final = 512  # of ru_inblock
_PIECE_BYTES: Final = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Apart:
    """What files cost before anything is sent."""

    read: Rate
    read_cold: bool  # they came from the disk, not from memory
    scanned_per_s: float  # files read from memory, parsed and digested as far as a scan does


def measure_apart(paths: Sequence[str], size: int, children: Children) -> Apart:
    """Read a sample from the disk, then read and parse all files from memory.

    Args:
        paths: of files of one size.
        size: that size, bytes.
        children: asked whether to go on.

    Raises:
        StoppedError: a signal came.
        OSError: a file cannot be read.
    """
    sample = paths[: max(1, min(SAMPLE_FILES, SAMPLE_BYTES // size))]
    for path in sample:
        children.check()
        _forget(path)
    blocks = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
    read_s = _in_threads(_read, sample, children)
    blocks = resource.getrusage(resource.RUSAGE_SELF).ru_inblock - blocks
    cold = blocks * _BLOCK_BYTES >= _COLD_SHARE * len(sample) * size
    _in_threads(_read, paths[len(sample) :], children)
    scan_s = _scan(list(lists_of(_file_refs(paths, size))), children)
    return Apart(
        _rate(len(sample), size, read_s), cold, _rate(len(paths), size, scan_s).instances_per_s
    )


def _scan(lists: Sequence[Sequence[FileRef]], children: Children) -> float:
    """Seconds for all lists, when the processes have begun."""
    budget = Budget(MEMORY_BUDGET_BYTES)
    pool = ScanPool(default_processes(), budget.arena.fd, checksums=True, at_once=True)
    scanner = Scanner(ScanOptions(), budget, pool)

    def scan(files: Sequence[FileRef]) -> None:
        found: list[Found] = []
        scanner.scan(files, found)
        for one in found:
            if isinstance(one, Instance) and one.buffer is not None:
                one.buffer.give_back()

    try:
        _in_threads(scan, lists[:READERS], children)
        return _in_threads(scan, lists, children)
    finally:
        pool.shutdown()


def _rate(files: int, size: int, seconds: float) -> Rate:
    seconds = max(seconds, 1e-6)
    return Rate(files / seconds, files * size / 1e6 / seconds)


def _in_threads(work: Callable[[T], None], items: Sequence[T], children: Children) -> float:
    """Seconds that the threads took for all items."""

    def one(item: T) -> None:
        children.check()
        work(item)

    started = time.perf_counter()
    with ThreadPoolExecutor(READERS) as threads:
        for done in [threads.submit(one, item) for item in items]:
            done.result()
    return time.perf_counter() - started


def _forget(path: str) -> None:
    """Have the kernel write a file out and drop it from memory, where it can be asked to."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _read(path: str) -> None:
    buffer = bytearray(_PIECE_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _file_refs(paths: Sequence[str], size: int) -> list[FileRef]:
    directories: dict[str, Directory] = {}
    files = []
    for number, path in enumerate(paths, 1):
        parent, name = os.path.split(path)
        if parent not in directories:
            root = Root(1, os.fsencode(parent), os.fsencode(parent))
            directories[parent] = Directory(len(directories) + 1, root, b"")
        mtime_ns = os.stat(path).st_mtime_ns
        files.append(FileRef(number, directories[parent], os.fsencode(name), size, mtime_ns, None))
    return files

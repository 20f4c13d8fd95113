"""Walk and scan alone: the first two stages of a run, wired as in one, and nobody behind them.

Takes: a directory, and a path for a journal.
Gives: on stdout a JSON object with the number of `instances`, each of which was read whole,
parsed and digested; other files are not counted.
"""

import asyncio
import json
import os
import sys
from collections.abc import Collection, Sequence

from ingester.budget import Budget
from ingester.catalog import UnreadableDirectory, WalkOptions
from ingester.channel import Channel
from ingester.cli.loops import run_loop
from ingester.items import FileRef, Root, Scanned
from ingester.journal import Journal, RunInfo
from ingester.ledger import Ledger
from ingester.options import MEMORY_BUDGET_BYTES
from ingester.readers import Readers
from ingester.scan import Scanner, ScanOptions
from ingester.scan_pool import scan_pool
from ingester.scan_stage import ScanStage
from ingester.walk import Walk
from ingester.wiring import FILES_HELD


class _End:
    """Where instances end: their memory is given back at once."""

    def __init__(self) -> None:
        self.instances = 0

    async def put(self, item: Scanned, weight: int = 1) -> None:
        del weight
        self.instances += len(item.instances)
        for instance in item.instances:
            if instance.buffer is not None:
                instance.buffer.give_back()

    def close(self) -> None:
        pass


class _Report:
    def unreadable_directories(self, found: Collection[UnreadableDirectory]) -> None:
        if found:
            raise OSError(found)

    def discovered_all(self) -> None:
        pass


async def scan(path: bytes, journal_path: str) -> int:
    """How many instances are below a directory of this absolute path."""
    budget, end = Budget(MEMORY_BUDGET_BYTES), _End()
    pool = scan_pool(None, budget.arena.fd, checksums=True)
    with Journal.open(journal_path, target="http://nowhere.invalid") as journal:
        journal.start_run(RunInfo())
        root = Root(journal.register_roots([(path, path)])[0], path, path)
        readers = Readers([root], None, pool, budget.arena)
        ledger = Ledger(journal)
        walk = Walk(WalkOptions(), journal.known_files(), readers, ledger, _Report(), 1)
        files = Channel[list[FileRef]](FILES_HELD)
        lanes = [files] * readers.of(root).threads
        scanner = Scanner(ScanOptions(), budget, pool)
        stage = ScanStage(scanner, readers, ledger, end, ScanOptions(), lanes)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(walk.lane([root], files))
            for lane in lanes:
                tasks.create_task(stage.worker(lane))
        readers.shutdown()
    return end.instances


def main(arguments: Sequence[str]) -> None:
    """Scan what the command line names."""
    directory, journal_path = arguments
    path = os.fsencode(os.path.realpath(directory))
    print(json.dumps({"instances": run_loop(scan(path, journal_path), "auto")}))


if __name__ == "__main__":
    main(sys.argv[1:])

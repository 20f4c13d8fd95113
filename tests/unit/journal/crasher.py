"""Records until it is killed; says on stdout what was committed. Arguments: path, seed, limit."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
from collections.abc import Sequence

from ingester.dicomweb.outcome import Outcome
from ingester.errors import JournalError
from ingester.items import FileRef, Result
from ingester.journal import Journal, RunInfo
from tests.unit.journal.made import TARGET, header, registered

ENDS = [Outcome.STORED] * 6 + [Outcome.FAILED, Outcome.IN_DOUBT, Outcome.NOT_DICOM, Outcome.PENDING]


def say(results: Sequence[Result]) -> None:
    lines = "".join(f"{one.file.file_id} {one.outcome}\n" for one in results)
    os.write(1, lines.encode())


def main(path: str, seed: int, limit: int) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = random.Random(seed)
    with Journal.open(path, target=TARGET, on_commit=say) as journal:
        journal.start_run(RunInfo())
        root = registered(journal)
        known = journal.known_files()
        for number in range(100_000):
            directory = known.directory(root, b"%d" % (number % 50))
            names = [b"%d" % (number // 50 * 7 + index) for index in range(7)]
            found = known.files(directory, names)
            refs = [
                FileRef(
                    found[name].file_id, directory, name, rng.randrange(99), 1, found[name].previous
                )
                for name in names
            ]
            journal.seen([ref for ref in refs if ref.previous and ref.previous.settled])
            journal.record_all(
                [
                    Result(
                        ref,
                        rng.choice(ENDS),
                        header=header(f"1.{number % 9}", sop=f"1.2.{rng.randrange(9999)}"),
                    )
                    for ref in refs
                    if not (ref.previous and ref.previous.settled)
                ],
            )
            asyncio.run(journal.wait_for_room())


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except JournalError as error:
        sys.exit(f"{error}\n{error.hint}")

"""What the client holds in memory when a file, or a directory, is far larger than any limit.

Takes: a directory to work in.
Gives: for each case the client's peak RSS, MB/s and files/s; status 1 when a run was wrong or went
above `--limit-mib`.
Cases: `huge`, one encapsulated multi-frame file of 5 GB in two sparse fragments (PS3.5 A.4);
`many`, 200,000 files of 1 KiB in one directory; `entries`, 1,000,000 names in one directory, of
which 100 are instances and the others empty files.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from benchmarks.endings import leave_nothing_behind
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import Writer
from ingester.bench.environment import environment
from ingester.bench.measure import Job, Run, check, run_client
from ingester.bench.processes import PYTHON, same_package
from ingester.bench.sink_process import running_sink

HUGE_BYTES: Final = 5_000_000_000
MANY_FILES: Final = 200_000
MANY_BYTES: Final = 1024
ENTRIES: Final = 1_000_000
INSTANCES_AMONG: Final = 100
LINKS: Final = 50_000  # of one inode; ext4 takes 65,000
LIMIT_MIB: Final = 300.0
CASES: Final = ("huge", "many", "entries")


def write_huge(path: str, size: int = HUGE_BYTES) -> None:
    """Write an encapsulated file of `size` bytes, two fragments of which are holes."""
    Writer(Corpus("huge", files=1, size=size, studies=1, frames=2), holes=True).write(0, path)


def write_many(directory: str, files: int = MANY_FILES, size: int = MANY_BYTES) -> None:
    """Write `files` instances of one study into one directory."""
    os.makedirs(directory, exist_ok=True)
    writer = Writer(Corpus("many", files=files, size=size, studies=1))
    for index in range(files):
        writer.write(index, os.path.join(directory, f"{index:07d}.dcm"))


def write_entries(directory: str, entries: int = ENTRIES) -> None:
    """Fill a directory with `entries` names of empty files, and instances of one study."""
    write_many(directory, INSTANCES_AMONG)
    empty = ""
    for number in range(entries - INSTANCES_AMONG):
        name = os.path.join(directory, f"{number:07d}.txt")
        if number % LINKS == 0:
            empty = name
            with open(name, "xb"):
                continue
        os.link(empty, name)


def run_case(source: str, work: str, files: int, client_args: Sequence[str] = ()) -> Run:
    """Load `source` into a sink and check that it says and got what is there."""
    with running_sink() as sink, tempfile.TemporaryDirectory(dir=work) as directory:
        job = Job(
            command=(
                *(*PYTHON, "ingester", "run", source, "--url", sink.url),
                *("--journal", os.path.join(directory, "journal.db"), "--json", *client_args),
            ),
            files=files,
            distinct=files,
            content_bytes=0,
            claims={},
            environment={**environment(), **same_package()},
        )
        run = run_client(job, directory, timeout_s=600)
    sys.stderr.writelines(run.last_words if run.exit_code else ())
    run.sink = sink.totals
    check(run, job)
    if run.summary.get("outcomes", {}).get("stored") != files:
        run.problems.append(f"not all {files} files stored")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", metavar="DIR", help="default: a temporary")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--limit-mib", type=float, default=LIMIT_MIB)
    options = parser.parse_args(arguments)
    leave_nothing_behind()
    failed = False
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for case in options.case or CASES:
            source = os.path.join(work, case)
            os.makedirs(source)
            files = {"huge": 1, "many": MANY_FILES, "entries": INSTANCES_AMONG}[case]
            if case == "huge":
                write_huge(os.path.join(source, "huge.dcm"))
            elif case == "many":
                write_many(source)
            else:
                write_entries(source)
            run = run_case(source, work, files)
            if run.peak_rss_mib > options.limit_mib:
                run.problems.append(f"peak RSS above {options.limit_mib} MiB")
            failed |= bool(run.problems)
            print(
                f"{case}: peak {run.peak_rss_mib:.0f} MiB, {run.wall_s:.1f} s,"
                f" {run.summary.get('mb_per_s')} MB/s,"
                f" {run.summary.get('instances_per_s')} instances/s {'; '.join(run.problems)}",
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

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
import struct
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from benchmarks.measure import Run, run_client, running_sink

HUGE_BYTES: Final = 5_000_000_000
MANY_FILES: Final = 200_000
MANY_BYTES: Final = 1024
ENTRIES: Final = 1_000_000
INSTANCES_AMONG: Final = 100
LINKS: Final = 50_000  # of one inode; ext4 takes 65,000
LIMIT_MIB: Final = 300.0
CASES: Final = ("huge", "many", "entries")
_CT: Final = b"1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT: Final = b"1.2.840.10008.5.1.4.1.1.2.1"
_EXPLICIT: Final = b"1.2.840.10008.1.2.1"
_JPEG_2000_LOSSLESS: Final = b"1.2.840.10008.1.2.4.90"
_UNDEFINED: Final = 0xFFFFFFFF


def _short(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2) if vr == b"UI" else b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _item(tag: int, length: int) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)


def head(sop_class: bytes, transfer_syntax: bytes, study: bytes, sop: bytes) -> bytes:
    """A Part 10 file up to its Pixel Data."""
    meta = (
        _short(0x00020002, b"UI", sop_class)
        + _short(0x00020003, b"UI", sop)
        + _short(0x00020010, b"UI", transfer_syntax)
        + _short(0x00020012, b"UI", b"2.25.1561")
    )
    return (
        bytes(128)
        + b"DICM"
        + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
        + meta
        + _short(0x00080016, b"UI", sop_class)
        + _short(0x00080018, b"UI", sop)
        + _short(0x00080060, b"CS", b"CT")
        + _short(0x00100010, b"PN", b"Memory^Test")
        + _short(0x00100020, b"LO", b"MEMORY")
        + _short(0x0020000D, b"UI", study)
        + _short(0x0020000E, b"UI", study + b".1")
    )


def write_huge(path: str, size: int = HUGE_BYTES) -> None:
    """Write an encapsulated file of `size` bytes, two fragments of which are holes."""
    start = head(_ENHANCED_CT, _JPEG_2000_LOSSLESS, b"2.25.15610", b"2.25.156100")
    start += struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, _UNDEFINED)
    start += _item(0xFFFEE000, 0)  # an empty Basic Offset Table
    fragment = (size - len(start) - 3 * 8) // 2 & ~1
    with open(path, "wb") as file:
        file.write(start)
        for _ in range(2):
            file.write(_item(0xFFFEE000, fragment))
            file.seek(fragment, os.SEEK_CUR)
        file.write(_item(0xFFFEE0DD, 0))


def write_many(directory: str, files: int = MANY_FILES, size: int = MANY_BYTES) -> None:
    """Write `files` instances of one study into one directory."""
    os.makedirs(directory, exist_ok=True)
    for number in range(files):
        data = head(_CT, _EXPLICIT, b"2.25.15611", b"2.25.15611%d" % number)
        pixels = size - len(data) - 12
        data += struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, pixels) + bytes(pixels)
        with open(os.path.join(directory, f"{number:07d}.dcm"), "wb") as file:
            file.write(data)


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
        command = [
            *(sys.executable, "-m", "ingester", "run", source, "--url", sink.url),
            *("--journal", os.path.join(directory, "journal.db"), "--json", *client_args),
        ]
        run = run_client(command, directory, timeout_s=600)
    run.sink = sink.totals
    if run.exit_code or run.summary.get("outcomes", {}).get("stored") != files:
        run.problems.append(f"exit code {run.exit_code}, not all {files} files stored")
    if run.sink.get("instances") != files:
        run.problems.append(f"the sink got {run.sink.get('instances')} instances")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", metavar="DIR", help="default: a temporary")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--limit-mib", type=float, default=LIMIT_MIB)
    options = parser.parse_args(arguments)
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

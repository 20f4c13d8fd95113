"""Says what happened: lines for people, an object for programs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import msgspec

from ingester.demo.archive import STUDIES
from ingester.demo.job import Demo
from ingester.dicomweb.outcome import Outcome
from ingester.journal import FileRow

_WORDS = {
    "same_data_set": "the same data set as {other}: one of them was sent",
    "other_data_set": "the UIDs of {other}, but another data set: a person has to choose",
    "truncated_header": "it was cut off inside its header: no study to send it to",
    "not_dicom": "not DICOM",
    "dicomdir": "a DICOMDIR: it holds no instance",
    "symlink": "a symbolic link: not followed unless --follow-symlinks is given",
}


def to_data(demo: Demo) -> dict[str, object]:
    """What ``demo --json`` prints."""
    return {
        "as_planned": not demo.differences and demo.interrupted is None,
        "differences": list(demo.differences),
        "directory": demo.places.directory,
        "archive": demo.places.archive,
        "store": demo.places.store,
        "journal": demo.places.journal,
        "results": demo.places.results,
        "url": demo.url,
        "studies": len(STUDIES),
        "not_simply_stored": [
            {
                "path": _path(demo, row),
                "outcome": row.outcome.value,
                "reason_code": row.reason_code,
                "other_path": _other(demo, row),
            }
            for row in _exceptions(demo)
        ],
        "looked_up": demo.found.asked,
        "found_by_qido": demo.found.found,
        "equal_by_wado": demo.found.equal,
        "run": msgspec.to_builtins(demo.summary),
        "elapsed_s": round(demo.elapsed_s, 3),
        "exit_code": demo.exit_code,
    }


def to_lines(demo: Demo) -> Iterator[str]:
    """The report for a person."""
    summary, found = demo.summary, demo.found
    outcomes = ", ".join(f"{name} {count}" for name, count in summary.outcomes.items() if count)
    yield f"{summary.files} files met, each with one outcome: {outcomes}"
    for study in STUDIES:
        stored = [
            row
            for row in demo.rows
            if row.outcome is Outcome.STORED and row.study_instance_uid == study.study_instance_uid
        ]
        disks = {_path(demo, row).split("/")[0] for row in stored}
        spread = ", from both disks" if len(disks) > 1 else ""
        yield f"  {study.description:<17} {len(stored):>3} instances stored{spread}"
    yield ""
    yield "Not simply stored:"
    for row in _exceptions(demo):
        words = _WORDS.get(row.reason_code, row.reason).format(other=_other(demo, row))
        yield f"  {row.outcome:<10} {_path(demo, row)}"
        yield f"             {words}"
    yield ""
    yield (
        f"{summary.bytes_stored / 1e6:.1f} MB went to the store in {summary.requests} requests "
        f"and {summary.elapsed_s:.1f} s."
    )
    yield (
        f"Looked up again: {found.found} of {found.asked} found by QIDO-RS; "
        f"{found.equal} of {found.asked} retrieved by WADO-RS, byte for byte the file."
    )
    yield f"A run by hand would have ended with exit code {summary.exit_code}{_why(demo)}."
    yield ""
    yield from _verdict(demo)
    yield ""
    yield f"Everything is in {demo.places.directory}:"
    yield "  archive        what was made"
    yield "  store          what the emulator keeps; it has ended"
    yield "  results.jsonl  a line for each file"
    yield "  ingester.db    the journal"
    yield "Look at the journal:"
    journal = shlex.quote(demo.places.journal)
    yield f"  ingester status --journal {journal}"
    yield f"  ingester status --journal {journal} --study {STUDIES[0].study_instance_uid}"
    yield "Remove it all:"
    yield f"  rm -r {shlex.quote(demo.places.directory)}"


def _verdict(demo: Demo) -> Iterator[str]:
    if demo.interrupted is not None:
        yield f"Interrupted by {demo.interrupted.name}."
    elif demo.differences:
        yield "NOT as planned:"
        for difference in demo.differences:
            yield f"  {difference}"
    else:
        yield f"Everything ended as planned, in {demo.elapsed_s:.1f} s."


def _why(demo: Demo) -> str:
    if demo.summary.exit_code != 3:
        return ""
    return ": finished, but the conflict and the invalid file are not stored"


def _exceptions(demo: Demo) -> list[FileRow]:
    left_out = (Outcome.STORED, Outcome.PENDING)  # pending: hundreds, if it was interrupted
    return [row for row in demo.rows if row.outcome not in left_out]


def _path(demo: Demo, row: FileRow) -> str:
    return os.path.relpath(os.fsdecode(row.path), demo.places.archive)


def _other(demo: Demo, row: FileRow) -> str | None:
    for other in demo.rows:
        if other.file_id == row.other_file_id:
            return _path(demo, other)
    return None

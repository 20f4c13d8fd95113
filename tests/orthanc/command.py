"""The real command against a real Orthanc, and what either has afterwards."""

import json
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ingester.dicomweb.outcome import IN_THE_STORE
from ingester.journal import FileRow, iter_files
from tests.support.orthanc import Orthanc
from tests.support.process import Completed, Process, start_ingester

Key = tuple[str, str]  # Study and SOP Instance UID


class Summary(TypedDict):
    """What `run --json` prints, as far as it is looked at here."""

    run_id: int
    files: int
    outcomes: dict[str, int]
    requests: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, with its summary."""

    ended: Completed
    summary: Summary

    @property
    def outcomes(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {name: count for name, count in self.summary["outcomes"].items() if count}


@dataclass(frozen=True, slots=True)
class Command:
    """`ingester run` on a directory, into a store, with a journal and a results file."""

    source: Path
    url: str
    directory: Path  # of journal and results
    options: tuple[str, ...] = ()

    @property
    def journal(self) -> Path:
        """The same in every run."""
        return self.directory / "journal.db"

    @property
    def results(self) -> Path:
        """The same in every run."""
        return self.directory / "results.jsonl"

    def start(self, env: dict[str, str] | None = None) -> Process:
        """Starts it."""
        return start_ingester(
            "run",
            self.source,
            f"--url={self.url}",
            "--server=orthanc",
            f"--journal={self.journal}",
            f"--results={self.results}",
            "--json",
            *self.options,
            env=env,
        )

    def run(self, env: dict[str, str] | None = None) -> Run:
        """Runs it to its end."""
        with self.start(env) as process:
            ended = process.wait(90)
        assert ended.stdout, ended.stderr
        summary: Summary = json.loads(ended.stdout)
        assert summary["exit_code"] == ended.returncode
        return Run(ended, summary)

    def rows(self) -> dict[Path, FileRow]:
        """The journal's rows by path; no path has two."""
        rows = list(iter_files(str(self.journal)))
        by_path = {Path(row.path.decode()): row for row in rows}
        assert len(by_path) == len(rows)
        return by_path

    def lines(self) -> list[dict[str, object]]:
        """The results lines of all runs."""
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def stored(self) -> dict[Key, FileRow]:
        """The rows that say the store has their instance; no instance has two."""
        rows = [row for row in self.rows().values() if row.outcome in IN_THE_STORE]
        by_key = {(row.study_instance_uid, row.sop_instance_uid): row for row in rows}
        assert len(by_key) == len(rows)
        return by_key


def instances_of(orthanc: Orthanc) -> Counter[Key]:
    """How often Orthanc has each instance."""
    return Counter((item.study, item.sop) for item in orthanc.instances())


def assert_same_bytes(orthanc: Orthanc, command: Command) -> None:
    """Orthanc has exactly what the journal says is stored: as many, and the bytes of the files."""
    stored, there = command.stored(), orthanc.instances()
    assert Counter(stored.keys()) == Counter((item.study, item.sop) for item in there)
    for item in there:
        path = Path(stored[item.study, item.sop].path.decode())
        answer = orthanc.request("GET", f"/instances/{item.id}/file")
        assert answer.body == path.read_bytes(), path


def data_set_of(part10: bytes) -> bytes:
    """What follows group 2 (PS3.10 7.1): its elements are Explicit VR Little Endian."""
    position = 132
    while part10[position : position + 2] == b"\2\0":
        vr = part10[position + 4 : position + 6]
        if vr in {b"OB", b"OW", b"UN", b"UT", b"SQ"}:
            position += 12 + struct.unpack_from("<I", part10, position + 8)[0]
        else:
            position += 8 + struct.unpack_from("<H", part10, position + 6)[0]
    return part10[position:]

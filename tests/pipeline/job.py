"""One archive, one journal and the real engine, with what a test wants to know of a run.

Every run is checked for what must always hold: each file has one row, the counts add up, the
results file says what the journal says, and what the journal calls stored the server has, byte
for byte. A run that went to its end has given every cached byte back.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingester.budget import Budget
from ingester.cli.loops import run_loop
from ingester.config import load_config
from ingester.control import StopControl
from ingester.dicomweb.outcome import IN_THE_STORE, Evidence, Outcome
from ingester.errors import FatalError
from ingester.journal import FileRow, iter_files
from ingester.pipeline import ingest
from ingester.progress import Snapshot
from ingester.report.summary import RunSummary
from ingester.sources import Source
from tests.support.dicom_files import make_uid, write_instance
from tests.support.scripted import ScriptedServer

QUICK: dict[str, object] = {
    "backoff_base_s": 0.01,
    "backoff_cap_s": 0.05,
    "max_outage_s": 2.0,
    "batch_age_s": 60.0,
    "idle_slot_s": 60.0,
    "max_concurrency": 1,
    "readers": 1,
}
"""One request at a time, none before all files are scanned, and no long waits for a retry."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that has ended."""

    summary: RunSummary
    cause: FatalError | None
    rows: dict[str, FileRow]  # by the path below the archive
    lines: list[dict[str, object]]  # of the results file, of this run
    snapshots: list[Snapshot]  # that a person was shown

    @property
    def exit_code(self) -> int:
        return self.summary.exit_code

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcomes that happened, of the files met in this run."""
        return {name: count for name, count in self.summary.outcomes.items() if count}

    def outcome(self, name: str) -> str:
        return self.rows[name].outcome.value


class Job:
    """A directory `archive`, a journal and a results file beside it, and the server to load to."""

    def __init__(self, directory: Path, server: ScriptedServer) -> None:
        self.archive = directory / "archive"
        self.archive.mkdir(parents=True)
        self.journal = directory / "journal.db"
        self.results = directory / "results.jsonl"
        self.server = server
        self._lines_read = 0

    def write(
        self,
        name: str,
        *,
        study: object = 0,
        sop: object = None,
        payload_bytes: int = 256,
        seed: int = 0,
    ) -> Path:
        """Writes an instance, settled long ago; by default of its own SOP Instance UID.

        Its directory has not been changed for long either: the next run may skip it.
        """
        path = self.archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_instance(
            path,
            study=uid_of_study(study),
            series=make_uid("series", study),
            sop=uid_of(name if sop is None else sop),
            payload_bytes=payload_bytes,
            seed=seed,
        )
        age(path)
        age(path.parent)
        return path

    def write_many(self, count: int, *, study: object = 0, prefix: str = "") -> list[str]:
        """Writes a study of small files; returns their names."""
        names = [f"{prefix}{number:04d}.dcm" for number in range(count)]
        for name in names:
            self.write(name, study=study)
        return names

    def write_studies(self, count: int, instances: int = 1) -> list[str]:
        """Writes studies in directories of their own."""
        return [
            name
            for study in range(count)
            for name in self.write_many(instances, study=study, prefix=f"{study:03d}/")
        ]

    def sha256(self, name: str) -> str:
        return hashlib.sha256((self.archive / name).read_bytes()).hexdigest()

    def stored(self, name: str, sop: object = None) -> list[str]:
        """Digests of what the server was given under the file's own UID."""
        return self.server.stored.get(uid_of(name if sop is None else sop), [])

    def run(
        self,
        flags: Mapping[str, object] = {},
        /,
        *,
        check: bool = True,
        source: str = "",
        **more: object,
    ) -> Ran:
        """Runs the engine in this process. `check`: what is stored still lies where it was.

        `source`: a directory of the archive, by default all of it.
        """
        options = {
            **QUICK,
            "url": self.server.url,
            "journal": str(self.journal),
            "results": str(self.results),
            **flags,
            **more,
        }
        config = load_config(options, {}, None)
        stop: StopControl | None = None

        async def job() -> RunSummary:
            nonlocal stop
            stop = StopControl()
            return await ingest(
                config, [Source(os.fsencode(self.archive / source))],
                stop=stop, watch=snapshots.append, watch_every_s=0.05,
            )  # fmt: skip

        before = _budgets()
        snapshots: list[Snapshot] = []
        summary = run_loop(job(), config.event_loop)
        assert stop is not None
        cause = stop.cause if isinstance(stop.cause, FatalError) else None
        ran = Ran(summary, cause, self.rows(), self._new_lines(), snapshots)
        self._check(ran, on_disk=check)
        if summary.exit_code in (0, 3):
            leaked = [b for b in _budgets() if b.in_use_bytes and b not in before]
            assert not leaked, "cached bytes were not given back"
        return ran

    def rows(self) -> dict[str, FileRow]:
        """The journal's rows by the path below the archive."""
        rows = list(iter_files(str(self.journal)))
        found = {os.path.relpath(os.fsdecode(row.path), self.archive): row for row in rows}
        assert len(found) == len(rows), "a file has two rows"
        return found

    def _new_lines(self) -> list[dict[str, object]]:
        lines = self.results.read_text(encoding="utf-8").splitlines()
        new = [json.loads(line) for line in lines[self._lines_read :]]
        self._lines_read = len(lines)
        return new

    def _check(self, ran: Ran, *, on_disk: bool) -> None:
        summary = ran.summary
        assert sum(summary.outcomes.values()) == summary.files
        met = [row for row in ran.rows.values() if row.seen_run_id == summary.run_id]
        counted = Counter(row.outcome.value for row in met)
        assert counted == Counter(ran.outcomes), "the totals are not what a recount finds"
        by_id = {row.file_id: row for row in ran.rows.values()}
        others = {row.other_file_id for row in ran.rows.values()}
        assert others <= {None, *by_id}, "a row that is gone is named"
        last = {line["file_id"]: line for line in ran.lines}
        for file_id, line in last.items():
            row = by_id[int(str(file_id))]
            assert row.outcome.value == line["outcome"], "results and journal differ"
        self.check_nothing_is_claimed_falsely(on_disk=on_disk)
        if summary.exit_code in (0, 3):
            assert Outcome.PENDING.value not in ran.outcomes

    def check_nothing_is_claimed_falsely(self, *, on_disk: bool = True) -> None:
        """What the journal calls stored, the server has: these very bytes."""
        stored = self.server.stored
        for name, row in self.rows().items():
            if row.outcome not in IN_THE_STORE:
                continue
            assert row.evidence is not None
            copies = stored.get(row.sop_instance_uid, [])
            assert copies, f"claimed and not there: {name}"
            if row.evidence is Evidence.MANIFEST and row.outcome is not Outcome.ALREADY_STORED:
                if row.sha256 is not None:
                    assert row.sha256.hex() in copies, f"other bytes were stored: {name}"
                if on_disk:
                    assert self.sha256(name) in copies, f"other bytes were stored: {name}"


def _budgets() -> list[Budget]:
    return [each for each in gc.get_objects() if isinstance(each, Budget)]


def uid_of(name: object) -> str:
    """The SOP Instance UID of the file that was written under this name."""
    return make_uid("sop", name)


def uid_of_study(study: object) -> str:
    """The Study Instance UID that was written for this key."""
    return make_uid("study", study)


def age(path: Path, seconds: int = 0) -> None:
    """Gives a file or a directory a time stamp of long ago, so that it can be trusted."""
    when = 1_700_000_000 + seconds
    os.utime(path, (when, when))

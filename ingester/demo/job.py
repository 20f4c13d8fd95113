"""The demonstration itself: archive, emulator, run, look-up, all below one directory.

The emulator runs on the loop of the pipeline, not in a thread or process of its own: when the loop
ends, by whatever, nothing of it is left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingester.auth.chain import Provider, Resolve
from ingester.config import Config, load_config
from ingester.control import StopControl
from ingester.demo.archive import STUDIES, Made, write_archive
from ingester.demo.lookup import Found, look_up
from ingester.dicomweb.outcome import IN_THE_STORE
from ingester.emulator import Credentials, Emulator
from ingester.errors import FatalError, UsageError
from ingester.journal import FileRow, iter_files
from ingester.pipeline import ingest
from ingester.report.summary import RunSummary, exit_code_of
from ingester.sources import Source
from ingester.transport.sender import Sender
from ingester.wiring import open_authorizer, sender_options


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: one directory."""

    directory: str

    @property
    def archive(self) -> str:
        """The made files."""
        return os.path.join(self.directory, "archive")

    @property
    def store(self) -> str:
        """What the emulator keeps."""
        return os.path.join(self.directory, "store")

    @property
    def journal(self) -> str:
        """The journal of the run."""
        return os.path.join(self.directory, "ingester.db")

    @property
    def results(self) -> str:
        """The results file of the run."""
        return os.path.join(self.directory, "results.jsonl")


@dataclass(frozen=True, slots=True)
class Demo:
    """What was made and what became of it."""

    places: Places
    url: str  # of the store, while it was there
    made: Sequence[Made]
    rows: Sequence[FileRow]  # of the journal
    summary: RunSummary
    found: Found
    differences: Sequence[str]  # from what was planned
    interrupted: signal.Signals | None
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """0 as planned, 1 not, else that of the interrupted run."""
        if self.interrupted is not None:
            return 128 + self.interrupted
        return 1 if self.differences else 0


def make_directory(directory: str | None) -> Places:
    """Make the directory, a temporary one if none is named. Raises UsageError."""
    if directory is None:
        return Places(os.path.realpath(tempfile.mkdtemp(prefix="ingester-demo-")))
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.listdir(directory):
            raise UsageError(f"the directory is not empty: {directory}", "name another one")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"the directory cannot be used ({reason}): {directory}") from error
    return Places(os.path.realpath(directory))


async def run_demo(places: Places, stop: StopControl, tell: Callable[[str], None]) -> Demo | None:
    """Do it all; None if it was stopped before there was a run. ``tell`` gets a line a step.

    Raises:
        FatalError: the disk or the loopback interface cannot be used.
    """
    began = time.monotonic()
    tell("writing the archive")
    try:
        made = await asyncio.to_thread(write_archive, places.archive)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise FatalError(f"the archive cannot be written ({reason})") from error
    if stop.requested:
        return None
    tell("starting the emulator")
    try:
        keys = Credentials.made()
        async with Emulator(store=places.store, credentials=keys, tls=True) as emulator:
            config = load_config(
                {
                    "url": emulator.base_url,
                    "server": "healthimaging",
                    "auth": "sigv4",
                    "region": emulator.ready_line()["region"],
                    "ca_bundle": str(emulator.ca),
                    "journal": places.journal,
                    "results": places.results,
                    "name": "demo",
                },
                {},
            )
            tell("loading the archive")
            source = Source(os.fsencode(places.archive))
            resolve = _Given(keys)
            summary = await ingest(config, [source], stop=stop, resolve=resolve)
            rows = list(iter_files(places.journal))
            found = Found()
            if not stop.requested:
                tell("looking everything up again")
                found = await _look_up(config, stop, rows, resolve)
    except (OSError, sqlite3.Error) as error:
        raise FatalError(f"the emulator failed ({type(error).__name__})") from error
    cause = stop.cause
    if isinstance(cause, FatalError):
        raise cause
    differences = [*differences_of(places, made, rows, summary), *found.differences]
    elapsed_s = time.monotonic() - began
    return Demo(places, config.url, made, rows, summary, found, differences, cause, elapsed_s)


@dataclass(frozen=True, slots=True)
class _Given:
    """The emulator's keys, in the place of the AWS credentials chain."""

    keys: Credentials

    def __call__(self) -> Provider:
        return self

    def get_frozen_credentials(self) -> Credentials:
        """See Provider: they never change."""
        return self.keys


async def _look_up(
    config: Config, stop: StopControl, rows: Sequence[FileRow], resolve: Resolve
) -> Found:
    accept = "application/dicom+json, application/dicom"
    options = dataclasses.replace(sender_options(config), accept=accept)
    stored = [row for row in rows if row.outcome in IN_THE_STORE]
    async with (
        open_authorizer(config, stop, resolve) as authorizer,
        Sender(options, authorizer) as sender,
    ):
        return await look_up(sender, [study.study_instance_uid for study in STUDIES], stored)


def differences_of(
    places: Places, made: Sequence[Made], rows: Sequence[FileRow], summary: RunSummary
) -> list[str]:
    """What is not as planned. Of files with the same UIDs any may be the one that was sent."""
    differences: list[str] = []
    happened = {os.path.relpath(os.fsdecode(row.path), places.archive): row for row in rows}
    copies: dict[tuple[str, str], list[Made]] = {}
    for file in made:
        copies.setdefault(file.key if any(file.key) else ("", file.path), []).append(file)
    for files in copies.values():
        found = [happened.pop(file.path, None) for file in files]
        ends = sorted(f"{row.outcome} {row.reason_code}" for row in found if row is not None)
        plan = sorted(f"{file.outcome} {file.reason_code}" for file in files)
        if ends != plan:
            names = ", ".join(file.path for file in files)
            differences.append(f"{names}: {', '.join(ends)}; planned: {', '.join(plan)}")
    differences += [f"{path}: {row.outcome}; it was not made" for path, row in happened.items()]
    planned_code = exit_code_of(
        Counter(file.outcome for file in made),
        fatal=False, signal_number=None, pixel_warnings=0, unreadable_directories=0,
    )  # fmt: skip
    with open(places.results, "rb") as results:
        lines = sum(1 for _ in results)
    for what, is_, planned in (
        ("the exit code of the run", summary.exit_code, planned_code),
        ("files met", summary.files, len(made)),
        ("lines in the results file", lines, len(made)),
    ):
        if is_ != planned:
            differences.append(f"{what}: {is_}; planned: {planned}")
    return differences

"""What the tests of the road share: values as the stages hand them over, and a record that tells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from ingester.budget import Buffer
from ingester.catalog import KnownFile
from ingester.dicom.values import Header
from ingester.dicomweb.outcome import Outcome
from ingester.items import (
    Directory,
    FileIdentity,
    FileRef,
    Instance,
    Listing,
    Previous,
    Result,
    Root,
    Skipped,
)
from ingester.readers import Readers
from ingester.scan import Found, Scanner


def header(
    study: str = "1.2", sop: str = "1.2.1.1", series: str = "", *, meta: str | None = None
) -> Header:
    """A header that only says what it is."""
    return Header(
        study_instance_uid=study,
        series_instance_uid=series or study + ".1",
        sop_instance_uid=sop,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        media_storage_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        media_storage_sop_instance_uid=sop if meta is None else meta,
        patient_id="P",
        issuer_of_patient_id="",
        study_date="20200102",
        accession_number="A",
        modality="CT",
        data_set_offset=144,
    )


def file_ref(
    file_id: int = 1,
    path: bytes = b"/archive/a.dcm",
    *,
    size: int = 100,
    mtime_ns: int = 1_700_000_000_000_000_000,
    previous: Previous | None = None,
) -> FileRef:
    """A file as the walk hands it over."""
    folder, name = os.path.split(path)
    directory = Directory(1, Root(1, folder, folder), b"")
    return FileRef(file_id, directory, name, size, mtime_ns, previous)


def ref_of(path: bytes, file_id: int = 1, previous: Previous | None = None) -> FileRef:
    """A file that is really there."""
    status = os.stat(path)
    size, mtime_ns = status.st_size, status.st_mtime_ns
    return file_ref(file_id, path, size=size, mtime_ns=mtime_ns, previous=previous)


def instance(
    file_id: int = 1,
    study: str = "1.2",
    sop: str = "",
    *,
    series: str = "",
    size: int = 100,
    meta: str | None = None,
    buffer: Buffer | None = None,
    sha256: bytes | None = None,
) -> Instance:
    """An instance that needs no file."""
    file = file_ref(file_id, b"/archive/%d.dcm" % file_id, size=size)
    return Instance(
        file,
        FileIdentity(1, file_id, size, file.mtime_ns, file.mtime_ns),
        header(study, sop or f"1.2.1.{file_id}", series, meta=meta),
        buffer,
        sha256,
        mtime_trusted=True,
    )


def scanned_by(scanner: Scanner, files: Sequence[FileRef]) -> list[Found]:
    """What a scanner finds these files to be."""
    found: list[Found] = []
    scanner.scan(files, found)
    return found


def readers_of(*roots: Root, threads: int = 1) -> Readers:
    """Real ones; by default of the root that all files of these tests lie in."""
    return Readers(roots or [Root(1, b"/", b"/")], threads)


class Recorded:
    """A record for the ledger: keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.sightings: list[FileRef] = []
        self.directories: list[Skipped] = []
        self.listings: list[Listing] = []
        self.announced: list[list[int]] = []

    def record_all(self, results: Sequence[Result]) -> None:
        self.results.extend(results)

    def seen(self, files: Sequence[FileRef]) -> None:
        self.sightings.extend(files)

    def skipped(self, directories: Sequence[Skipped]) -> None:
        self.directories.extend(directories)

    def listed(self, listings: Sequence[Listing]) -> None:
        self.listings.extend(listings)

    def announce(self, instances: Sequence[Instance]) -> int:
        self.announced.append([instance.file.file_id for instance in instances])
        return len(self.announced)

    async def wait_announced(self, ticket: int) -> None:
        del ticket

    async def wait_for_room(self) -> None:
        return

    @property
    def outcomes(self) -> dict[bytes, Outcome]:
        return {result.file.name: result.outcome for result in self.results}


class KnownTo(dict[bytes, KnownFile]):
    """A name of a catalog, as it answers."""


class Direct(Executor):
    """Runs what is submitted at once, where it is submitted."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
        future: Future[object] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed over
            future.set_exception(error)
        return future

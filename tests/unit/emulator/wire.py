"""Bytes for the tests of the emulator, and a client that says no more than what it is told."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO

from ingester.emulator import Emulator

TEST_FILES = os.path.join(os.path.dirname(pydicom.__file__), "data", "test_files")
BOUNDARY = "0f4e2a"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
DICOM_PART = b"Content-Type: application/dicom"

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def sample(name: str) -> bytes:
    with open(os.path.join(TEST_FILES, name), "rb") as file:
        return file.read()


def sample_names() -> list[str]:
    entries = [entry for entry in os.scandir(TEST_FILES) if entry.is_file()]
    return sorted(entry.name for entry in entries)


def multipart(*parts: bytes, header: bytes = DICOM_PART) -> bytes:
    dash_boundary = f"--{BOUNDARY}".encode()
    opened = b"".join(
        dash_boundary + b"\r\n" + header + b"\r\n\r\n" + part + b"\r\n" for part in parts
    )
    return opened + dash_boundary + b"--"


def instance(
    study: str = "1.2.1",
    series: str = "1.2.1.1",
    sop: str = "1.2.1.1.1",
    *,
    sop_class: str = CT_IMAGE,
    transfer_syntax: str = EXPLICIT_LITTLE,
    modality: str = "CT",
    **attributes: str,
) -> bytes:
    """A small Part 10 file in Explicit VR Little Endian; an attribute given as '' is not in it.

    More attributes by keyword, for instance PatientID.
    """
    meta = FileMetaDataset()
    if transfer_syntax:
        meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
    data_set = Dataset()
    for keyword, value in (
        ("SOPClassUID", sop_class),
        ("SOPInstanceUID", sop),
        ("Modality", modality),
        ("PatientName", "Nobody^Known"),
        ("StudyInstanceUID", study),
        ("SeriesInstanceUID", series),
        *attributes.items(),
    ):
        if value:
            setattr(data_set, keyword, value)
    meta_bytes, body = DicomBytesIO(), io.BytesIO()
    if len(meta):
        pydicom.filewriter.write_file_meta_info(meta_bytes, meta, enforce_standard=False)
    pydicom.dcmwrite(body, data_set, implicit_vr=False, little_endian=True)
    return bytes(128) + b"DICM" + meta_bytes.getvalue() + body.getvalue()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def items(self, tag: str) -> list[dict[str, Any]]:
        """The items of a sequence, each as keyword-less tag to its only value."""
        sequence = self.json.get(tag, {}).get("Value", [])
        return [{t: e["Value"][0] for t, e in item.items() if "Value" in e} for item in sequence]

    @property
    def stored(self) -> list[str]:
        return [item["00081155"] for item in self.items("00081199")]

    @property
    def failed(self) -> dict[str, int]:
        return {item["00081155"]: item["00081197"] for item in self.items("00081198")}

    @property
    def other_failures(self) -> list[int]:
        return [item["00081197"] for item in self.items("0008119A")]


@dataclass
class Client:
    emulator: Emulator
    session: aiohttp.ClientSession

    async def post(
        self,
        body: bytes | AsyncIterator[bytes],
        content_type: str = MULTIPART,
        *,
        study: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Answer:
        path = "/studies" if study is None else f"/studies/{study}"
        return await self.request("POST", path, body, [("Content-Type", content_type), *headers])

    async def get(self, path: str, accept: str = "application/dicom+json") -> Answer:
        return await self.request("GET", path, None, [("Accept", accept)])

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Iterable[tuple[str, str]],
    ) -> Answer:
        url = self.emulator.base_url + path
        async with self.session.request(
            method, url, data=body, headers=[*headers], skip_auto_headers=["Content-Type"]
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def running(store: str | os.PathLike[str], **options: Any) -> AsyncIterator[Client]:
    async with Emulator(store=store, **options) as emulator, aiohttp.ClientSession() as session:
        yield Client(emulator, session)


def files_under(directory: str | os.PathLike[str]) -> list[str]:
    """Every instance and every part that is still arriving, relative to the store."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
        if not name.startswith("index.sqlite")
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something the other side of a socket does."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the file system, or in another task
            await asyncio.sleep(0.01)

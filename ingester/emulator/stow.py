"""STOW-RS (PS3.18 section 10.5): StoreDICOM and StoreDICOMStudy.

Every part is stored as soon as it is complete: a request that breaks off, or whose syntax breaks
later on, leaves the parts before it stored, and a 400 then tells which. Memory: about 1 MiB a
request and the piece of the body that was just received.
"""

from dataclasses import dataclass, field

from aiohttp import web

from ingester.emulator.answers import (
    DICOM_JSON,
    DataSet,
    Refusal,
    accepted,
    dicom_json,
    element,
)
from ingester.emulator.media_types import is_boundary, parse_media_type
from ingester.emulator.multipart import MultipartError, MultipartParser, PartBegin, PartEnd
from ingester.emulator.part10 import Identity, UnreadableError, is_uid
from ingester.emulator.store import Incoming, Store

_DICOM = "application/dicom"

# Failure reasons (PS3.18 table I.2-2) and HealthImaging's warning reason, (0008,1197) and ..1196.
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
UNSUPPORTED_TRANSFER_SYNTAX = 0xB120

# Those HealthImaging reads; an instance in another one is kept as a blob, with a warning.
_READ_TRANSFER_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2{suffix}"
    for suffix in (
        *("", ".1", ".1.99", ".2", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81"),
        *(".4.90", ".4.91", ".4.92", ".4.93", ".4.201", ".4.202", ".4.203"),
        *(f".4.{number}" for number in range(100, 109)),
        *(f".4.{number}.1" for number in range(100, 107)),
    )
)


@dataclass(slots=True)
class Manifest:
    """The Store Instances Response in the making (PS3.18 section I.2)."""

    base_url: str
    stored: list[DataSet] = field(default_factory=list)
    failed: list[DataSet] = field(default_factory=list)
    other_failures: list[DataSet] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    has_warnings: bool = False

    def add_stored(self, identity: Identity) -> None:
        """One instance is stored."""
        study = identity.study_instance_uid
        self.studies.add(study)
        item = _reference(identity)
        item["00081190"] = element(
            "UR",
            f"{self.base_url}/studies/{study}/series/{identity.series_instance_uid}"
            f"/instances/{identity.sop_instance_uid}",
        )
        if identity.transfer_syntax_uid not in _READ_TRANSFER_SYNTAXES:
            item["00081196"] = element("US", UNSUPPORTED_TRANSFER_SYNTAX)
            self.has_warnings = True
        self.stored.append(item)

    def add_failed(self, identity: Identity | None, reason: int) -> None:
        """One instance is not stored; without a SOP Instance UID it has no name to fail by."""
        if identity is None or not identity.sop_instance_uid:
            self.other_failures.append({"00081197": element("US", reason)})
        else:
            self.failed.append({**_reference(identity), "00081197": element("US", reason)})

    @property
    def is_empty(self) -> bool:
        """Nothing was decided yet."""
        return not (self.stored or self.failed or self.other_failures)

    @property
    def status(self) -> int:
        """200 all stored, 202 some or with warnings, 409 none (PS3.18 table 10.5.3-1)."""
        if not self.stored:
            return 409
        return 202 if self.failed or self.other_failures or self.has_warnings else 200

    def data_set(self) -> DataSet:
        """The answer; a sequence without items is left out."""
        study = f"{self.base_url}/studies/{min(self.studies)}" if len(self.studies) == 1 else ""
        answer: DataSet = {"00081190": element("UR", study)}
        for tag, items in (
            ("00081198", self.failed),
            ("00081199", self.stored),
            ("0008119A", self.other_failures),
        ):
            if items:
                answer[tag] = element("SQ", *items)
        return answer


class StowService:
    """Answers ``POST …/studies`` and ``POST …/studies/{study}``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def store_instances(self, request: web.Request) -> web.Response:
        """One Store transaction.

        Raises:
            Refusal: 400, 406 or 415; nothing of the body was stored.
        """
        accepted(request, DICOM_JSON)
        parser = _body_parser(request)
        study = request.match_info.get("StudyInstanceUID")
        if study is not None and not is_uid(study):
            raise Refusal(400, "the Study Instance UID of the path is not a UID")
        manifest = Manifest(f"{request.url.origin()}{request.path.rpartition('/studies')[0]}")
        try:
            await self._receive(request, parser, study, manifest)
        except MultipartError as error:
            if manifest.is_empty:
                raise Refusal(400, f"body: {error}") from error
            answer = dicom_json(manifest.data_set(), status=400)
            answer.headers["Warning"] = f'299 - "body: {error}"'
            return answer
        return dicom_json(manifest.data_set(), status=manifest.status)

    async def _receive(
        self,
        request: web.Request,
        parser: MultipartParser | None,
        study: str | None,
        manifest: Manifest,
    ) -> None:
        incoming = self._store.incoming()
        try:
            async for chunk in request.content.iter_any():
                for event in (chunk,) if parser is None else parser.feed(chunk):
                    match event:
                        case bytes():
                            await self._store.write(incoming, event)
                        case PartBegin(headers):
                            _check_part(headers)
                        case PartEnd():
                            await self._decide(incoming, study, manifest)
                            incoming = self._store.incoming()
            if parser is None:
                await self._decide(incoming, study, manifest)
            else:
                parser.close()
        finally:
            await self._store.discard(incoming)

    async def _decide(self, incoming: Incoming, study: str | None, manifest: Manifest) -> None:
        """Store or refuse one instance, all of whose bytes are there."""
        try:
            identity = await self._store.identify(incoming)
        except UnreadableError:
            manifest.add_failed(None, CANNOT_UNDERSTAND)
            await self._store.discard(incoming)
            return
        reason = None
        if not identity.is_storable:
            reason = CANNOT_UNDERSTAND
        elif study not in (None, identity.study_instance_uid):
            reason = PROCESSING_FAILURE
        if reason is None:
            await self._store.admit(incoming, identity)
            manifest.add_stored(identity)
        else:
            manifest.add_failed(identity, reason)
            await self._store.discard(incoming)


def _body_parser(request: web.Request) -> MultipartParser | None:
    """What reads this body: None when it is one instance, alone."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding is not supported")
    try:
        media_type = parse_media_type(request.headers["Content-Type"])
    except KeyError as error:
        raise Refusal(400, "Content-Type is missing") from error
    except ValueError as error:
        raise Refusal(400, f"Content-Type: {error}") from error
    if media_type.essence == _DICOM:
        return None
    if media_type.essence != "multipart/related":
        raise Refusal(415, f"Content-Type is neither {_DICOM} nor multipart/related")
    for name in ("type", "boundary"):
        if name not in media_type.parameters:
            raise Refusal(400, f"Content-Type has no parameter: {name}")
    if media_type.parameters["type"].lower() != _DICOM:
        raise Refusal(415, f"the type of multipart/related is not {_DICOM}")
    if not is_boundary(media_type.parameters["boundary"]):
        raise Refusal(400, "the boundary is not 1 to 70 characters that RFC 2046 allows")
    return MultipartParser(media_type.parameters["boundary"])


def _check_part(headers: dict[str, str]) -> None:
    try:
        media_type = parse_media_type(headers["content-type"])
    except KeyError as error:
        raise MultipartError("a part without Content-Type") from error
    except ValueError as error:
        raise MultipartError(f"Content-Type of a part: {error}") from error
    if media_type.essence != _DICOM:
        raise MultipartError(f"a part that is not {_DICOM}")


def _reference(identity: Identity) -> DataSet:
    return {
        "00081150": element("UI", identity.sop_class_uid),
        "00081155": element("UI", identity.sop_instance_uid),
    }

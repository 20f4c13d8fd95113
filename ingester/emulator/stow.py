"""STOW-RS (PS3.18 section 10.5): StoreDICOM and StoreDICOMStudy.

Every part is stored as soon as it is complete: a request that breaks off, or whose syntax breaks
later on, leaves the parts before it stored, and a 400 then tells which. Only where the end of the
body tells whether it is what was signed, all parts wait for it on disk. Memory: about 1 MiB a
request, the piece of the body that was just received, and the answer.
"""

from aiohttp import web

from ingester.emulator.answers import DICOM_JSON, Refusal, accepted, dicom_json
from ingester.emulator.body import BODY, Body
from ingester.emulator.intake import Intake
from ingester.emulator.manifest import Manifest
from ingester.emulator.media_types import is_boundary, parse_media_type
from ingester.emulator.multipart import MultipartError, MultipartParser, PartBegin, PartEnd
from ingester.emulator.part10 import is_uid
from ingester.emulator.payload import PayloadMode
from ingester.emulator.sigv4 import invalid_signature
from ingester.emulator.store import Store

_DICOM = "application/dicom"


class StowService:
    """Answers ``POST …/studies`` and ``POST …/studies/{study}``.

    Args:
        store: Where the instances go.
        payload_modes: The ways of vouching for a body that are accepted.
    """

    def __init__(self, store: Store, payload_modes: frozenset[PayloadMode]) -> None:
        self._store = store
        self._payload_modes = payload_modes

    async def store_instances(self, request: web.Request) -> web.Response:
        """One Store transaction.

        Raises:
            Refusal: 400, 403, 406, 413 or 415. Nothing of the body was stored; or, with 413 and a
                body that did not tell its length, what came before the limit.
        """
        body = request[BODY]
        if body.mode is not None and body.mode not in self._payload_modes:
            raise invalid_signature(f"This way of signing a payload is not accepted: {body.mode}.")
        accepted(request, DICOM_JSON)
        parser = _body_parser(request)
        study = request.match_info.get("StudyInstanceUID")
        if study is not None and not is_uid(study):
            raise Refusal(400, "the Study Instance UID of the path is not a UID")
        manifest = Manifest(f"{request.url.origin()}{request.path.rpartition('/studies')[0]}")
        intake = Intake(self._store, manifest, study, is_held=body.is_held)
        try:
            fault = await _receive(body, parser, intake)
            await intake.admit_held()
        finally:
            await intake.discard()
        if fault is None:
            return dicom_json(manifest.data_set(), status=manifest.status)
        if manifest.is_empty:
            raise Refusal(400, f"body: {fault}") from fault
        answer = dicom_json(manifest.data_set(), status=400)
        answer.headers["Warning"] = f'299 - "body: {fault}"'
        return answer


async def _receive(
    body: Body, parser: MultipartParser | None, intake: Intake
) -> MultipartError | None:
    """Take the instances out of a body; gives what ended it before its end, if anything did."""
    fault = None
    async for piece in body.pieces():
        if fault is None:
            try:
                await _take(piece, parser, intake)
            except MultipartError as error:
                if not body.is_held:
                    return error
                fault = error  # but the rest has to be read, to be compared with what was signed
    try:
        if parser is None:
            await intake.complete()
        elif fault is None:
            parser.close()
    except MultipartError as error:
        return error
    return fault


async def _take(piece: bytes, parser: MultipartParser | None, intake: Intake) -> None:
    for event in (piece,) if parser is None else parser.feed(piece):
        match event:
            case bytes():
                await intake.write(event)
            case PartBegin(headers):
                _check_part(headers)
            case PartEnd():
                await intake.complete()


def _body_parser(request: web.Request) -> MultipartParser | None:
    """What reads this body: None when it is one instance, alone."""
    if request[BODY].content_encoding != "identity":
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

"""WADO-RS (PS3.18 section 10.4): one instance, byte for byte as it was stored.

Nothing is transcoded. ``Accept: application/dicom`` gives the file itself, as HealthImaging does;
``multipart/related; type="application/dicom"`` gives it as the only part.
"""

import asyncio
import os
import secrets

from aiohttp import web

from ingester.emulator.answers import Refusal, accepted
from ingester.emulator.index import Key, Row
from ingester.emulator.media_types import MediaType
from ingester.emulator.store import Store
from ingester.emulator.throttle import Throttle

_DICOM = "application/dicom"
_MULTIPART = "multipart/related"
_READ_BYTES = 1 << 20


class WadoService:
    """Answers ``GET …/studies/{study}/series/{series}/instances/{sop}``."""

    def __init__(self, store: Store, throttle: Throttle | None) -> None:
        self._store = store
        self._throttle = throttle

    async def retrieve_instance(self, request: web.Request) -> web.StreamResponse:
        """One instance.

        Raises:
            Refusal: 404 if there is none, 406 for another media type or transfer syntax, 429 or
                503 if that is too many.
        """
        if self._throttle is not None:
            self._throttle.take()
        essence, media_range = accepted(request, _DICOM, _MULTIPART)
        key = Key(
            *(
                request.match_info[name]
                for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
            )
        )
        row = await self._store.get(key)
        if row is None:
            raise Refusal(404, "no such instance")
        _check_transfer_syntax(media_range, row)
        path = self._store.path(key)
        if essence == _DICOM:
            return web.FileResponse(path, headers={"Content-Type": _DICOM})
        if media_range.parameters.get("type", _DICOM).lower() != _DICOM:
            raise Refusal(406, f"the type of {_MULTIPART} is not {_DICOM}")
        return await _send_multipart(request, path)


def _check_transfer_syntax(media_range: MediaType, row: Row) -> None:
    wanted = media_range.parameters.get("transfer-syntax", "*")
    if wanted not in ("*", row["transfer_syntax_uid"]):
        raise Refusal(406, "instances are not transcoded: ask for transfer-syntax=*")


async def _send_multipart(request: web.Request, path: str) -> web.StreamResponse:
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {_DICOM}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--".encode()
    file = await asyncio.to_thread(open, path, "rb", buffering=0)
    try:
        size = os.fstat(file.fileno()).st_size
        answer = web.StreamResponse(
            headers={"Content-Type": f'{_MULTIPART}; type="{_DICOM}"; boundary={boundary}'}
        )
        answer.content_length = len(head) + size + len(tail)
        await answer.prepare(request)
        await answer.write(head)
        while piece := await asyncio.to_thread(file.read, _READ_BYTES):
            await answer.write(piece)
        await answer.write_eof(tail)
        return answer
    finally:
        file.close()

"""WADO-RS metadata (PS3.18 section 10.4.1.1.2) of an instance, or of a series, in DICOM JSON.

Without the pixel data and what follows them. A long binary value is told by the URL of its
instance, which has it; a value that pydicom cannot put into JSON is left out.
"""

import json
from collections.abc import AsyncIterator

from aiohttp import web
from pydicom.dataelem import RawDataElement

from ingester.emulator.answers import DICOM_JSON, Refusal, accepted
from ingester.emulator.index import Key
from ingester.emulator.part10 import read_data_set
from ingester.emulator.store import Store
from ingester.emulator.throttle import Throttle

_PAGE = 100
_INLINE_BYTES = 1024


class MetadataService:
    """Answers ``GET …/metadata``. Memory: the metadata of one instance."""

    def __init__(self, store: Store, throttle: Throttle | None) -> None:
        self._store = store
        self._throttle = throttle

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """The metadata of one instance, or of the instances of a series in the order of UIDs.

        Raises:
            Refusal: 404 if there is none, 406 for another media type, 429 or 503.
        """
        if self._throttle is not None:
            self._throttle.take()
        essence, _ = accepted(request, DICOM_JSON, "application/json")
        keys = self._keys(request)
        first = await anext(keys, None)
        if first is None:
            raise Refusal(404, "no such instance")
        base_url = f"{request.url.origin()}{request.path.partition('/studies')[0]}"
        answer = web.StreamResponse(headers={"Content-Type": essence})
        before, key = b"[", first
        piece = await self._store.call(_read, self._store.path(key), _url(base_url, key))
        await answer.prepare(request)
        await answer.write(before + piece)
        async for key in keys:
            piece = await self._store.call(_read, self._store.path(key), _url(base_url, key))
            await answer.write(b"," + piece)
        await answer.write_eof(b"]")
        return answer

    async def _keys(self, request: web.Request) -> AsyncIterator[Key]:
        match = {
            "study_instance_uid": request.match_info["StudyInstanceUID"],
            "series_instance_uid": request.match_info["SeriesInstanceUID"],
        }
        sop_instance_uid = request.match_info.get("SOPInstanceUID")
        if sop_instance_uid is not None:
            match["sop_instance_uid"] = sop_instance_uid
        offset = 0
        while rows := await self._store.search("instance", match, _PAGE, offset):
            for row in rows:
                yield Key(*(str(row[name]) for name in Key._fields))
            offset += len(rows)


def _url(base_url: str, key: Key) -> str:
    study, series, sop = key
    return f"{base_url}/studies/{study}/series/{series}/instances/{sop}"


def _read(path: str, url: str) -> bytes:
    data_set = read_data_set(path)
    elements: dict[str, object] = {}
    for tag in sorted(data_set.keys()):
        try:
            element: object = data_set.get_item(tag, keep_deferred=True)
            if isinstance(element, RawDataElement) and element.value is None and element.length:
                elements[f"{tag:08X}"] = {"vr": element.VR or "UN", "BulkDataURI": url}
            else:
                elements[f"{tag:08X}"] = data_set[tag].to_json_dict(lambda _: url, _INLINE_BYTES)
        except Exception:  # noqa: BLE001, S112 - pydicom raises about any type, and quotes values
            continue
    return json.dumps(elements, separators=(",", ":"), default=str).encode()

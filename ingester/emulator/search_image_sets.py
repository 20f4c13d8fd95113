"""SearchImageSets, an action of HealthImaging's control plane: also what QIDO-RS does not show.

``POST /datastore/{id}/searchImageSets``, the request and the answer as the model of the service
has them (version 2023-07-19, protocol rest-json). A client of an AWS SDK must be told not to put
``runtime-`` in front of the host (botocore: ``inject_host_prefix=False``). Not searched by:
DICOMStudyDateAndTime.
"""

import re

import msgspec
from aiohttp import web

from ingester.emulator.answers import Refusal
from ingester.emulator.body import BODY
from ingester.emulator.image_sets import SEARCH_KEYS, SORT_KEYS, Filter, Row, Value
from ingester.emulator.store import Store

MAX_RESULTS = 50
_MAX_BODY_BYTES = 65536

_KINDS: dict[str, type[Value] | tuple[type[Value], ...]] = {
    "isPrimary": bool,
    "createdAt": (int, float),
    "updatedAt": (int, float),
}
_TAGS = {  # of DICOMTags: the column
    "DICOMPatientId": "patient_id",
    "DICOMStudyInstanceUID": "study_instance_uid",
    "DICOMStudyId": "study_id",
    "DICOMAccessionNumber": "accession_number",
    "DICOMSeriesInstanceUID": "series_instance_uid",
    "DICOMSeriesModality": "modality",
    "DICOMStudyDate": "study_date",
}
_TOKEN = re.compile(r"[0-9]{1,9}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


class _SearchFilter(msgspec.Struct):
    values: list[dict[str, str | bool | int | float]]
    operator: str


class _Sort(msgspec.Struct, frozen=True):
    sortField: str  # noqa: N815 - the model's name
    sortOrder: str  # noqa: N815 - the same


class _SearchCriteria(msgspec.Struct):
    filters: list[_SearchFilter] = []
    sort: _Sort = _Sort("updatedAt", "DESC")


class SearchImageSetsService:
    """Answers ``POST …/searchImageSets``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def search(self, request: web.Request) -> web.Response:
        """One page of image sets.

        Raises:
            Refusal: 400, a request that the model does not allow, or that is not supported.
        """
        criteria = await _read(request)
        limit = _number(request, "maxResults", MAX_RESULTS)
        offset = _number(request, "nextToken", 0)
        if not 1 <= limit <= MAX_RESULTS:
            raise Refusal(400, f"maxResults is 1 to {MAX_RESULTS}")
        if len(criteria.filters) > 2:
            raise Refusal(400, "more than two filters")
        sort = criteria.sort
        if sort.sortField not in SORT_KEYS or sort.sortOrder not in ("ASC", "DESC"):
            raise Refusal(400, "a sort that is not supported here")
        rows = await self._store.search_image_sets(
            [_filter(it) for it in criteria.filters],
            sort.sortField,
            limit + 1,
            offset,
            descending=sort.sortOrder == "DESC",
        )
        answer: dict[str, object] = {
            "imageSetsMetadataSummaries": [_summary(row) for row in rows[:limit]],
            "sort": sort,
        }
        if len(rows) > limit:
            answer["nextToken"] = str(offset + limit)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def _read(request: web.Request) -> _SearchCriteria:
    body = bytearray()
    async for piece in request[BODY].pieces():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise Refusal(413, f"search criteria of more than {_MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=_SearchCriteria)
    except msgspec.DecodeError as error:
        raise Refusal(400, "the body is not JSON of SearchCriteria") from error


def _number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if _TOKEN.fullmatch(value) is None:
        raise Refusal(400, f"not a value that was given here: {name}")
    return int(value)


def _filter(it: _SearchFilter) -> Filter:
    wanted = {"EQUAL": 1, "BETWEEN": 2}.get(it.operator)
    keys = {key for value in it.values for key in value}
    if wanted != len(it.values) or len(keys) != 1 or not all(it.values):
        raise Refusal(400, "a filter has one attribute: one value for EQUAL, two for BETWEEN")
    [key] = keys
    if key not in SEARCH_KEYS:
        raise Refusal(400, "a search attribute that is not supported here")
    bounds = [value[key] for value in it.values]
    if not all(isinstance(bound, _KINDS.get(key, str)) for bound in bounds):
        raise Refusal(400, f"a value of another type: {key}")
    return Filter(key, bounds[0], bounds[-1])


def _summary(row: Row) -> dict[str, object]:
    tags: dict[str, object] = {name: row[column] for name, column in _TAGS.items() if row[column]}
    if _INTEGER.fullmatch(str(row["series_number"])):
        tags["DICOMSeriesNumber"] = int(row["series_number"])
    tags["DICOMNumberOfStudyRelatedSeries"] = 1  # of this image set
    tags["DICOMNumberOfStudyRelatedInstances"] = row["instances"]
    return {
        "imageSetId": row["id"],
        "version": row["version"],
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "storageTier": "FREQUENT_ACCESS",
        "isPrimary": bool(row["is_primary"]),
        "DICOMTags": tags,
    }

"""QIDO-RS (PS3.18 section 10.6): studies, series and instances, in DICOM JSON.

Results are ordered by UID and a page never overlaps the next, as long as nothing is stored
meanwhile. Matching is exact; a list of UIDs is refused, because no HealthImaging document promises
it, and so is every search key that is not supported: a search that ignores one finds too much.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from ingester.emulator.answers import (
    DICOM_JSON,
    DataSet,
    Refusal,
    accepted,
    dicom_json,
    element,
)
from ingester.emulator.index import SEARCH_KEYS, Level, Row
from ingester.emulator.store import Store

# HealthImaging's limits of the paging parameters.
MAX_LIMIT = 1000
MAX_OFFSET = 1_000_000

_ATTRIBUTES = {  # column: keyword, tag, VR
    "sop_class_uid": ("SOPClassUID", "00080016", "UI"),
    "sop_instance_uid": ("SOPInstanceUID", "00080018", "UI"),
    "modality": ("Modality", "00080060", "CS"),
    "modalities_in_study": ("ModalitiesInStudy", "00080061", "CS"),
    "transfer_syntax_uid": ("AvailableTransferSyntaxUID", "00083002", "UI"),
    "study_instance_uid": ("StudyInstanceUID", "0020000D", "UI"),
    "series_instance_uid": ("SeriesInstanceUID", "0020000E", "UI"),
    "number_of_study_related_series": ("NumberOfStudyRelatedSeries", "00201206", "IS"),
    "number_of_study_related_instances": ("NumberOfStudyRelatedInstances", "00201208", "IS"),
    "number_of_series_related_instances": ("NumberOfSeriesRelatedInstances", "00201209", "IS"),
}
_COLUMNS = {name: column for column, names in _ATTRIBUTES.items() for name in names[:2]}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class QidoService:
    """Answers the searches under one base URL."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def search(self, level: Level) -> Handler:
        """The handler of the searches whose results are studies, series or instances."""

        async def handle(request: web.Request) -> web.Response:
            accepted(request, DICOM_JSON, "application/json")
            match = _match(request, level)
            limit = _number(request, "limit", MAX_LIMIT, MAX_LIMIT)
            offset = _number(request, "offset", 0, MAX_OFFSET)
            rows = await self._store.search(level, match, limit, offset)
            return dicom_json([_data_set(row) for row in rows])

        return handle


def _match(request: web.Request, level: Level) -> dict[str, str]:
    """The search keys of the path and the query, by column."""
    match = {_COLUMNS[name]: value for name, value in request.match_info.items()}
    for name, value in request.query.items():
        if name in ("limit", "offset", "includefield"):
            continue  # results always have all the attributes there are
        column = _COLUMNS.get(name)
        if column not in SEARCH_KEYS[level]:
            raise Refusal(400, "a search key that is not supported here")
        if any(mark in value for mark in ",\\*?") or not value:
            raise Refusal(400, f"only one exact value is supported: {name}")
        if match.setdefault(column, value) != value:
            raise Refusal(400, f"two values for one search key: {name}")
    return match


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    values = request.query.getall(name, [str(default)])
    if len(values) > 1 or not (values[0].isascii() and values[0].isdigit()):
        raise Refusal(400, f"not one number: {name}")
    if len(values[0]) > len(str(most)) or int(values[0]) > most:
        raise Refusal(400, f"above {most}: {name}")
    return int(values[0])


def _data_set(row: Row) -> DataSet:
    data_set: DataSet = {}
    for column, (_, tag, vr) in _ATTRIBUTES.items():
        if column in row:
            value = row[column]
            several = isinstance(value, str) and column == "modalities_in_study"
            data_set[tag] = element(vr, *(str(value).split(",") if several else [value]))
    return data_set

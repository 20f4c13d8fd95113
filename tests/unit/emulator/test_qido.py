"""PS3.18 section 10.6, with HealthImaging's limits."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.emulator.wire import CT_IMAGE, EXPLICIT_LITTLE, Client, instance, multipart, running

STUDY, SERIES, SOP, MODALITY = "0020000D", "0020000E", "00080018", "00080060"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Two studies of two series of three instances, CT and MR."""
    async with running(tmp_path) as it:
        answer = await it.post(
            multipart(
                *(
                    instance(
                        f"1.{a}", f"1.{a}.{b}", f"1.{a}.{b}.{c}", modality="CT" if b == 1 else "MR"
                    )
                    for a in (2, 1)
                    for b in (1, 2)
                    for c in (3, 1, 2)
                )
            )
        )
        assert answer.status == 200
        yield it


async def found(client: Client, path: str, tag: str) -> list[Any]:
    answer = await client.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/dicom+json")
    return [result[tag]["Value"][0] for result in answer.json]


class TestASearch:
    async def test_for_a_study(self, client: Client) -> None:
        answer = await client.get("/studies?StudyInstanceUID=1.2")
        assert answer.json == [
            {
                "00080061": {"vr": "CS", "Value": ["CT", "MR"]},
                STUDY: {"vr": "UI", "Value": ["1.2"]},
                "00201206": {"vr": "IS", "Value": [2]},
                "00201208": {"vr": "IS", "Value": [6]},
            }
        ]

    async def test_for_the_series_of_a_study(self, client: Client) -> None:
        answer = await client.get("/studies/1.1/series?Modality=MR")
        assert answer.json == [
            {
                MODALITY: {"vr": "CS", "Value": ["MR"]},
                STUDY: {"vr": "UI", "Value": ["1.1"]},
                SERIES: {"vr": "UI", "Value": ["1.1.2"]},
                "00201209": {"vr": "IS", "Value": [3]},
            }
        ]

    async def test_for_an_instance(self, client: Client) -> None:
        answer = await client.get("/instances?SOPInstanceUID=1.1.2.3")
        assert answer.json == [
            {
                "00080016": {"vr": "UI", "Value": [CT_IMAGE]},
                SOP: {"vr": "UI", "Value": ["1.1.2.3"]},
                MODALITY: {"vr": "CS", "Value": ["MR"]},
                "00083002": {"vr": "UI", "Value": [EXPLICIT_LITTLE]},
                STUDY: {"vr": "UI", "Value": ["1.1"]},
                SERIES: {"vr": "UI", "Value": ["1.1.2"]},
            }
        ]

    @pytest.mark.parametrize(
        ("path", "tag", "expected"),
        [
            ("/studies", STUDY, ["1.1", "1.2"]),
            ("/series", SERIES, ["1.1.1", "1.1.2", "1.2.1", "1.2.2"]),
            ("/series?SeriesInstanceUID=1.2.1", SERIES, ["1.2.1"]),
            ("/studies/1.2/series", SERIES, ["1.2.1", "1.2.2"]),
            ("/studies/1.2/instances", SOP, [f"1.2.{b}.{c}" for b in (1, 2) for c in (1, 2, 3)]),
            ("/studies/1.2/series/1.2.1/instances", SOP, ["1.2.1.1", "1.2.1.2", "1.2.1.3"]),
            ("/studies/1.2/instances?SOPInstanceUID=1.2.1.2", SOP, ["1.2.1.2"]),
            ("/studies/1.2/instances?00080018=1.2.1.2&includefield=all", SOP, ["1.2.1.2"]),
            ("/instances?StudyInstanceUID=1.1&Modality=MR", SOP, ["1.1.2.1", "1.1.2.2", "1.1.2.3"]),
            (f"/instances?SOPClassUID={CT_IMAGE}&limit=1", SOP, ["1.1.1.1"]),
        ],
    )
    async def test_finds_what_matches_in_order_of_uids(
        self, client: Client, path: str, tag: str, expected: list[str]
    ) -> None:
        assert await found(client, path, tag) == expected

    @pytest.mark.parametrize(
        "path",
        [
            "/studies?StudyInstanceUID=1.3",
            "/studies/1.3/series",
            "/studies/1.1/series/1.2.1/instances",
            "/studies/1.1/instances?SOPInstanceUID=1.2.1.1",
            "/instances?SOPInstanceUID=1.2.1.1&SeriesInstanceUID=1.1.1",
            "/instances?offset=1000000",
            "/instances?limit=0",
        ],
    )
    async def test_that_finds_nothing_answers_200_and_an_empty_array(
        self, client: Client, path: str
    ) -> None:
        answer = await client.get(path)
        assert (answer.status, answer.body) == (200, b"[]")

    @pytest.mark.parametrize(
        "query",
        [
            "PatientName=Nobody",
            "SOPInstanceUID=1.1.1.1,1.1.1.2",
            "SOPInstanceUID=1.1.1.1%5C1.1.1.2",
            "SOPInstanceUID=1.*",
            "SOPInstanceUID=",
            "SOPInstanceUID=1.1.1.1&SOPInstanceUID=1.1.1.2",
        ],
    )
    async def test_that_is_not_supported_answers_400(self, client: Client, query: str) -> None:
        answer = await client.get(f"/instances?{query}")
        assert answer.status == 400
        assert answer.headers["x-amzn-errortype"] == "ValidationException"

    async def test_at_study_level_has_no_keys_of_instances(self, client: Client) -> None:
        assert (await client.get("/studies?SOPInstanceUID=1.1.1.1")).status == 400

    async def test_answers_no_other_media_type(self, client: Client) -> None:
        assert (await client.get("/studies", "application/json")).status == 200
        assert (await client.get("/studies", "*/*")).status == 200
        assert (await client.get("/studies", "application/dicom+xml")).status == 406


class TestPages:
    @pytest.mark.parametrize("limit", [1, 2, 5, 12, 1000])
    async def test_together_are_everything_once(self, client: Client, limit: int) -> None:
        everything = await found(client, "/instances", SOP)
        pages: list[Any] = []
        while page := await found(client, f"/instances?limit={limit}&offset={len(pages)}", SOP):
            assert len(page) <= limit
            pages += page
        assert pages == everything
        assert len(set(pages)) == 12

    async def test_page_studies_not_their_instances(self, client: Client) -> None:
        assert await found(client, "/studies?limit=1&offset=1", STUDY) == ["1.2"]

    @pytest.mark.parametrize(
        "query",
        [
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=1&limit=1",
            "offset=1000001",
            "offset=-1",
            "limit=" + "9" * 5000,
        ],
    )
    async def test_beyond_the_limits_answer_400(self, client: Client, query: str) -> None:
        assert (await client.get(f"/instances?{query}")).status == 400

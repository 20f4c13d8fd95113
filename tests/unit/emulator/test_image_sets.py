"""What HealthImaging makes of instances whose grouping elements conflict, and SearchImageSets."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
import msgspec
import pytest

from tests.unit.emulator.signing import KEYS, REGION, SignedClient, verifying
from tests.unit.emulator.wire import Client, files_under, instance, multipart, running

GROUP = {
    "StudyDate": "20260301",
    "AccessionNumber": "A1",
    "PatientID": "P1",
    "StudyID": "S1",
    "SeriesNumber": "7",
}
STUDY_LEVEL = [keyword for keyword in GROUP if keyword != "SeriesNumber"]


def grouped(sop: str = "1.2.1.1.1", series: str = "1.2.1.1", **other: str) -> bytes:
    return instance(series=series, sop=sop, **(GROUP | other))


async def image_sets(client: Client, criteria: object = None, query: str = "") -> Any:
    body = msgspec.json.encode(criteria or {})
    answer = await client.request("POST", f"/searchImageSets{query}", body, [])
    assert answer.status == 200
    return answer.json["imageSetsMetadataSummaries"]


async def primaries(client: Client) -> list[tuple[bool, int, int]]:
    """Of each image set: whether it is primary, its version, its number of instances."""
    found = await image_sets(client, {"sort": {"sortField": "createdAt", "sortOrder": "ASC"}})
    return sorted(
        (it["isPrimary"], it["version"], it["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"])
        for it in found
    )


async def sops(client: Client) -> list[str]:
    return [it["00080018"]["Value"][0] for it in (await client.get("/instances")).json]


class TestAnInstanceThatConflicts:
    @pytest.mark.parametrize("keyword", list(GROUP))
    async def test_is_stored_but_not_shown(self, client: Client, keyword: str) -> None:
        await client.post(multipart(grouped()))
        answer = await client.post(multipart(grouped("1.2.1.1.2", **{keyword: "20260302"})))
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.2"])
        assert await sops(client) == ["1.2.1.1.1"]
        path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.2"
        assert (await client.get(path, "*/*")).status == 404
        assert (await client.get(f"{path}/metadata")).status == 404
        assert await primaries(client) == [(False, 1, 1), (True, 1, 1)]

    async def test_does_not_replace_its_primary_namesake(self, client: Client) -> None:
        await client.post(multipart(grouped()))
        await client.post(multipart(grouped(PatientID="P2")))
        answer = await client.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1", "*/*")
        assert answer.body == grouped()

    async def test_makes_another_image_set_with_each_request(
        self, client: Client, tmp_path: Path
    ) -> None:
        other = [grouped(f"1.2.1.1.{n}", PatientID="P2") for n in (2, 3)]
        await client.post(multipart(grouped()))
        await client.post(multipart(*other))
        await client.post(multipart(*other))
        assert await primaries(client) == [(False, 1, 2), (False, 1, 2), (True, 1, 1)]
        assert len([path for path in files_under(tmp_path) if path.startswith(".non-")]) == 4

    async def test_in_one_request_with_what_it_conflicts_with_comes_second(
        self, client: Client
    ) -> None:
        await client.post(multipart(grouped("1.2.2"), grouped("1.2.1", StudyID="S2")))
        assert await sops(client) == ["1.2.2"]

    async def test_is_found_again_after_a_restart(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            await client.post(multipart(grouped(), grouped("1.2.3", PatientID="P2")))
            await client.post(multipart(grouped("1.2.4", series="1.2.9", PatientID="P3")))
            before = await primaries(client)
        async with running(tmp_path) as client:
            assert await primaries(client) == before == [(False, 1, 1), (False, 1, 1), (True, 1, 1)]
        lose_the_index(tmp_path)
        async with running(tmp_path) as client:
            assert await primaries(client) == before
            assert await sops(client) == ["1.2.1.1.1"]

    async def test_is_forgotten_with_its_file(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            await client.post(multipart(grouped(), grouped("1.2.3", PatientID="P2")))
        shutil.rmtree(tmp_path / ".non-primary")
        async with running(tmp_path) as client:
            assert await primaries(client) == [(True, 1, 1)]
        shutil.rmtree(tmp_path / "1.2.1")
        async with running(tmp_path) as client:
            assert await primaries(client) == []
            await client.post(multipart(grouped("1.2.3", PatientID="P2")))
            assert await sops(client) == ["1.2.3"]


class TestAnInstanceThatAgrees:
    async def test_joins_the_image_set_of_its_series(self, client: Client) -> None:
        await client.post(multipart(grouped("1.2.1"), grouped("1.2.2")))
        await client.post(multipart(grouped("1.2.3")))
        await client.post(multipart(grouped("1.2.3")))
        assert await primaries(client) == [(True, 3, 3)]

    async def test_may_have_another_number_in_another_series(self, client: Client) -> None:
        await client.post(multipart(grouped("1.2.1"), grouped("1.2.2", "1.2.9", SeriesNumber="8")))
        assert await primaries(client) == [(True, 1, 1), (True, 1, 1)]

    @pytest.mark.parametrize("keyword", STUDY_LEVEL)
    async def test_must_agree_with_the_whole_study(self, client: Client, keyword: str) -> None:
        await client.post(
            multipart(grouped("1.2.1"), grouped("1.2.2", "1.2.9", **{keyword: "20260302"}))
        )
        assert await primaries(client) == [(False, 1, 1), (True, 1, 1)]

    async def test_may_be_padded_otherwise(self, client: Client) -> None:
        await client.post(multipart(grouped("1.2.1"), grouped("1.2.2", PatientID="P1  ")))
        assert await primaries(client) == [(True, 1, 2)]


def lose_the_index(store: Path) -> None:
    for path in store.glob("index.sqlite*"):
        path.unlink()


def equal(key: str, value: object) -> dict[str, object]:
    return {"operator": "EQUAL", "values": [{key: value}]}


class TestSearchImageSets:
    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ([], [False, True]),
            ([equal("isPrimary", True)], [True]),
            ([equal("isPrimary", False)], [False]),
            ([equal("DICOMSeriesInstanceUID", "1.2.1.1"), equal("isPrimary", False)], [False]),
            ([equal("DICOMPatientId", "P2")], [False]),
            ([equal("DICOMPatientId", "P3")], []),
            ([equal("DICOMStudyInstanceUID", "1.2.1")], [False, True]),
            ([equal("DICOMAccessionNumber", "A1")], [False, True]),
            ([equal("DICOMStudyId", "S1")], [False, True]),
            ([{"operator": "BETWEEN", "values": [{"createdAt": 0}, {"createdAt": 9e12}]}], [False, True]),
            ([{"operator": "BETWEEN", "values": [{"updatedAt": 0}, {"updatedAt": 1}]}], []),
        ],
    )  # fmt: skip
    async def test_filters(
        self, client: Client, filters: list[object], expected: list[bool]
    ) -> None:
        await client.post(multipart(grouped(), grouped("1.2.3", PatientID="P2")))
        found = await image_sets(client, {"filters": filters} if filters else {})
        assert sorted(it["isPrimary"] for it in found) == expected

    @pytest.mark.parametrize(
        "criteria",
        [
            b"x",
            b"[]",
            b'{"filters": [{"operator": "EQUAL", "values": []}]}',
            b'{"filters": [{"operator": "BETWEEN", "values": [{"isPrimary": true}]}]}',
            b'{"filters": [{"operator": "EQUAL", "values": [{"isPrimary": "true"}]}]}',
            b'{"filters": [{"operator": "EQUAL", "values": [{"PatientName": "x"}]}]}',
            b'{"filters": [{"operator": "LIKE", "values": [{"DICOMStudyId": "x"}]}]}',
            b'{"sort": {"sortField": "size", "sortOrder": "ASC"}}',
        ],
    )
    async def test_refuses_what_the_model_has_not(self, client: Client, criteria: bytes) -> None:
        answer = await client.request("POST", "/searchImageSets", criteria, [])
        assert answer.status == 400
        assert answer.headers["x-amzn-errortype"] == "ValidationException"

    @pytest.mark.parametrize("query", ["?maxResults=0", "?maxResults=51", "?nextToken=x"])
    async def test_refuses_other_pages(self, client: Client, query: str) -> None:
        assert (await client.request("POST", f"/searchImageSets{query}", b"", [])).status == 400

    async def test_refuses_a_large_body(self, client: Client) -> None:
        answer = await client.request("POST", "/searchImageSets", bytes(70_000), [])
        assert answer.status == 413


class TestAwsOwnClient:
    """botocore's client of the service: its requests, its reading of the answers."""

    @pytest.fixture
    async def client(self, tmp_path: Path) -> AsyncIterator[SignedClient]:
        """Without the fixed clock: botocore signs by the machine's."""
        async with verifying(tmp_path, clock=time.time) as it:
            yield it

    def aws(self, client: SignedClient, secret_key: str = KEYS.secret_key) -> Any:
        return botocore.session.Session().create_client(
            "medical-imaging",
            region_name=REGION,
            endpoint_url=client.emulator.url,
            aws_access_key_id=KEYS.access_key,
            aws_secret_access_key=secret_key,
            config=botocore.config.Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
        )  # fmt: skip

    async def test_pages_through_what_is_not_primary(self, client: SignedClient) -> None:
        for n in range(3):
            body = grouped(f"1.2.{n}", f"1.3.{n}")
            assert (await client.store("unsigned", body, at=time.time())).status == 200

        def pages() -> list[Any]:
            paginator = self.aws(client).get_paginator("search_image_sets")
            found = paginator.paginate(
                datastoreId=client.emulator.datastore,
                searchCriteria={
                    "filters": [{"operator": "EQUAL", "values": [{"isPrimary": True}]}]
                },
                PaginationConfig={"PageSize": 2},
            )
            return [it for page in found for it in page["imageSetsMetadataSummaries"]]

        found = await asyncio.to_thread(pages)
        assert [it["isPrimary"] for it in found] == [True] * 3
        assert len({it["imageSetId"] for it in found}) == 3
        assert {it["DICOMTags"]["DICOMSeriesNumber"] for it in found} == {7}
        assert found[0]["createdAt"].year >= 2026

    async def test_with_another_secret_is_refused(self, client: SignedClient) -> None:
        aws = await asyncio.to_thread(self.aws, client, "another")
        with pytest.raises(botocore.exceptions.ClientError) as error:
            await asyncio.to_thread(aws.search_image_sets, datastoreId=client.emulator.datastore)
        assert error.value.response["Error"]["Code"] == "InvalidSignatureException"

"""PS3.18 section 10.4: Retrieve Instance, verbatim."""

import pytest

from ingester.emulator.media_types import parse_media_type
from tests.unit.emulator.wire import Client, instance, multipart, sample

CT = "/studies/1.3.6.1.4.1.5962.1.2.1.20040119072730.12322/series/1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322/instances/1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


class TestAnInstance:
    @pytest.mark.parametrize(
        "accept",
        [
            "application/dicom; transfer-syntax=*",
            "application/dicom",
            "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
            "text/html, application/*;q=0.5",
            "*/*",
        ],
    )
    async def test_comes_back_byte_for_byte(self, client: Client, accept: str) -> None:
        await client.post(multipart(sample("CT_small.dcm")))
        answer = await client.get(CT, accept)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/dicom")
        assert answer.body == sample("CT_small.dcm")

    async def test_comes_back_as_the_only_part(self, client: Client) -> None:
        await client.post(multipart(sample("CT_small.dcm")))
        answer = await client.get(
            CT, 'multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        media_type = parse_media_type(answer.headers["Content-Type"])
        boundary = media_type.parameters["boundary"].encode()
        assert (media_type.essence, media_type.parameters["type"]) == (
            "multipart/related",
            "application/dicom",
        )
        head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
        assert answer.body == head + sample("CT_small.dcm") + b"\r\n--" + boundary + b"--"

    async def test_is_found_by_the_url_of_the_store_answer(self, client: Client) -> None:
        stored = await client.post(multipart(instance()))
        url = stored.items("00081199")[0]["00081190"]
        answer = await client.get(url.removeprefix(client.emulator.base_url), "application/dicom")
        assert answer.body == instance()

    async def test_is_the_one_stored_last(self, client: Client) -> None:
        path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
        for modality in ("CT", "MR", "US"):
            await client.post(multipart(instance(modality=modality)))
            assert (await client.get(path, "*/*")).body == instance(modality=modality)

    @pytest.mark.parametrize(
        "accept",
        [
            "image/jpeg",
            "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50",
            'multipart/related; type="image/jpeg"',
        ],
    )
    async def test_in_another_form_is_406(self, client: Client, accept: str) -> None:
        await client.post(multipart(sample("CT_small.dcm")))
        assert (await client.get(CT, accept)).status == 406

    @pytest.mark.parametrize(
        "path",
        [
            CT,
            "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.2",
            "/studies/1.2.1/series/1.2.1.2/instances/1.2.1.1.1",
            "/studies/1.2.2/series/1.2.1.1/instances/1.2.1.1.1",
            "/studies/..%2F1.2.1/series/1.2.1.1/instances/1.2.1.1.1",
            "/studies/%2E%2E/series/1.2.1.1/instances/1.2.1.1.1",
        ],
    )
    async def test_that_is_not_there_is_404(self, client: Client, path: str) -> None:
        await client.post(multipart(instance()))
        answer = await client.get(path, "application/dicom")
        assert answer.status == 404
        assert answer.headers["x-amzn-errortype"] == "ResourceNotFoundException"

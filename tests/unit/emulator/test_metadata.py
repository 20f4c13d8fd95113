"""WADO-RS metadata: the data set in DICOM JSON, without pixel data."""

import pydicom
import pytest

from tests.unit.emulator.wire import Client, instance, multipart, sample, sample_names

CT = "/studies/1.3.6.1.4.1.5962.1.2.1.20040119072730.12322/series/1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"


class TestMetadata:
    async def test_of_an_instance(self, client: Client) -> None:
        await client.post(multipart(sample("CT_small.dcm")))
        path = f"{CT}/instances/1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
        answer = await client.get(f"{path}/metadata")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/dicom+json")
        [data_set] = answer.json
        assert data_set["00100020"] == {"vr": "LO", "Value": ["1CT1"]}
        assert "7FE00010" not in data_set
        assert pydicom.Dataset.from_json(data_set).Rows == 128

    async def test_of_a_series_is_in_order_of_uids(self, client: Client) -> None:
        count = 230
        await client.post(multipart(*(instance(sop=f"1.2.{n}") for n in range(count))))
        answer = await client.get("/studies/1.2.1/series/1.2.1.1/metadata")
        sops = [data_set["00080018"]["Value"][0] for data_set in answer.json]
        assert sops == sorted(f"1.2.{n}" for n in range(count))

    async def test_names_the_instance_for_what_is_long(self, client: Client) -> None:
        for size in (2000, 100_000):
            value = b"\x09\0\x10\0LO\x01\0X\x09\0\x02\x10OB\0\0" + size.to_bytes(4, "little")
            path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
            await client.post(multipart(instance() + value + bytes(size)))
            [data_set] = (await client.get(f"{path}/metadata")).json
            assert data_set["00091002"] == {
                "vr": "OB",
                "BulkDataURI": client.emulator.base_url + path,
            }

    async def test_is_there_for_whatever_was_stored(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And nothing that pydicom says of it is logged: it quotes values."""
        for name in sample_names():
            answer = await client.post(multipart(sample(name)))
            for reference in answer.items("00081199"):
                path = reference["00081190"].removeprefix(client.emulator.base_url)
                [data_set] = (await client.get(f"{path}/metadata")).json
                assert data_set["00080018"]["Value"] == [reference["00081155"]]
        assert [it.name for it in caplog.records if it.name.startswith("pydicom")] == []

    @pytest.mark.parametrize("path", ["/series/9/metadata", "/series/1.2.1.1/instances/9/metadata"])
    async def test_of_nothing_is_404(self, client: Client, path: str) -> None:
        await client.post(multipart(instance()))
        assert (await client.get(f"/studies/1.2.1{path}")).status == 404

    async def test_in_another_form_is_406(self, client: Client) -> None:
        await client.post(multipart(instance()))
        path = "/studies/1.2.1/series/1.2.1.1/metadata"
        assert (await client.get(path, "application/dicom+xml")).status == 406

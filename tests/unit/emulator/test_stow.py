"""PS3.18 section 10.5 and annex I.2; single parts and JSON as HealthImaging documents them."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingester.emulator.multipart import MAX_PART_HEADER_BYTES
from tests.unit.emulator.wire import (
    BOUNDARY,
    CT_IMAGE,
    MULTIPART,
    Client,
    files_under,
    instance,
    multipart,
    sample,
    sample_names,
    until,
)

CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
ONE = instance()
ONE_PATH = os.path.join("1.2.1", "1.2.1.1", "1.2.1.1.1.dcm")


class TestAllStored:
    async def test_answers_200_and_names_each_instance(self, client: Client) -> None:
        two = instance(sop="1.2.1.1.2")
        answer = await client.post(multipart(ONE, two))
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/dicom+json"
        url = f"{client.emulator.base_url}/studies/1.2.1"
        assert answer.json == {
            "00081190": {"vr": "UR", "Value": [url]},
            "00081199": {
                "vr": "SQ",
                "Value": [
                    {
                        "00081150": {"vr": "UI", "Value": [CT_IMAGE]},
                        "00081155": {"vr": "UI", "Value": [sop]},
                        "00081190": {
                            "vr": "UR",
                            "Value": [f"{url}/series/1.2.1.1/instances/{sop}"],
                        },
                    }
                    for sop in ("1.2.1.1.1", "1.2.1.1.2")
                ],
            },
        }

    async def test_has_no_study_url_when_there_are_two_studies(self, client: Client) -> None:
        answer = await client.post(multipart(ONE, instance("1.2.2", "1.2.2.1", "1.2.2.1.1")))
        assert answer.status == 200
        assert answer.json["00081190"] == {"vr": "UR"}

    async def test_keeps_the_bytes(self, client: Client, tmp_path: Path) -> None:
        names = [
            "CT_small.dcm",
            "image_dfl.dcm",
            "MR_small_bigendian.dcm",
            "rtplan.dcm",
            "test-SR.dcm",
        ]
        answer = await client.post(multipart(*map(sample, names)))
        assert answer.status == 200
        kept = sorted((tmp_path / name).read_bytes() for name in files_under(tmp_path))
        assert kept == sorted(map(sample, names))

    async def test_of_a_study_takes_its_instances(self, client: Client, tmp_path: Path) -> None:
        answer = await client.post(multipart(ONE), study="1.2.1")
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert files_under(tmp_path) == [ONE_PATH]
        assert answer.items("00081199")[0]["00081190"].startswith(
            client.emulator.base_url + "/studies/1.2.1/"
        )

    async def test_of_one_instance_alone_in_the_body(self, client: Client, tmp_path: Path) -> None:
        for study in (None, "1.2.1"):
            answer = await client.post(ONE, "application/dicom", study=study)
            assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert (tmp_path / ONE_PATH).read_bytes() == ONE

    async def test_of_a_body_without_a_length(self, client: Client) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            body = multipart(ONE)
            for at in range(0, len(body), 7):
                yield body[at : at + 7]

        assert (await client.post(chunks())).status == 200

    async def test_with_a_quoted_boundary(self, client: Client) -> None:
        quoted = f'multipart/related; boundary="{BOUNDARY}"; type="application/dicom"'
        assert (await client.post(multipart(ONE), quoted)).status == 200

    async def test_with_a_transfer_syntax_in_the_part_header(self, client: Client) -> None:
        header = b"Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
        assert (await client.post(multipart(ONE, header=header))).status == 200

    async def test_of_whatever_pydicom_can_read_and_has_its_uids(self, client: Client) -> None:
        """What pydicom warns of is no failure, even where warnings are errors."""
        stored = 0
        for name in sample_names():
            answer = await client.post(multipart(sample(name)))
            for reference in answer.items("00081199"):
                path = reference["00081190"].removeprefix(client.emulator.base_url)
                assert (await client.get(path, "application/dicom")).body == sample(name)
                stored += 1
            failures = [*answer.failed.values(), *answer.other_failures]
            assert answer.status == (409 if failures else 200)
            assert failures in ([], [CANNOT_UNDERSTAND])
        assert stored > 50

    async def test_with_private_uids_and_leading_zeros(self, client: Client) -> None:
        answer = await client.post(multipart(ONE.replace(b"1.2.1.1.1\0", b"1.2.01.001")))
        assert answer.stored == ["1.2.01.001"]

    async def test_of_an_instance_with_nothing_but_its_uids(self, client: Client) -> None:
        assert (await client.post(multipart(instance(modality="")))).status == 200


class TestStoredAgain:
    async def test_replaces_the_bytes_and_answers_200(self, client: Client, tmp_path: Path) -> None:
        other = instance(modality="MR")
        await client.post(multipart(ONE))
        answer = await client.post(multipart(other))
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert files_under(tmp_path) == [ONE_PATH]
        assert (tmp_path / ONE_PATH).read_bytes() == other

    async def test_at_the_same_moment_keeps_one_of_them_whole(
        self, client: Client, tmp_path: Path
    ) -> None:
        copies = [instance(modality=f"M{n}") for n in range(8)]
        answers = await asyncio.gather(*(client.post(multipart(copy)) for copy in copies))
        assert [answer.status for answer in answers] == [200] * 8
        assert (tmp_path / ONE_PATH).read_bytes() in copies


class TestAWarning:
    async def test_of_an_unsupported_transfer_syntax_answers_202(self, client: Client) -> None:
        """HealthImaging keeps such an instance as a blob: B120."""
        answer = await client.post(multipart(instance(transfer_syntax="1.2.3.4")))
        assert answer.status == 202
        assert answer.items("00081199")[0]["00081196"] == 0xB120
        assert answer.stored == ["1.2.1.1.1"]


class TestSomeStored:
    async def test_answers_202_and_names_both_kinds(self, client: Client, tmp_path: Path) -> None:
        answer = await client.post(
            multipart(instance("1.2.9", sop="1.2.9.1"), ONE, b"garbage"), study="1.2.1"
        )
        assert answer.status == 202
        assert answer.stored == ["1.2.1.1.1"]
        assert answer.failed == {"1.2.9.1": PROCESSING_FAILURE}
        assert answer.other_failures == [CANNOT_UNDERSTAND]
        assert files_under(tmp_path) == [ONE_PATH]


class TestNoneStored:
    async def test_of_another_study_answers_409(self, client: Client, tmp_path: Path) -> None:
        answer = await client.post(multipart(ONE), study="1.2.2")
        assert (answer.status, answer.failed) == (409, {"1.2.1.1.1": PROCESSING_FAILURE})
        assert answer.items("00081198")[0]["00081150"] == CT_IMAGE
        assert files_under(tmp_path) == []

    @pytest.mark.parametrize("missing", ["study", "series", "sop_class", "transfer_syntax"])
    async def test_without_a_mandatory_uid_answers_409(self, client: Client, missing: str) -> None:
        answer = await client.post(multipart(instance(**{missing: ""})))
        assert (answer.status, answer.failed) == (409, {"1.2.1.1.1": CANNOT_UNDERSTAND})

    async def test_without_a_sop_class_still_has_the_element(self, client: Client) -> None:
        answer = await client.post(multipart(instance(sop_class="")))
        assert answer.json["00081198"]["Value"][0]["00081150"] == {"vr": "UI"}

    async def test_without_a_sop_instance_uid_is_another_failure(self, client: Client) -> None:
        answer = await client.post(multipart(instance(sop="")))
        assert (answer.status, answer.failed, answer.other_failures) == (
            409,
            {},
            [CANNOT_UNDERSTAND],
        )

    @pytest.mark.parametrize(
        "body", [b"", b"garbage", ONE[:131], ONE[:150], b"\0" * 1000, ONE[132:]]
    )
    @pytest.mark.parametrize("alone", [True, False])
    async def test_of_unreadable_bytes_is_another_failure(
        self, client: Client, tmp_path: Path, body: bytes, alone: bool
    ) -> None:
        if alone:
            answer = await client.post(body, "application/dicom")
        else:
            answer = await client.post(multipart(body))
        assert (answer.status, answer.other_failures) == (409, [CANNOT_UNDERSTAND])
        assert files_under(tmp_path) == []

    async def test_of_a_sequence_that_is_cut_off_is_another_failure(self, client: Client) -> None:
        """OSError is what pydicom raises for this, and it is not the disk's."""
        cut = ONE + b"\x40\0\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff"
        answer = await client.post(multipart(cut))
        assert (answer.status, answer.other_failures) == (409, [CANNOT_UNDERSTAND])

    async def test_of_endless_nesting_is_another_failure(self, client: Client) -> None:
        nest = b"\x40\0\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
        answer = await client.post(multipart(ONE + nest * 5000, instance(sop="1.2.2")))
        assert (answer.stored, answer.other_failures) == (["1.2.2"], [CANNOT_UNDERSTAND])

    @pytest.mark.parametrize(
        "uid",
        [b"../../../", b"..", b"1.2/../x", b"1..2", b".1", b"/etc/x", b"1.2\n3", b"", b"x\xff"],
    )
    @pytest.mark.parametrize("place", [b"1.2.1\0", b"1.2.1.1\0", b"1.2.1.1.1\0"])
    async def test_with_a_uid_that_is_no_file_name_leaves_no_file(
        self, client: Client, tmp_path: Path, uid: bytes, place: bytes
    ) -> None:
        element = len(place).to_bytes(2, "little") + place
        assert ONE.count(element) == 1
        answer = await client.post(
            multipart(ONE.replace(element, len(uid).to_bytes(2, "little") + uid))
        )
        assert (answer.status, answer.stored) == (409, [])
        assert [*answer.failed.values(), *answer.other_failures] == [CANNOT_UNDERSTAND]
        assert files_under(tmp_path) == []
        assert not list(tmp_path.parent.glob("*.dcm"))

    async def test_with_a_uid_of_65_characters(self, client: Client) -> None:
        for length, status in ((64, 200), (65, 409)):
            sop = "1." + "2" * (length - 2)
            place = b"\x0a\0" + b"1.2.1.1.1\0"
            padded = sop.encode() + b"\0" * (length % 2)
            body = ONE.replace(place, len(padded).to_bytes(2, "little") + padded)
            assert (await client.post(multipart(body))).status == status


class TestBadSyntax:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "body: the body ends before the end delimiter"),
            (b"\r\n" + multipart(ONE), "body: the body does not begin with the boundary delimiter"),
            (multipart(), "body: no part in the body"),
            (multipart(ONE)[:-2], "body: the body ends before the end delimiter"),
            (multipart(ONE, header=b"Content-ID: 1"), "body: a part without Content-Type"),
            (multipart(ONE, header=b"Content-Type: text/plain"), "body: a part that is not application/dicom"),
            (multipart(ONE, header=b"Content-Type: dicom"), "body: Content-Type of a part: no type/subtype at character 0"),
            (multipart(ONE, header=b"a:" + b"b" * MAX_PART_HEADER_BYTES), "body: a part's header is too long"),
        ],
    )  # fmt: skip
    async def test_answers_400_and_stores_nothing(
        self, client: Client, tmp_path: Path, body: bytes, message: str
    ) -> None:
        answer = await client.post(body)
        assert (answer.status, answer.json) == (400, {"message": message})
        assert answer.headers["x-amzn-errortype"] == "ValidationException"
        assert files_under(tmp_path) == []

    @pytest.mark.parametrize("missing", [1, 2, 3, 12, 13])
    async def test_of_the_end_stores_nothing_of_the_last_part(
        self, client: Client, tmp_path: Path, missing: int
    ) -> None:
        assert (await client.post(multipart(ONE)[:-missing])).status == 400
        assert files_under(tmp_path) == []

    async def test_of_a_boundary_in_the_content_stores_nothing_of_the_part(
        self, client: Client, tmp_path: Path
    ) -> None:
        assert (await client.post(multipart(ONE + f"\r\n--{BOUNDARY}x".encode()))).status == 400
        assert files_under(tmp_path) == []

    async def test_after_complete_parts_answers_400_and_names_these(
        self, client: Client, tmp_path: Path
    ) -> None:
        body = multipart(ONE, instance(sop="1.2.3"))
        answer = await client.post(body[: body.rindex(b"\r\n")])
        assert (answer.status, answer.stored) == (400, ["1.2.1.1.1"])
        assert answer.headers["Content-Type"] == "application/dicom+json"
        assert answer.headers["Warning"] == '299 - "body: the body ends before the end delimiter"'
        assert files_under(tmp_path) == [ONE_PATH]

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            ('multipart/related; type="application/dicom"', 400),
            (f"multipart/related; boundary={BOUNDARY}", 400),
            (f"multipart/related; type=application/dicom; boundary={BOUNDARY}", 400),
            ('multipart/related; type="application/dicom"; boundary=""', 400),
            (f'multipart/related; type="application/dicom"; boundary="{"x" * 71}"', 400),
            (f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 415),
            (f'multipart/form-data; type="application/dicom"; boundary={BOUNDARY}', 415),
            ("application/dicom+json", 415),
            ("application/octet-stream", 415),
            ("nonsense", 400),
        ],
    )
    async def test_in_content_type(
        self, client: Client, tmp_path: Path, content_type: str, status: int
    ) -> None:
        answer = await client.post(multipart(ONE), content_type)
        assert answer.status == status
        assert list(answer.json) == ["message"]
        assert files_under(tmp_path) == []

    async def test_of_a_missing_content_type(self, client: Client) -> None:
        answer = await client.request("POST", "/studies", ONE, [])
        assert (answer.status, answer.json) == (400, {"message": "Content-Type is missing"})

    async def test_of_a_coded_body_is_415(self, client: Client) -> None:
        for coding in ("gzip", "aws-chunked"):
            answer = await client.post(multipart(ONE), headers=[("Content-Encoding", coding)])
            assert answer.status == 415

    async def test_of_a_study_that_is_no_uid(self, client: Client) -> None:
        assert (await client.post(multipart(ONE), study="study")).status == 400

    async def test_of_an_answer_it_cannot_give_is_406(self, client: Client) -> None:
        answer = await client.post(multipart(ONE), headers=[("Accept", "application/dicom+xml")])
        assert answer.status == 406
        assert answer.headers["x-amzn-errortype"] == "NotAcceptableException"

    async def test_of_a_refused_body_leaves_the_connection_usable(self, client: Client) -> None:
        assert (await client.post(multipart(ONE), "text/plain")).status == 415
        assert (await client.post(multipart(ONE))).status == 200


class TestABrokenConnection:
    @pytest.mark.parametrize("alone", [True, False])
    async def test_stores_nothing_of_the_last_part(
        self, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, alone: bool
    ) -> None:
        """Content-Length promises more than arrives: a shorter file must not be believed."""
        host, port = client.emulator.url.removeprefix("http://").split(":")
        body = ONE if alone else multipart(ONE, instance(sop="1.2.3"))[:-10]
        content_type = "application/dicom" if alone else MULTIPART
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /datastore/{client.emulator.datastore}/studies HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body) + 10}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        await until(lambda: client.emulator.requests > 0)
        writer.close()
        await writer.wait_closed()
        expected = [] if alone else [ONE_PATH]
        await until(lambda: files_under(tmp_path) == expected)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

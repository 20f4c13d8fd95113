"""Signature Version 4 at the door of the emulator; the signer is botocore's."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingester.emulator import Credentials
from ingester.emulator.answers import Refusal
from ingester.emulator.canonical import Head, canonical_head
from ingester.emulator.sigv4 import Claim, _signing_key
from tests.unit.emulator.signing import (
    KEYS,
    NOW,
    ONE,
    TEMPORARY,
    SignedClient,
    headers_for,
    signed_headers,
    verifying,
)
from tests.unit.emulator.wire import Answer, files_under

MODES = ["literal", "sha256", "unsigned", "aws-chunked"]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SignedClient]:
    async with verifying(tmp_path) as it:
        yield it


def refused(answer: Answer) -> str:
    assert answer.status == 403
    assert list(answer.json) == ["message"]
    assert KEYS.secret_key not in answer.body.decode()
    return answer.headers["x-amzn-errortype"]


class TestAKnownAnswer:
    def test_of_the_signature_reference_is_proved(self) -> None:
        """The example of AWS's signing reference: ListUsers of IAM, 30 August 2015."""
        head = Head.of(
            "GET",
            "/?Action=ListUsers&Version=2010-05-08",
            [
                ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("Host", "iam.amazonaws.com"),
                ("X-Amz-Date", "20150830T123600Z"),
            ],
        )
        scope = "20150830/us-east-1/iam/aws4_request"
        claim = Claim(
            signature="5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            amz_date="20150830T123600Z",
            scope=scope,
            canonical_head=canonical_head(head, ["content-type", "host", "x-amz-date"]),
            key=_signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", scope),
        )
        claim.prove(hashlib.sha256().hexdigest())
        with pytest.raises(Refusal):
            claim.prove(hashlib.sha256(b"x").hexdigest())


class TestASignedRequest:
    @pytest.mark.parametrize("mode", MODES)
    async def test_is_let_in(self, client: SignedClient, mode: str) -> None:
        answer = await client.store(mode)
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert await client.stored() == 1

    async def test_may_leave_the_hash_of_the_body_to_the_signature(
        self, client: SignedClient
    ) -> None:
        headers = {"Content-Type": "application/dicom"}
        url = f"{client.emulator.base_url}/studies"
        signed = signed_headers("POST", url, headers, ONE)
        assert "X-Amz-Content-SHA256" not in signed
        changed = bytes([*ONE[:-1], ONE[-1] ^ 1])
        answer = await client.request("POST", "/studies", changed, signed.items())
        assert refused(answer) == "InvalidSignatureException"
        assert await client.stored() == 0
        assert (await client.request("POST", "/studies", ONE, signed.items())).status == 200

    async def test_may_have_a_session_token(self, tmp_path: Path) -> None:
        async with verifying(tmp_path, credentials=TEMPORARY) as client:
            assert (await client.store("literal", credentials=TEMPORARY)).status == 200

    @pytest.mark.parametrize(
        "path",
        [
            "/instances?limit=5&SOPInstanceUID=1.2.1.1.1&includefield=all",
            "/instances?includefield=00080018&includefield=00080005&limit=1",
            "/instances?00080018=1.2.1.1.1",
            "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1",
        ],
    )
    async def test_that_asks_is_let_in(self, client: SignedClient, path: str) -> None:
        await client.store("unsigned")
        assert (await client.find(path)).status == 200

    @pytest.mark.parametrize("seconds", [-299, 299])
    async def test_may_be_nearly_five_minutes_off(self, client: SignedClient, seconds: int) -> None:
        assert (await client.store("literal", at=NOW + seconds)).status == 200

    async def test_may_sign_a_header_that_was_not_sent_as_empty(self, client: SignedClient) -> None:
        """As curl 7.88 does with x-amz-security-token."""
        headers = headers_for("literal", ONE) | {"x-amz-security-token": ""}
        signed = signed_headers("POST", f"{client.emulator.base_url}/studies", headers)
        del signed["x-amz-security-token"]
        assert "x-amz-security-token" in signed["Authorization"]
        assert (await client.request("POST", "/studies", ONE, signed.items())).status == 200

    async def test_may_have_spaces_that_trimming_takes_away(self, client: SignedClient) -> None:
        headers = headers_for("literal", ONE) | {"x-note": "a  b"}
        assert (await client.store("literal", headers=headers)).status == 200


class TestASignatureIsRefused:
    @pytest.mark.parametrize("mode", MODES)
    async def test_of_another_secret(self, client: SignedClient, mode: str) -> None:
        other = replace(KEYS, secret_key="another")
        answer = await client.store(mode, credentials=other)
        assert refused(answer) == "InvalidSignatureException"
        assert await client.stored() == 0

    @pytest.mark.parametrize("mode", MODES)
    async def test_when_any_signed_header_changes(self, client: SignedClient, mode: str) -> None:
        url = f"{client.emulator.base_url}/studies"
        headers = headers_for(mode, ONE) | {"Accept": "application/dicom+json"}
        signed = signed_headers("POST", url, headers)
        changes = {
            "Content-Type": "application/dicom;x=y",
            "Accept": "*/*",
            "X-Amz-Date": signed["X-Amz-Date"].replace("1200", "1201"),
            "x-amz-content-sha256": "0" * 64,
            "x-amz-decoded-content-length": str(len(ONE) + 1),
            "Content-Encoding": "identity",
        }
        for name in signed.keys() - {"Authorization"}:
            changed = {**signed, name: changes[name]}
            answer = await client.request("POST", "/studies", ONE, changed.items())
            assert answer.status in (400, 403), name
            missing = [item for item in signed.items() if item[0] != name]
            answer = await client.request("POST", "/studies", ONE, missing)
            assert answer.status in (400, 403, 411, 415), name
        assert await client.stored() == 0

    async def test_on_another_path_query_or_method(self, client: SignedClient) -> None:
        url = f"{client.emulator.base_url}/instances?limit=1"
        signed = signed_headers("GET", url, {}).items()
        assert (await client.request("GET", "/instances?limit=1", None, signed)).status == 200
        for method, path in [
            ("GET", "/instances?limit=2"),
            ("GET", "/instances"),
            ("GET", "/studies?limit=1"),
            ("POST", "/studies?limit=1"),
        ]:
            answer = await client.request(method, path, None, signed)
            assert answer.status == (403 if method == "GET" else 400), path

    @pytest.mark.parametrize("seconds", [-360, 360])
    async def test_of_six_minutes_ago_or_ahead(self, client: SignedClient, seconds: int) -> None:
        answer = await client.store("literal", at=NOW + seconds)
        assert refused(answer) == "InvalidSignatureException"
        assert answer.json["message"].startswith("Signature ")
        assert answer.headers["Date"] == "Sun, 01 Mar 2026 12:00:00 GMT"

    @pytest.mark.parametrize("scope", [{"region": "us-east-1"}, {"service": "s3"}])
    async def test_of_another_scope(self, client: SignedClient, scope: dict[str, Any]) -> None:
        answer = await client.store("literal", **scope)
        assert refused(answer) == "InvalidSignatureException"
        assert "scoped" in answer.json["message"]

    async def test_of_a_scope_of_another_day(self, client: SignedClient) -> None:
        url = f"{client.emulator.base_url}/studies"
        signed = signed_headers("GET", url, {})
        signed["Authorization"] = signed["Authorization"].replace("/20260301/", "/20260228/")
        answer = await client.request("GET", "/studies", None, signed.items())
        assert refused(answer) == "InvalidSignatureException"

    async def test_of_an_unknown_key(self, client: SignedClient) -> None:
        answer = await client.store("literal", credentials=Credentials("AKIAOTHER", "secret"))
        assert refused(answer) == "UnrecognizedClientException"

    @pytest.mark.parametrize("token", [None, "another"])
    async def test_of_another_session_token(self, tmp_path: Path, token: str | None) -> None:
        async with verifying(tmp_path, credentials=TEMPORARY) as client:
            other = replace(TEMPORARY, session_token=token)
            answer = await client.store("literal", credentials=other)
            assert refused(answer) == "UnrecognizedClientException"

    async def test_of_a_session_token_where_there_is_none(self, client: SignedClient) -> None:
        answer = await client.store("literal", credentials=TEMPORARY)
        assert refused(answer) == "UnrecognizedClientException"

    async def test_of_credentials_that_have_expired(self, tmp_path: Path) -> None:
        async with verifying(tmp_path, credentials=TEMPORARY) as client:
            fresh = replace(TEMPORARY, session_token="fresh")
            client.emulator.replace_credentials(fresh)
            answer = await client.store("literal", credentials=TEMPORARY)
            assert refused(answer) == "ExpiredTokenException"
            assert (await client.store("literal", credentials=fresh)).status == 200

    async def test_that_leaves_out_an_amz_header(self, client: SignedClient) -> None:
        signed = signed_headers("GET", f"{client.emulator.base_url}/studies", {})
        answer = await client.request(
            "GET", "/studies", None, [*signed.items(), ("x-amz-meta-note", "1")]
        )
        assert refused(answer) == "InvalidSignatureException"
        assert answer.json["message"].endswith("x-amz-meta-note.")

    async def test_that_leaves_out_the_host(self, client: SignedClient) -> None:
        signed = signed_headers("GET", f"{client.emulator.base_url}/studies", {})
        signed["Authorization"] = signed["Authorization"].replace("=host;", "=")
        answer = await client.request("GET", "/studies", None, signed.items())
        assert refused(answer) == "InvalidSignatureException"

    async def test_that_is_missing(self, client: SignedClient) -> None:
        assert refused(await client.get("/studies")) == "MissingAuthenticationTokenException"
        answer = await client.post(ONE, "application/dicom")
        assert refused(answer) == "MissingAuthenticationTokenException"

    @pytest.mark.parametrize(
        "authorization",
        [
            "Bearer token",
            "AWS4-HMAC-SHA256 Credential=a/b/c",
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=" + "0" * 64,
            "AWS4-HMAC-SHA256 Credential=a/20260301/r/s/aws4_request, SignedHeaders=host, Signature=0",
            "AWS4-HMAC-SHA1 Credential=a/20260301/r/s/aws4_request, SignedHeaders=host, Signature="
            + "0" * 64,
        ],
    )
    async def test_of_another_form(self, client: SignedClient, authorization: str) -> None:
        answer = await client.request(
            "GET", "/studies", None, [("Authorization", authorization), ("X-Amz-Date", "x")]
        )
        assert refused(answer) == "IncompleteSignatureException"

    @pytest.mark.parametrize(
        "date",
        ["", "20260301", "20261301T120000Z", "\u0662\u0660260301T120000Z", "2026-03-01T12:00Z"],
    )
    async def test_with_a_date_of_another_form(self, client: SignedClient, date: str) -> None:
        signed = signed_headers("GET", f"{client.emulator.base_url}/studies", {})
        answer = await client.request(
            "GET", "/studies", None, {**signed, "X-Amz-Date": date}.items()
        )
        assert refused(answer) == "IncompleteSignatureException"

    async def test_with_signed_headers_out_of_order(self, client: SignedClient) -> None:
        signed = signed_headers("GET", f"{client.emulator.base_url}/studies", {})
        for names in ("x-amz-date;host", "Host;x-amz-date", "host;host;x-amz-date"):
            authorization = signed["Authorization"].replace("host;x-amz-date", names)
            headers = {**signed, "Authorization": authorization}
            answer = await client.request("GET", "/studies", None, headers.items())
            assert refused(answer) == "IncompleteSignatureException"


class TestARefusal:
    @pytest.mark.parametrize("mode", MODES)
    async def test_can_be_read_by_a_client_that_goes_on_sending(
        self, client: SignedClient, mode: str, tmp_path: Path
    ) -> None:
        body = ONE + bytes(8 << 20)
        answer = await client.store(mode, body, credentials=replace(KEYS, secret_key="another"))
        assert refused(answer) == "InvalidSignatureException"
        assert files_under(tmp_path) == []
        assert (await client.store(mode)).status == 200

    async def test_is_there_before_the_body(self, client: SignedClient) -> None:
        host, port = client.emulator.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = client.emulator.base_url.removeprefix(client.emulator.url)
        writer.write(
            f"POST {path}/studies HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode()
        )
        async with asyncio.timeout(60):
            assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()
        await writer.wait_closed()

    async def test_logs_no_secret(
        self, client: SignedClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "ingester")
        await client.store("sha256", credentials=replace(KEYS, secret_key="another"))
        await client.store("sha256")
        logged = "".join(r.getMessage() for r in caplog.records if r.name.startswith("ingester"))
        assert KEYS.secret_key not in logged


class TestCredentials:
    def test_show_no_secret(self) -> None:
        assert repr(TEMPORARY) == "Credentials(access_key='AKIDEXAMPLE')"

    def test_that_are_made_differ(self) -> None:
        made = [Credentials.made() for _ in range(3)]
        assert len({it.secret_key for it in made}) == 3
        assert all(len(it.access_key) == 20 and len(it.secret_key) == 40 for it in made)
        assert Credentials.made("token").session_token == "token"

    @pytest.mark.parametrize(
        "values", [("", "s"), ("a", ""), ("a b", "s"), ("a/b", "s"), ("é", "s")]
    )
    def test_of_another_form_are_refused(self, values: tuple[str, str]) -> None:
        with pytest.raises(ValueError, match="key"):
            Credentials(*values)

    async def test_that_nobody_asks_for_cannot_be_replaced(self, tmp_path: Path) -> None:
        async with verifying(tmp_path, credentials=None) as client:
            assert (await client.get("/studies")).status == 200
            with pytest.raises(ValueError, match="nobody"):
                client.emulator.replace_credentials(KEYS)

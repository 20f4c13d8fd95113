"""Signatures over the headers of a request."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth  # type: ignore[import-untyped]  # has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # the same
from botocore.credentials import (  # type: ignore[import-untyped]  # the same
    Credentials as BotocoreCredentials,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingester.auth.sigv4 import (
    EMPTY_SHA256,
    Credentials,
    PayloadMode,
    SignedHeaders,
    Signer,
    learned_offset,
)
from tests.unit.signing.by_the_book import expected_signature
from tests.unit.signing.made import ACCESS_KEY, NOW, SECRET_KEY, keys, vector

STUDIES = "https://dicom-medical-imaging.us-east-1.amazonaws.com/datastore/0123/studies"
MULTIPART = 'multipart/related; type="application/dicom"; boundary="b"'
DIGEST = hashlib.sha256(b"body").hexdigest()

modes = st.sampled_from(list(PayloadMode))
raw_modes = st.sampled_from([mode for mode in PayloadMode if mode is not PayloadMode.AWS_CHUNKED])
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - made aware
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
S3 = ["s3", "s3-outposts", "s3-object-lambda"]
services = st.sampled_from(["medical-imaging", "execute-api", "es", *S3]) | words
segments = st.one_of(
    st.sampled_from(
        ["", ".", "..", "studies", "1.2.840", "~", "%2F", "%25", "a+b", "a:b@c", "%e4"]
    ),
    st.text(max_size=12).map(lambda text: quote(text.encode("utf-8", "replace"), safe="")),
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))
queries = st.lists(
    st.tuples(st.text(max_size=8), st.text(max_size=8)).map(
        lambda pair: "=".join(quote(t.encode("utf-8", "replace"), safe="-_.~") for t in pair)
    ),
    max_size=5,
).map("&".join)
hosts = st.sampled_from(
    ["store.example", "STORE.example:443", "store.example:8443", "127.0.0.1:8042", "[::1]:8042"]
)


def sign(
    url: str = STUDIES,
    *,
    mode: PayloadMode = PayloadMode.LITERAL,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
    now: datetime = NOW,
    content_length: int = 1000,
    method: str = "POST",
    region: str = "us-east-1",
    service: str = "medical-imaging",
) -> SignedHeaders:
    return Signer(region, service, mode).sign(
        method,
        url,
        {"Content-Type": MULTIPART} if headers is None else headers,
        credentials=credentials or keys(),
        now=now,
        content_length=content_length,
        content_sha256=DIGEST if mode is PayloadMode.SHA256 else None,
    )


def signed_names(signed: SignedHeaders) -> list[str]:
    return signed.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")


def botocore_authorization(
    base: type[Any], request: Any, keys_: Any, region: str, service: str, timestamp: str
) -> str:
    """What botocore's add_auth puts into Authorization, at a given time."""

    class AtThatTime(base):  # type: ignore[misc]  # the base has no types
        def payload(self, request: Any) -> str:
            return str(request.headers["X-Amz-Content-SHA256"])

        def _modify_request_before_signing(self, request: Any) -> None:
            SigV4Auth._modify_request_before_signing(self, request)

    auth = AtThatTime(keys_, service, region)
    request.context["timestamp"] = timestamp
    auth._modify_request_before_signing(request)
    words_ = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(words_, request))
    return str(request.headers["Authorization"])


class TestAmazonsExampleInChunks:
    """S3 API reference: 'transferring payload in multiple chunks'."""

    def signed(self) -> SignedHeaders:
        given_ = vector()
        return Signer(given_["region"], given_["service"], PayloadMode.AWS_CHUNKED).sign(
            given_["method"],
            f"https://{given_['host']}{given_['path']}",
            {"x-amz-storage-class": "REDUCED_REDUNDANCY"},
            credentials=keys(given_["access_key"], given_["secret_key"]),
            now=datetime(2013, 5, 24, tzinfo=UTC),
            content_length=given_["payload"]["length"],
        )

    def test_the_headers_are_the_examples(self) -> None:
        added = {name.lower(): value for name, value in self.signed().headers.items()}
        added.pop("authorization")
        assert added | {"x-amz-storage-class": "REDUCED_REDUNDANCY"} == vector()["headers"]

    def test_all_of_them_are_signed(self) -> None:
        assert signed_names(self.signed()) == sorted(vector()["headers"])

    def test_the_seed_signature_is_the_examples(self) -> None:
        signed = self.signed()
        assert signed.headers["Authorization"].endswith(vector()["seed_signature"])
        assert signed.chunks is not None
        assert signed.chunks.signature == vector()["seed_signature"]
        assert signed.chunks.scope == "20130524/us-east-1/s3/aws4_request"


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ("?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "?prefix=J&max-keys=2",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_amazons_examples_without_a_body(query: str, signature: str) -> None:
    signed = Signer("us-east-1", "s3", PayloadMode.LITERAL).sign(
        "GET",
        f"https://examplebucket.s3.amazonaws.com/{query}",
        {"Accept": "*/*", "User-Agent": "x"},
        credentials=keys(vector()["access_key"], vector()["secret_key"]),
        now=datetime(2013, 5, 24, tzinfo=UTC),
        content_length=0,
    )
    assert signed.headers["Authorization"].endswith(f"Signature={signature}")


class TestEqualsBotocore:
    @settings(deadline=None)
    @given(
        mode=modes,
        region=words,
        service=services,
        host=hosts,
        path=paths,
        query=queries,
        token=st.none() | printable,
        now=moments,
        content_type=st.sampled_from([MULTIPART, "application/dicom", "a  b"]),
    )
    @example(
        mode=PayloadMode.LITERAL,
        region="eu-west-2",
        service="medical-imaging",
        host="h.example",
        path="//a/./b/../c%2Fd/%25/",
        query="",
        token="t",
        now=NOW,
        content_type=MULTIPART,
    )
    def test_in_every_mode(
        self,
        mode: PayloadMode,
        region: str,
        service: str,
        host: str,
        path: str,
        query: str,
        token: str | None,
        now: datetime,
        content_type: str,
    ) -> None:
        url = f"https://{host}{path}" + (f"?{query}" if query else "")
        given_ = {"Content-Type": content_type, "X-Amz-Meta-A": " b  c "}
        signed = sign(
            url,
            mode=mode,
            headers={**given_, "User-Agent": "x", "Accept": "y"},
            credentials=keys(token=token),
            now=now,
            region=region,
            service=service,
        )
        ours = {
            name: value
            for name, value in signed.headers.items()
            if name not in {"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "Host"}
            and (name != "Content-Length" or mode is PayloadMode.AWS_CHUNKED)
        }
        theirs = botocore_authorization(
            S3SigV4Auth if service in S3 else SigV4Auth,
            AWSRequest("POST", url, headers={**given_, **ours}),
            BotocoreCredentials(ACCESS_KEY, SECRET_KEY, token),
            region,
            service,
            now.strftime("%Y%m%dT%H%M%SZ"),
        )
        assert signed.headers["Authorization"] == theirs


class TestVerifiesByTheBook:
    @settings(deadline=None)
    @given(
        mode=modes,
        path=paths,
        query=queries,
        service=services,
        secret_key=printable,
        token=st.none() | printable,
        method=st.sampled_from(["GET", "POST", "PUT"]),
        content_length=st.integers(0, 10**9),
    )
    def test_whatever_is_signed(
        self,
        mode: PayloadMode,
        path: str,
        query: str,
        service: str,
        secret_key: str,
        token: str | None,
        method: str,
        content_length: int,
    ) -> None:
        url = f"https://store.example{path}" + (f"?{query}" if query else "")
        signed = sign(
            url,
            mode=mode,
            credentials=keys(secret_key=secret_key, token=token),
            service=service,
            method=method,
            content_length=content_length,
        )
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"Content-Type": MULTIPART, **signed.headers}
        expected, found = expected_signature(method, target, sent, secret_key, is_s3=service in S3)
        assert found == expected

    @pytest.mark.parametrize(
        "query",
        ["includefield=00080018,00081190", "b=2&a=1&a=0", "flag", "a=%7e", "a=b=c", "&a=1&"],
    )
    def test_a_query_is_signed_as_the_service_reads_it(self, query: str) -> None:
        signed = sign(f"{STUDIES}?{query}", method="GET", content_length=0)
        sent = {"Content-Type": MULTIPART, **signed.headers}
        target = f"/datastore/0123/studies?{query}"
        expected, found = expected_signature("GET", target, sent, SECRET_KEY)
        assert found == expected


class TestWhatTheModesAdd:
    def test_literal_declares_the_body_and_leaves_it_raw(self) -> None:
        headers = sign().headers
        assert headers["X-Amz-Content-SHA256"] == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        assert headers["X-Amz-Decoded-Content-Length"] == "1000"
        assert headers["Content-Length"] == "1000"
        assert "Content-Encoding" not in headers

    def test_sha256_is_the_digest_alone(self) -> None:
        headers = sign(mode=PayloadMode.SHA256).headers
        assert headers["X-Amz-Content-SHA256"] == DIGEST
        assert "X-Amz-Decoded-Content-Length" not in headers

    def test_sha256_without_a_digest_is_refused(self) -> None:
        signer = Signer("r", "s", PayloadMode.SHA256)
        with pytest.raises(ValueError, match="digest"):
            signer.sign("POST", STUDIES, {}, credentials=keys(), now=NOW, content_length=1)

    def test_unsigned_says_so(self) -> None:
        headers = sign(mode=PayloadMode.UNSIGNED).headers
        assert headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"

    def test_chunked_names_its_encoding_and_both_lengths(self) -> None:
        signed = sign(mode=PayloadMode.AWS_CHUNKED)
        assert signed.headers["Content-Encoding"] == "aws-chunked"
        assert signed.headers["X-Amz-Decoded-Content-Length"] == "1000"
        assert signed.headers["Content-Length"] == str(1000 + (3 + 85) + (1 + 85))

    @pytest.mark.parametrize("mode", PayloadMode)
    def test_a_request_without_a_body_has_the_digest_of_nothing(self, mode: PayloadMode) -> None:
        signed = sign(mode=mode, method="GET", content_length=0, headers={})
        assert signed.headers["X-Amz-Content-SHA256"] == EMPTY_SHA256
        assert signed.chunks is None
        assert signed_names(signed) == ["host", "x-amz-content-sha256", "x-amz-date"]

    @settings(deadline=None)
    @given(raw_modes)
    def test_only_what_nobody_changes_on_the_way_is_signed(self, mode: PayloadMode) -> None:
        names = ("User-Agent", "Accept", "Accept-Encoding", "Connection", "Expect", "Content-Type")
        signed = sign(mode=mode, headers=dict.fromkeys(names, "x"), credentials=keys(token="t"))
        assert set(signed_names(signed)) - {"x-amz-decoded-content-length"} == {
            "content-type",
            "host",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-security-token",
        }

    def test_headers_of_ours_that_the_caller_has_already_are_replaced(self) -> None:
        stale = {"x-amz-date": "20000101T000000Z", "authorization": "x", "HOST": "other"}
        assert sign(headers=stale).headers == sign(headers={}).headers

    def test_host_is_what_the_url_says(self) -> None:
        assert sign("https://Store.example:443/").headers["Host"] == "store.example"
        assert sign("http://u:p@store.example:8042/").headers["Host"] == "store.example:8042"
        assert sign("http://[::1]/").headers["Host"] == "[::1]"


class TestEachAttempt:
    def test_has_the_time_it_is_sent_at(self) -> None:
        signer = Signer("us-east-1", "medical-imaging", PayloadMode.UNSIGNED)

        def at(now: datetime) -> Mapping[str, str]:
            return signer.sign(
                "POST", STUDIES, {}, credentials=keys(), now=now, content_length=1
            ).headers

        first, second = at(NOW), at(NOW + timedelta(seconds=1))
        assert first["X-Amz-Date"] == "20260314T150926Z"
        assert first["Authorization"] != second["Authorization"]
        assert at(NOW) == first

    def test_a_key_is_kept_for_its_day_and_secret_only(self) -> None:
        signer = Signer("us-east-1", "medical-imaging", PayloadMode.UNSIGNED)
        for now in (NOW, NOW + timedelta(days=1), NOW):
            for secret_key in ("one", "two", "one"):
                signed = signer.sign(
                    "POST",
                    STUDIES,
                    {},
                    credentials=keys(secret_key=secret_key),
                    now=now,
                    content_length=1,
                )
                expected, found = expected_signature(
                    "POST", "/datastore/0123/studies", signed.headers, secret_key
                )
                assert found == expected

    def test_a_zone_is_brought_to_utc(self) -> None:
        zone = timezone(timedelta(hours=9, minutes=30))
        assert sign(now=NOW.astimezone(zone)).headers == sign().headers

    def test_a_naive_time_or_an_unquoted_url_is_wrong_use(self) -> None:
        with pytest.raises(ValueError, match="aware"):
            sign(now=NOW.replace(tzinfo=None))
        with pytest.raises(ValueError, match="ASCII"):
            sign("https://store.example/ä")


class TestTheServersClock:
    @pytest.mark.parametrize(
        "date",
        [
            "Sat, 14 Mar 2026 15:19:26 GMT",
            "Saturday, 14-Mar-26 15:19:26 GMT",
            "Sat Mar 14 15:19:26 2026",
            "Sat, 14 Mar 2026 16:19:26 +0100",
        ],
    )
    def test_is_ahead_by_ten_minutes(self, date: str) -> None:
        assert learned_offset(date, NOW) == timedelta(minutes=10)

    def test_is_behind(self) -> None:
        assert learned_offset("Sat, 14 Mar 2026 15:09:16 GMT", NOW) == timedelta(seconds=-10)

    def test_is_not_known_without_a_date(self) -> None:
        assert learned_offset(None, NOW) is None

    @settings(deadline=None)
    @given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} [\d:]{1,8} .*"))
    def test_nothing_a_server_says_is_an_error(self, date: str) -> None:
        offset = learned_offset(date, NOW)
        assert offset is None or isinstance(offset, timedelta)

    @pytest.mark.parametrize(
        "date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Wed, 01 Jan 1000 00:00:00 GMT"]
    )
    def test_of_no_clock_is_none(self, date: str) -> None:
        assert learned_offset(date, NOW) is None

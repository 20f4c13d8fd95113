"""Requests signed by botocore, at a moment of the test's choice; chunks by an encoder of our own."""

import calendar
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import botocore.auth  # type: ignore[import-untyped]
import botocore.awsrequest  # type: ignore[import-untyped]
import botocore.credentials  # type: ignore[import-untyped]

from ingester.emulator import Credentials
from tests.unit.emulator.wire import Answer, Client, instance, running

KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = replace(KEYS, session_token="FwoGZXIvYXdzEXAMPLE//token==")
REGION = "eu-west-1"
NOW = calendar.timegm((2026, 3, 1, 12, 0, 0))
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED = "UNSIGNED-PAYLOAD"
ONE = instance()
MIB = 1 << 20


class SignerAt(botocore.auth.SigV4Auth):  # type: ignore[misc]
    """botocore's signer, whose ``add_auth`` reads no clock."""

    def __init__(self, credentials: Credentials, service: str, region: str, at: float) -> None:
        keys = botocore.credentials.Credentials(
            credentials.access_key, credentials.secret_key, credentials.session_token
        )
        super().__init__(keys, service, region)
        self.at = at

    def add_auth(self, request: Any) -> None:
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.at))
        self._modify_request_before_signing(request)
        to_sign = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(to_sign, request))


def signed_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    credentials: Credentials = KEYS,
    region: str = REGION,
    service: str = "medical-imaging",
    at: float = NOW,
) -> dict[str, str]:
    request = botocore.awsrequest.AWSRequest(method, url, dict(headers), body)
    SignerAt(credentials, service, region, at).add_auth(request)
    return dict(request.headers.items())


def headers_for(mode: str, body: bytes) -> dict[str, str]:
    """The headers of a body that is one instance, alone."""
    size = {"x-amz-decoded-content-length": str(len(body))}
    return {"Content-Type": "application/dicom"} | {
        "literal": {"x-amz-content-sha256": STREAMING, **size},
        "sha256": {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()},
        "unsigned": {"x-amz-content-sha256": UNSIGNED},
        "aws-chunked": {
            "x-amz-content-sha256": STREAMING,
            "Content-Encoding": "aws-chunked",
            **size,
        },
    }[mode]


def chunk_signatures(
    secret_key: str, amz_date: str, scope: str, seed: str, chunks: list[bytes]
) -> Iterator[str]:
    digests = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    return digest_signatures(secret_key, amz_date, scope, seed, digests)


def digest_signatures(
    secret_key: str, amz_date: str, scope: str, seed: str, digests: list[str]
) -> Iterator[str]:
    key = f"AWS4{secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    previous = seed
    for digest in digests:
        empty = hashlib.sha256().hexdigest()
        lines = ["AWS4-HMAC-SHA256-PAYLOAD", amz_date, scope, previous, empty, digest]
        previous = hmac.new(key, "\n".join(lines).encode(), "sha256").hexdigest()
        yield previous


def cut(data: bytes, chunk_size: int) -> list[bytes]:
    return [data[at : at + chunk_size] for at in range(0, len(data), chunk_size)] + [b""]


def framed(chunks: list[bytes], signatures: list[str]) -> bytes:
    return b"".join(
        b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), signature.encode(), chunk)
        for chunk, signature in zip(chunks, signatures, strict=True)
    )


def encode_chunked(headers: Mapping[str, str], body: bytes, chunk_size: int = 8192) -> bytes:
    """An aws-chunked body for headers that are signed."""
    chunks = cut(body, chunk_size)
    signatures = chunk_signatures(*of_headers(headers), chunks)
    return framed(chunks, list(signatures))


def chunk_frames(headers: Mapping[str, str], size: int, digest: str) -> list[bytes]:
    """What stands before and after the one chunk of a large body."""
    digests = [digest, hashlib.sha256().hexdigest()]
    first, last = digest_signatures(*of_headers(headers), digests)
    begin = f"{size:x};chunk-signature={first}\r\n"
    return [begin.encode(), f"\r\n0;chunk-signature={last}\r\n\r\n".encode()]


def of_headers(headers: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Secret key, date, scope and seed of headers that are signed."""
    authorization = headers["Authorization"]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    return KEYS.secret_key, headers["X-Amz-Date"], scope, authorization.rpartition("=")[2]


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), MIB):
        yield body[at : at + MIB]


@dataclass
class SignedClient(Client):
    async def store(
        self, mode: str, body: bytes = ONE, *, headers: Mapping[str, str] | None = None, **sign: Any
    ) -> Answer:
        """One STOW request of one instance, in a payload mode."""
        url = f"{self.emulator.base_url}/studies"
        signed = signed_headers("POST", url, headers or headers_for(mode, body), **sign)
        wire = encode_chunked(signed, body) if mode == "aws-chunked" else body
        pieces = in_pieces(wire) if len(wire) >= MIB else wire
        return await self.request(
            "POST", "/studies", pieces, {**signed, "Content-Length": str(len(wire))}.items()
        )

    async def find(self, path: str, **sign: Any) -> Answer:
        headers = signed_headers("GET", self.emulator.base_url + path, {}, **sign)
        return await self.request("GET", path, None, headers.items())

    async def stored(self) -> int:
        credentials = self.emulator.credentials or KEYS
        return len((await self.find("/instances", credentials=credentials)).json)


@asynccontextmanager
async def verifying(store: Any, **options: Any) -> AsyncIterator[SignedClient]:
    options = {"credentials": KEYS, "region": REGION, "clock": lambda: NOW, **options}
    async with running(store, **options) as client:
        yield SignedClient(client.emulator, client.session)

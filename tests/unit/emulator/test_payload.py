"""The four ways of vouching for a body, the frames of aws-chunked, and the limits of a body."""

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingester.emulator.answers import Refusal
from ingester.emulator.canonical import Head, canonical_head
from ingester.emulator.chunks import ChunkReader
from ingester.emulator.payload import ALL_MODES, PayloadMode, parse_modes
from ingester.emulator.sigv4 import Claim, _signing_key
from tests.unit.emulator.signing import (
    KEYS,
    MIB,
    ONE,
    STREAMING,
    SignedClient,
    chunk_frames,
    chunk_signatures,
    cut,
    encode_chunked,
    framed,
    headers_for,
    signed_headers,
    verifying,
)
from tests.unit.emulator.wire import Client, files_under, instance, multipart, until

VECTORS = Path(__file__).parents[2] / "vectors" / "sigv4_streaming.json"
LARGE = ONE + b"\xfc\xff\xfc\xffOB\0\0" + (30_000).to_bytes(4, "little") + bytes(30_000)
SCOPE = "20260301/eu-west-1/medical-imaging/aws4_request"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SignedClient]:
    async with verifying(tmp_path) as it:
        yield it


def claim() -> Claim:
    key = _signing_key(KEYS.secret_key, SCOPE)
    return Claim("0" * 64, "20260301T120000Z", SCOPE, b"", key)


def encoded(chunks: list[bytes]) -> bytes:
    one = claim()
    signatures = chunk_signatures(KEYS.secret_key, one.amz_date, SCOPE, one.signature, chunks)
    return framed(chunks, list(signatures))


def decoded(data: bytes, piece: int | None = None, by: Claim | None = None) -> bytes:
    reader = ChunkReader(by or claim())
    step = piece or max(1, len(data))
    out = b"".join(
        part for at in range(0, len(data), step) for part in reader.feed(data[at : at + step])
    )
    reader.close()
    return out


class TestThePublishedExample:
    vector: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))

    def claim(self) -> Claim:
        it = self.vector
        head = Head.of(it["method"], it["path"], it["headers"].items())
        scope = f"{it['amz_date'][:8]}/{it['region']}/{it['service']}/aws4_request"
        return Claim(
            it["seed_signature"],
            it["amz_date"],
            scope,
            canonical_head(head, sorted(it["headers"])),
            _signing_key(it["secret_key"], scope),
        )

    def test_has_the_seed_signature(self) -> None:
        self.claim().prove(STREAMING)

    @pytest.mark.parametrize("piece", [None, 1000, 7])
    def test_is_decoded(self, piece: int | None) -> None:
        payload = self.vector["payload"]
        data = payload["byte"].encode() * payload["length"]
        wire = framed(cut(data, payload["chunk_size"]), self.vector["chunk_signatures"])
        assert len(wire) == self.vector["encoded_length"]
        assert decoded(wire, piece, self.claim()) == data


class TestChunks:
    @pytest.mark.parametrize("size", [1, 8192, 8193, 30_000])
    @pytest.mark.parametrize("piece", [None, 1, 8191])
    def test_are_decoded_however_they_arrive(self, size: int, piece: int | None) -> None:
        data = bytes(range(251)) * 200
        assert decoded(encoded(cut(data[:size], 8192)), piece) == data[:size]

    def test_may_hold_nothing(self) -> None:
        assert decoded(encoded([b""])) == b""

    @pytest.mark.parametrize("at", [10, 40, 85, 90, 5000, 8192, 8400, 16_560, -5, -1])
    def test_that_differ_in_one_byte_are_refused(self, at: int) -> None:
        wire = bytearray(encoded(cut(bytes(16_500), 8192)))
        wire[at] ^= 1
        with pytest.raises(Refusal) as refusal:
            decoded(bytes(wire))
        assert refusal.value.status in (400, 403)

    def test_that_are_left_out_exchanged_or_repeated_are_refused(self) -> None:
        chunks = cut(bytes(8192) + b"\1" * 8192 + b"\2" * 8192, 8192)
        wire = encoded(chunks)
        size = (len(wire) - len(encoded([b""]))) // 3
        a, b, c, end = (
            wire[:size],
            wire[size : 2 * size],
            wire[2 * size : 3 * size],
            wire[3 * size :],
        )
        assert decoded(a + b + c + end) == b"".join(chunks)
        for body in (a + c + end, b + a + c + end, a + a + b + c + end, a + b + end):
            with pytest.raises(Refusal) as refusal:
                decoded(body)
            assert refusal.value.status == 403

    @pytest.mark.parametrize("missing", [1, 2, 3, 40, 90, 100])
    def test_that_are_cut_off_are_refused(self, missing: int) -> None:
        with pytest.raises(Refusal) as refusal:
            decoded(encoded(cut(bytes(9000), 8192))[:-missing])
        assert refusal.value.status == 400

    def test_after_the_last_are_refused(self) -> None:
        with pytest.raises(Refusal, match="after the last"):
            decoded(encoded([b""]) + b"0")

    def test_that_are_short_and_not_the_last_are_refused(self) -> None:
        assert decoded(encoded([bytes(8192), bytes(1), b""])) == bytes(8193)
        with pytest.raises(Refusal) as refusal:
            decoded(encoded([bytes(8191), bytes(8192), b""]))
        assert refusal.value.status == 403

    @pytest.mark.parametrize(
        "wire", [b"x" * 200, b"10\r\n", b"zz;chunk-signature=" + b"0" * 64 + b"\r\n"]
    )
    def test_without_their_header_are_refused(self, wire: bytes) -> None:
        with pytest.raises(Refusal, match="chunk-signature"):
            decoded(wire)


class TestABody:
    async def test_that_changed_is_400_by_its_hash_and_leaves_nothing(
        self, client: SignedClient, tmp_path: Path
    ) -> None:
        for at in (200, len(LARGE) - 1):
            changed = bytes([*LARGE[:at], LARGE[at] ^ 1, *LARGE[at + 1 :]])
            answer = await client.store("sha256", changed, headers=headers_for("sha256", LARGE))
            assert (answer.status, list(answer.json)) == (400, ["message"])
            assert answer.headers["x-amzn-errortype"] == "ValidationException"
        assert files_under(tmp_path) == []

    async def test_that_changed_is_400_even_if_its_syntax_broke(self, client: SignedClient) -> None:
        body = multipart(ONE, instance(sop="1.2.3"))
        headers = headers_for("sha256", body) | {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=0f4e2a'
        }
        answer = await client.store("sha256", body.replace(b"a--", b"a-x"), headers=headers)
        assert (answer.status, "not the hash" in answer.json["message"]) == (400, True)
        assert await client.stored() == 0

    async def test_of_broken_syntax_that_is_what_was_signed_names_what_was_stored(
        self, client: SignedClient
    ) -> None:
        body = multipart(ONE, instance(sop="1.2.3")).replace(b"a--", b"a-x") + bytes(1 << 20)
        headers = headers_for("sha256", body) | {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=0f4e2a'
        }
        answer = await client.store("sha256", body, headers=headers)
        assert (answer.status, answer.stored) == (400, ["1.2.1.1.1"])
        assert await client.stored() == 1

    async def test_in_chunks_that_changed_leaves_nothing(
        self, client: SignedClient, tmp_path: Path
    ) -> None:
        url = f"{client.emulator.base_url}/studies"
        signed = signed_headers("POST", url, headers_for("aws-chunked", LARGE))
        wire = bytearray(encode_chunked(signed, LARGE))
        wire[-200] ^= 1
        answer = await client.request("POST", "/studies", bytes(wire), signed.items())
        assert answer.status == 403
        assert files_under(tmp_path) == []

    @pytest.mark.parametrize("mode", ["sha256", "aws-chunked"])
    async def test_that_is_held_goes_through_the_disk(
        self, client: SignedClient, tmp_path: Path, mode: str
    ) -> None:
        body = multipart(LARGE, instance(sop="1.2.3"))
        headers = headers_for(mode, body) | {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=0f4e2a'
        }
        answer = await client.store(mode, body, headers=headers)
        assert (answer.status, sorted(answer.stored)) == (200, ["1.2.1.1.1", "1.2.3"])
        assert len(files_under(tmp_path)) == 2

    async def test_in_chunks_and_without_a_length_of_its_own_is_measured(
        self, client: SignedClient
    ) -> None:
        url = f"{client.emulator.base_url}/studies"
        for size, status in ((len(ONE), 200), (len(ONE) + 1, 400)):

            async def pieces() -> AsyncIterator[bytes]:
                yield ONE

            headers = headers_for("literal", ONE) | {"x-amz-decoded-content-length": str(size)}
            signed = signed_headers("POST", url, headers)
            answer = await client.request("POST", "/studies", pieces(), signed.items())
            assert answer.status == status

    @pytest.mark.parametrize("mode", ["literal", "aws-chunked", "sha256", "unsigned"])
    @pytest.mark.parametrize(("size", "status"), [("1", 400), ("x", 400), ("-1", 400)])
    async def test_with_a_wrong_decoded_length(
        self, client: SignedClient, mode: str, size: str, status: int
    ) -> None:
        headers = headers_for(mode, ONE) | {"x-amz-decoded-content-length": size}
        assert (await client.store(mode, headers=headers)).status == status
        assert await client.stored() == 0

    @pytest.mark.parametrize("mode", ["literal", "aws-chunked"])
    async def test_without_a_decoded_length_is_411(self, client: SignedClient, mode: str) -> None:
        headers = headers_for(mode, ONE)
        del headers["x-amz-decoded-content-length"]
        assert (await client.store(mode, headers=headers)).status == 411

    @pytest.mark.parametrize("value", ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x", "A" * 64])
    async def test_vouched_for_in_another_way_is_400(
        self, client: SignedClient, value: str
    ) -> None:
        headers = headers_for("unsigned", ONE) | {"x-amz-content-sha256": value}
        assert (await client.store("unsigned", headers=headers)).status == 400

    @pytest.mark.parametrize("mode", ["sha256", "unsigned"])
    async def test_in_chunks_without_their_signature_is_415(
        self, client: SignedClient, mode: str
    ) -> None:
        headers = headers_for(mode, ONE) | {"Content-Encoding": "aws-chunked"}
        assert (await client.store(mode, headers=headers)).status == 415


class TestMemory:
    @pytest.mark.parametrize("mode", ["sha256", "aws-chunked"])
    async def test_does_not_grow_with_a_body_that_is_held(
        self, client: SignedClient, mode: str
    ) -> None:
        """64 MiB, in one chunk, through a process that may hold 12, the client's included."""
        count = 64
        head = ONE + b"\xfc\xff\xfc\xffOB\0\0" + (count * MIB).to_bytes(4, "little")
        digest = hashlib.sha256(head)
        for _ in range(count):
            digest.update(bytes(MIB))
        size = len(head) + count * MIB
        headers = headers_for(mode, b"") | {"x-amz-decoded-content-length": str(size)}
        if mode == "sha256":
            headers["x-amz-content-sha256"] = digest.hexdigest()
        url = f"{client.emulator.base_url}/studies"
        signed = signed_headers("POST", url, headers)

        async def wire() -> AsyncIterator[bytes]:
            frames = [b"", b""]
            if mode == "aws-chunked":
                frames = chunk_frames(signed, size, digest.hexdigest())
            yield frames[0] + head
            for _ in range(count):
                yield bytes(MIB)
            yield frames[1]

        tracemalloc.start()
        try:
            answer = await client.request("POST", "/studies", wire(), signed.items())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert peak < 12 * MIB


class TestPayloadModes:
    @pytest.mark.parametrize("accepted", list(PayloadMode))
    async def test_refuse_the_others(self, tmp_path: Path, accepted: PayloadMode) -> None:
        async with verifying(tmp_path, payload_modes=frozenset([accepted])) as client:
            for mode in PayloadMode:
                answer = await client.store(mode)
                assert answer.status == (200 if mode is accepted else 403)
            assert await client.stored() == 1  # asking has no payload

    def test_are_a_list_with_commas(self) -> None:
        assert parse_modes("literal, sha256") == {PayloadMode.LITERAL, PayloadMode.SHA256}
        assert parse_modes(",".join(ALL_MODES)) == ALL_MODES
        for wrong in ("", "literal,", "gzip"):
            with pytest.raises(ValueError, match="payload modes are"):
                parse_modes(wrong)


async def exchange(client: Client, head: str, body: bytes = b"") -> bytes:
    """What comes back to a head of a POST, and then to a body if 100 Continue comes first."""
    host, port = client.emulator.url.removeprefix("http://").split(":")
    path = client.emulator.base_url.removeprefix(client.emulator.url)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {path}/studies HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
    async with asyncio.timeout(60):
        first = await reader.readuntil(b"\r\n\r\n")
        if body and first.startswith(b"HTTP/1.1 100 "):
            writer.write(body)
            first += await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return first


class TestExpect:
    HEAD = "Content-Type: application/dicom\r\nExpect: 100-continue\r\n"

    async def test_100_continue_is_answered_when_the_body_is_wanted(self, tmp_path: Path) -> None:
        async with verifying(tmp_path, credentials=None) as client:
            answer = await exchange(client, f"{self.HEAD}Content-Length: {len(ONE)}\r\n", ONE)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")

    async def test_is_refused_at_once_without_a_signature(self, client: SignedClient) -> None:
        answer = await exchange(client, f"{self.HEAD}Content-Length: {len(ONE)}\r\n", ONE)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"Connection: close" in answer

    async def test_of_something_else_is_417(self, client: SignedClient) -> None:
        assert (await exchange(client, "Expect: 200-ok\r\nContent-Length: 1\r\n")).startswith(
            b"HTTP/1.1 417 "
        )


class TestTheLimitOfABody:
    @pytest.mark.parametrize(
        ("length", "status"), [(999_999_999, b"100"), (1_000_000_000, b"413"), (10**15, b"413")]
    )
    async def test_is_1_gb_by_its_length(self, tmp_path: Path, length: int, status: bytes) -> None:
        async with verifying(tmp_path, credentials=None) as client:
            head = f"{TestExpect.HEAD}Content-Length: {length}\r\n"
            assert (await exchange(client, head)).startswith(b"HTTP/1.1 " + status)
            await until(lambda: files_under(tmp_path) == [])

    async def test_is_that_of_the_decoded_length(self, client: SignedClient) -> None:
        headers = headers_for("aws-chunked", ONE) | {"x-amz-decoded-content-length": str(10**9)}
        answer = await client.store("aws-chunked", headers=headers)
        assert answer.status == 413
        assert answer.headers["x-amzn-errortype"] == "RequestEntityTooLargeException"

    async def test_holds_without_a_length(self, tmp_path: Path) -> None:
        async with verifying(tmp_path, credentials=None, body_limit_bytes=1 << 20) as client:

            async def pieces() -> AsyncIterator[bytes]:
                yield ONE
                for _ in range(20):
                    yield bytes(1 << 16)

            answer = await client.post(pieces(), "application/dicom")
            assert answer.status == 413
            assert files_under(tmp_path) == []

"""Bodies in signed chunks."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.auth.chunks import (
    MIN_CHUNK_BYTES,
    ChunkSeed,
    ChunkSigner,
    encoded_length,
)
from ingester.auth.sigv4 import PayloadMode, Signer
from ingester.transport.chunked import ChunkWriter
from tests.unit.signing.by_the_book import chunk_signatures, mac, read_chunks
from tests.unit.signing.made import NOW, SECRET_KEY, keys, vector

SCOPE = "20260314/us-east-1/medical-imaging/aws4_request"


def seed(chunk_bytes: int = MIN_CHUNK_BYTES) -> ChunkSeed:
    signed = Signer(
        "us-east-1", "medical-imaging", PayloadMode.AWS_CHUNKED, chunk_bytes=chunk_bytes
    ).sign("POST", "https://h/p", {}, credentials=keys(), now=NOW, content_length=1)
    assert signed.chunks is not None
    return signed.chunks


def vector_seed() -> ChunkSeed:
    given_ = vector()
    key = f"AWS4{given_['secret_key']}".encode()
    for part in ("20130524", given_["region"], given_["service"], "aws4_request"):
        key = mac(key, part)
    scope = f"20130524/{given_['region']}/{given_['service']}/aws4_request"
    return ChunkSeed(given_["seed_signature"], key, scope, "20130524T000000Z")


class Kept:
    """A wire that keeps what it was given, as a slow transport does."""

    def __init__(self) -> None:
        self.pieces: list[bytes | bytearray | memoryview] = []

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Keep a reference."""
        self.pieces.append(chunk)


def encode(body: bytes, cuts: list[int], chunk_seed: ChunkSeed) -> bytes:
    """The body on the wire, given in pieces that end at the cuts and are overwritten afterwards."""
    kept = Kept()

    async def write() -> None:
        with ThreadPoolExecutor(1) as executor:
            writer = ChunkWriter(chunk_seed, executor)
            start = 0
            for end in sorted({min(cut, len(body)) for cut in cuts} | {len(body)}):
                piece = bytearray(body[start:end])
                await writer.write(kept, memoryview(piece))
                piece[:] = bytes(len(piece))
                start = end
            await writer.end(kept)

    asyncio.run(write())
    return b"".join(kept.pieces)


class TestAmazonsExample:
    def test_step_by_step(self) -> None:
        payload = vector()["payload"]
        body = memoryview(payload["byte"].encode() * payload["length"])
        size = payload["chunk_size"]
        signer = ChunkSigner(vector_seed())
        first, second, last = vector()["chunk_signatures"]
        assert signer.frame(body[:size]) == f"10000;chunk-signature={first}\r\n".encode()
        assert signer.frame(body[size:]) == f"400;chunk-signature={second}\r\n".encode()
        assert signer.end() == f"0;chunk-signature={last}\r\n\r\n".encode()

    def test_whole(self) -> None:
        payload = vector()["payload"]
        wire = encode(payload["byte"].encode() * payload["length"], [], vector_seed())
        assert [signature for signature, _ in read_chunks(wire)] == vector()["chunk_signatures"]
        assert len(wire) == vector()["encoded_length"]

    def test_its_length(self) -> None:
        payload = vector()["payload"]
        length = encoded_length(payload["length"], payload["chunk_size"])
        assert length == vector()["encoded_length"]


class TestTheLength:
    @settings(deadline=None)
    @given(
        length=st.one_of(
            st.integers(0, 5 * MIN_CHUNK_BYTES),
            st.integers(0, 5).map(lambda n: n * MIN_CHUNK_BYTES),
        ),
        chunk_bytes=st.integers(MIN_CHUNK_BYTES, 3 * MIN_CHUNK_BYTES),
    )
    def test_is_that_of_the_wire(self, length: int, chunk_bytes: int) -> None:
        wire = encode(bytes(length), [], seed(chunk_bytes))
        assert len(wire) == encoded_length(length, chunk_bytes)

    @pytest.mark.parametrize(("length", "chunk_bytes"), [(-1, 65536), (1, 8191), (1, 0)])
    def test_of_nonsense_is_refused(self, length: int, chunk_bytes: int) -> None:
        with pytest.raises(ValueError, match="8192"):
            encoded_length(length, chunk_bytes)

    def test_chunks_that_s3_refuses_are_refused_at_the_start(self) -> None:
        with pytest.raises(ValueError, match="8192"):
            Signer("r", "s", PayloadMode.AWS_CHUNKED, chunk_bytes=8191)


class TestTheWire:
    @settings(deadline=None)
    @given(
        length=st.integers(0, 4 * MIN_CHUNK_BYTES),
        cuts=st.lists(st.integers(0, 4 * MIN_CHUNK_BYTES), max_size=8),
        byte=st.integers(0, 255),
    )
    def test_is_signed_by_the_book_however_the_body_came(
        self, length: int, cuts: list[int], byte: int
    ) -> None:
        body = bytes((byte + n * n) % 256 for n in range(length))
        chunk_seed = seed()
        chunks = read_chunks(encode(body, cuts, chunk_seed))
        data = [data for _, data in chunks]
        assert b"".join(data) == body
        assert all(len(chunk) == MIN_CHUNK_BYTES for chunk in data[:-2])
        assert [signature for signature, _ in chunks] == chunk_signatures(
            chunk_seed.signature, SECRET_KEY, "20260314T150926Z", SCOPE, data
        )

    @settings(deadline=None)
    @given(at=st.integers(0, 3 * MIN_CHUNK_BYTES - 1), bit=st.integers(0, 7))
    def test_a_wrong_bit_changes_its_chunks_signature_and_all_after_it(
        self, at: int, bit: int
    ) -> None:
        body = bytearray(3 * MIN_CHUNK_BYTES)
        right = [signature for signature, _ in read_chunks(encode(bytes(body), [], seed()))]
        body[at] ^= 1 << bit
        wrong = [signature for signature, _ in read_chunks(encode(bytes(body), [], seed()))]
        changed = [a != b for a, b in zip(right, wrong, strict=True)]
        assert changed == [n >= at // MIN_CHUNK_BYTES for n in range(4)]

    def test_a_chunk_in_parts_is_signed_as_one(self) -> None:
        whole, parts = ChunkSigner(seed()), ChunkSigner(seed())
        assert whole.frame(b"abcdef") == parts.frame(b"ab", memoryview(b"cd"), bytearray(b"ef"))

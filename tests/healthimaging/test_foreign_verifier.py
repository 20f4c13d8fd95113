"""A verifier that others wrote, of a service with the same signatures, judges what we send.

OpenStack Swift's S3 API checks the signature of the request, the digest of its body, and the
signature of each chunk. Its service is S3: signed as 's3', whose paths are encoded once. What is
sent is a real body of ours through the real sender, as a PUT of an object, which is all that S3
takes a body for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import md5
from typing import NamedTuple

import pytest

from ingester.auth.credentials import CredentialSource
from ingester.auth.sigv4 import PayloadMode, Signer
from ingester.control import StopControl
from ingester.dicomweb.multipart import multipart_framing, new_boundary
from ingester.items import FileIdentity, Instance
from ingester.readers import Readers
from ingester.transport.authorizer import SigV4
from ingester.transport.body import Body
from ingester.transport.pause import Pause
from ingester.transport.payload import BodyPayload
from ingester.transport.reply import Answer
from ingester.transport.sender import Sender, SenderOptions
from tests.healthimaging.foreign import Relay, Verdict, Verifier, replay, running_verifier
from tests.support.dicom_files import Corpus
from tests.unit.road import header, readers_of, ref_of

CHUNK_BYTES = [8 << 10, 256 << 10]


class Sent(NamedTuple):
    """One request: its answer, and its bytes on the wire."""

    answer: Answer
    body: bytes  # before any encoding
    wire: bytes

    @property
    def head_length(self) -> int:
        return self.wire.index(b"\r\n\r\n") + 4


class Keys(NamedTuple):
    """Keys as botocore gives them; its own provider."""

    access_key: str
    secret_key: str
    token: str | None = None

    def get_frozen_credentials(self) -> Keys:
        return self


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """One for all."""
    with running_verifier() as made:
        yield made


@pytest.fixture
def small(archive: Corpus) -> Corpus:
    """For what is refused before it is read: no file is being opened then."""
    files = {path: file for path, file in archive.files.items() if file.size < 100_000}
    return Corpus(archive.root, files)


def body_of(archive: Corpus, readers: Readers) -> Body:
    """Small files and a large one: read ahead and streamed, in many chunks."""
    paths = [os.fsencode(file.path) for file in archive]
    instances = [
        Instance(
            ref_of(path, number), FileIdentity.of(path), header(), None, None, mtime_trusted=True
        )
        for number, path in enumerate(paths)
    ]
    sizes = [each.size for each in instances]
    framing = multipart_framing(sizes, new_boundary(), quoted=True)
    return Body(instances, framing, readers, checksums=True)


async def send(
    archive: Corpus,
    verifier: Verifier,
    mode: str,
    *,
    chunk_bytes: int = CHUNK_BYTES[0],
    keys: Keys | None = None,
    region: str | None = None,
    path: str = "/object",
) -> Sent:
    """Send the archive's files in one body through the relay."""
    readers = readers_of()
    body = body_of(archive, readers)
    keys = keys or Keys(verifier.access_key, verifier.secret_key)
    signer = Signer(region or verifier.region, "s3", PayloadMode(mode), chunk_bytes=chunk_bytes)
    with Relay(verifier) as relay:
        options = SenderOptions(f"{relay.url}/bucket", "test")
        async with (
            CredentialSource(resolve=lambda: keys) as source,
            Sender(
                options,
                SigV4(signer, source, Pause(source, 1, StopControl()), chunk_bytes=chunk_bytes),
            ) as sender,
        ):
            assert await body.hash_whole() is None
            chunks = chunk_bytes if mode == "aws-chunked" else 0
            payload = BodyPayload(body, readers.piece(), chunks)
            answer = await sender._exchange("PUT", path, payload)
    readers.shutdown()
    assert isinstance(answer, Answer)
    files = [file.path.read_bytes() for file in archive]
    plain = b"".join(part for pair in zip(body.framing.before, files, strict=True) for part in pair)
    return Sent(answer, plain + body.framing.end, relay.sent)


def changed(wire: bytes, at: int) -> bytes:
    """One bit of one byte is another."""
    return wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :]


def code_of(answer: Answer) -> str:
    return Verdict(answer.status, answer.body.decode()).code


class TestTheForeignVerifierAccepts:
    @pytest.mark.parametrize(
        ("mode", "chunk_bytes"),
        [("sha256", CHUNK_BYTES[0]), ("unsigned", CHUNK_BYTES[0])]
        + [("aws-chunked", size) for size in CHUNK_BYTES],
    )
    async def test_what_we_sign(
        self, mode: str, chunk_bytes: int, archive: Corpus, verifier: Verifier
    ) -> None:
        sent = await send(archive, verifier, mode, chunk_bytes=chunk_bytes)
        assert sent.answer.status == 200, sent.answer.body
        chunks = sent.wire.count(b";chunk-signature=")
        expected = -(-len(sent.body) // chunk_bytes) + 1 if mode == "aws-chunked" else 0
        assert chunks == expected
        again = replay(verifier, sent.wire)
        assert again.status == 200
        assert md5(sent.body, usedforsecurity=False).hexdigest() in again.head

    @pytest.mark.parametrize("mode", ["sha256", "unsigned", "aws-chunked"])
    async def test_a_path_and_a_query_that_are_encoded(
        self, mode: str, archive: Corpus, verifier: Verifier
    ) -> None:
        path = "/a%20b/%C3%A4~-_.c%2B1"
        assert (await send(archive, verifier, mode, path=path)).answer.status == 200


class TestTheForeignVerifierRefuses:
    @pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
    async def test_one_byte_changed_in_a_chunk(
        self, chunk_bytes: int, archive: Corpus, verifier: Verifier
    ) -> None:
        sent = await send(archive, verifier, "aws-chunked", chunk_bytes=chunk_bytes)
        data = sent.wire.index(b"\r\n", sent.head_length) + 2
        last = sent.wire.rindex(b"\r\n0;chunk-signature=") - 1
        for at in (data, data + chunk_bytes - 1, data + len(sent.body) // 2, last):
            verdict = replay(verifier, changed(sent.wire, at))
            assert (verdict.status, verdict.code) == (403, "SignatureDoesNotMatch"), at
        assert replay(verifier, sent.wire).status == 200

    async def test_one_digit_changed_in_a_chunks_signature(
        self, archive: Corpus, verifier: Verifier
    ) -> None:
        sent = await send(archive, verifier, "aws-chunked")
        name = b";chunk-signature="
        first, last = sent.wire.index(name), sent.wire.rindex(name)
        for at in (first, sent.wire.index(name, first + 1), last):
            verdict = replay(verifier, changed(sent.wire, at + len(name) + 63))
            assert (verdict.status, verdict.code) == (403, "SignatureDoesNotMatch"), at

    async def test_two_chunks_exchanged(self, archive: Corpus, verifier: Verifier) -> None:
        size = CHUNK_BYTES[1]
        sent = await send(archive, verifier, "aws-chunked", chunk_bytes=size)
        frame = len(b"40000;chunk-signature=") + 64 + 2 + size + 2
        begin = sent.head_length
        one, two = sent.wire[begin : begin + frame], sent.wire[begin + frame : begin + 2 * frame]
        exchanged = sent.wire[:begin] + two + one + sent.wire[begin + 2 * frame :]
        verdict = replay(verifier, exchanged)
        assert (verdict.status, verdict.code) == (403, "SignatureDoesNotMatch")

    async def test_one_byte_changed_in_a_body_with_its_digest(
        self, archive: Corpus, verifier: Verifier
    ) -> None:
        sent = await send(archive, verifier, "sha256")
        for at in (sent.head_length, sent.head_length + len(sent.body) // 2, len(sent.wire) - 1):
            verdict = replay(verifier, changed(sent.wire, at))
            assert (verdict.status, verdict.code) == (400, "XAmzContentSHA256Mismatch"), at

    @pytest.mark.parametrize("mode", ["sha256", "unsigned", "aws-chunked"])
    async def test_one_byte_changed_in_what_is_signed_of_the_head(
        self, mode: str, archive: Corpus, verifier: Verifier
    ) -> None:
        sent = await send(archive, verifier, mode)
        head = sent.wire[: sent.head_length]
        for words in (b"PUT /bucket/objec", b'boundary="', b"Host: 127.0.0.1:", b"Signature="):
            at = head.index(words) + len(words)
            verdict = replay(verifier, changed(sent.wire, at))
            assert (verdict.status, verdict.code) == (403, "SignatureDoesNotMatch"), words
        assert replay(verifier, sent.wire).status == 200

    @pytest.mark.parametrize("mode", ["sha256", "unsigned", "aws-chunked"])
    async def test_another_secret_key_and_another_region(
        self, mode: str, small: Corpus, verifier: Verifier
    ) -> None:
        keys = Keys(verifier.access_key, "not the secret".replace(" ", "-"))
        refused = (await send(small, verifier, mode, keys=keys)).answer
        assert (refused.status, code_of(refused)) == (403, "SignatureDoesNotMatch")
        refused = (await send(small, verifier, mode, region="us-east-1")).answer
        assert (refused.status, code_of(refused)) == (400, "AuthorizationHeaderMalformed")

    async def test_the_literal_which_promises_chunks_and_sends_none(
        self, small: Corpus, verifier: Verifier
    ) -> None:
        """Of S3; HealthImaging documents it so. That is why the payload mode is an option."""
        refused = (await send(small, verifier, "literal")).answer
        assert (refused.status, code_of(refused)) == (400, "IncompleteBody")

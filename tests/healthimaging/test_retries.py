"""A retry says the same: byte for byte the same body, signed anew, in each payload mode."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingester.config import load_config
from ingester.pipeline import ingest
from ingester.sources import Source
from tests.healthimaging.emulated import KEYS, REGION
from tests.support.dicom_files import Corpus
from tests.support.exchange import Exchange
from tests.support.scripted import Answer, CloseAfter, Request, Reset, ScriptedServer, Step
from tests.support.stow import files_of, read_instance, store_instances_response
from tests.unit.signing.by_the_book import chunk_signatures, expected_signature, read_chunks

MODES = ["literal", "sha256", "unsigned", "aws-chunked"]
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Keys:
    """Those of the tests, as botocore gives them."""

    access_key: str = KEYS.access_key
    secret_key: str = KEYS.secret_key
    token: str | None = None

    def get_frozen_credentials(self) -> Keys:
        """These."""
        return self


def decoded(request: Request) -> bytes:
    """The body as it was before it was cut into chunks."""
    if request.headers.get("content-encoding") != "aws-chunked":
        return request.body
    return b"".join(data for _, data in read_chunks(request.body))


@dataclass(frozen=True, slots=True)
class StoreDecoded:
    """Stores every instance of a body in any of the modes."""

    def play(self, exchange: Exchange) -> None:
        """Reads, stores, answers."""
        exchange.read_body(keep_all=True)
        content_type = exchange.request.headers["content-type"]
        files = files_of(content_type, decoded(exchange.request))
        received = [read_instance(file) for file in files]
        exchange.ledger.store(received)
        exchange.answer(200, {}, store_instances_response(stored=received))


def assert_signed_by_the_book(post: Request) -> None:
    """Its signature, what it says of the body, and the signature of each chunk."""
    headers = post.headers
    ours, theirs = expected_signature("POST", post.path, headers, KEYS.secret_key)[::-1]
    assert ours == theirs
    body = decoded(post)
    said = headers["x-amz-content-sha256"]
    assert said in {hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD", STREAMING}
    if said == STREAMING:
        assert headers["x-amz-decoded-content-length"] == str(len(body))
    if headers.get("content-encoding") == "aws-chunked":
        chunks = read_chunks(post.body)
        scope = headers["authorization"].partition("Credential=")[2].partition(",")[0]
        expected = chunk_signatures(
            ours,
            KEYS.secret_key,
            headers["x-amz-date"],
            scope.partition("/")[2],
            [data for _, data in chunks],
        )
        assert [signature for signature, _ in chunks] == expected


FAULTS: dict[str, tuple[Step, ...]] = {
    "503": (Answer(503, {"Retry-After": "0"}),),
    "500 and 429": (Answer(500), Answer(429)),
    "reset in the body": (Reset(after_bytes=100_000),),
    "closed after the body": (CloseAfter(None),),
    "403 with a date": (
        Answer(403, {"Date": "Wed, 01 Jan 2025 00:00:00 GMT"}),
        Answer(503),
    ),
}


class TestARetry:
    @pytest.mark.parametrize("inline_limit", [1 << 23, 1], ids=["cached", "read again"])
    @pytest.mark.parametrize("fault", FAULTS)
    @pytest.mark.parametrize("mode", MODES)
    async def test_sends_the_same_bytes_and_signs_them_anew(
        self,
        mode: str,
        fault: str,
        inline_limit: int,
        archive: Corpus,
        server: ScriptedServer,
        directory: Path,
    ) -> None:
        large = next(path for path in archive.files if "large" in str(path))
        source = large.parent if fault == "reset in the body" else archive.root / "small"
        server.default = StoreDecoded()
        server.push(*FAULTS[fault])
        flags = {
            "url": server.url, "server": "healthimaging", "auth": "sigv4", "region": REGION,
            "payload_signing": mode, "journal": str(directory / "journal.db"),
            "max_concurrency": 1, "readers": 1, "inline_limit": inline_limit,
            "backoff_base_s": 0.01,
        }  # fmt: skip
        sources = [Source(os.fsencode(source))]
        summary = await ingest(load_config(flags, {}), sources, resolve=Keys)
        posts = server.posts
        assert summary.exit_code == 0
        assert summary.outcomes["stored"] == summary.files
        assert summary.retries == len(FAULTS[fault])
        attempts = posts[: len(FAULTS[fault]) + 1]
        whole = [post for post in attempts if post.complete]
        last = decoded(attempts[-1])
        for post in whole:
            assert decoded(post) == last
            assert_signed_by_the_book(post)
        assert len({post.content_length for post in attempts}) == 1
        assert len({post.headers["content-type"] for post in attempts}) == 1
        partial = [post for post in attempts if not post.complete]
        assert len(partial) == (fault == "reset in the body")
        for post in partial:
            if mode != "aws-chunked":
                assert last.startswith(post.body)
        sent = {sha256 for digests in server.stored.values() for sha256 in digests}
        assert sent == {file.sha256 for file in archive if source in file.path.parents}

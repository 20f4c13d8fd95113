"""No credential is shown: not by repr, pickle, log, traceback or error."""

import copy
import io
import logging
import pickle
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

from ingester.auth.chain import Chain
from ingester.auth.chunks import ChunkSeed, ChunkSigner
from ingester.auth.credentials import CredentialSource
from ingester.auth.fetching import Fetched
from ingester.auth.refreshing import NoCredentials
from ingester.auth.sigv4 import Credentials, PayloadMode, SignedHeaders, Signer
from ingester.transport.authorizer import Authorized
from tests.unit.signing.conftest import Process
from tests.unit.signing.made import NOW, keys

CANARIES = ("access-canary", "secret-canary", "token-canary")


def credentials() -> Credentials:
    return keys(*CANARIES)


def signed() -> SignedHeaders:
    return Signer("us-east-1", "medical-imaging", PayloadMode.AWS_CHUNKED).sign(
        "POST", "https://h/p", {}, credentials=credentials(), now=NOW, content_length=9
    )


def seed() -> ChunkSeed:
    chunks = signed().chunks
    assert chunks is not None
    return chunks


def holders() -> list[object]:
    both = credentials()
    return [
        both, signed(), seed(), ChunkSigner(seed()), (both, [both]), {"a": signed()},
        Authorized(signed().headers, seed(), both),
    ]  # fmt: skip


def test_no_repr_shows_one() -> None:
    hidden = (*CANARIES, seed().signature, repr(seed().signing_key), "AWS4-HMAC-SHA256 ")
    for holder in holders():
        for text in (repr(holder), str(holder), f"{holder}"):
            assert not [word for word in hidden if word in text], type(holder)


@pytest.mark.parametrize("make", [credentials, signed, seed])
def test_none_is_pickled_or_copied_out(make: Callable[[], object]) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(make(), protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(make())


def test_they_are_frozen() -> None:
    with pytest.raises(AttributeError):
        credentials().access_key = "other"  # type: ignore[misc]  # that is the point


def test_signing_writes_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        signed()
    assert not caplog.records


def test_a_wrong_call_shows_none() -> None:
    signer = Signer("us-east-1", "medical-imaging", PayloadMode.SHA256)
    try:
        signer.sign("POST", "https://h/p", {}, credentials=credentials(), now=NOW, content_length=9)
    except ValueError:
        report = traceback.TracebackException(*sys.exc_info(), capture_locals=True)
        assert len(report.stack) == 3
        assert "canary" not in "".join(report.format())
    else:
        pytest.fail("it was signed")


@pytest.mark.parametrize(
    "does",
    [
        "sys.exit('secret-canary')",
        "print('secret-canary')",
        "give(1, life_s=-5)",
        "give(1, life_s=60) if CALL == 1 else sys.exit('secret-canary')",
        "give(CALL, life_s=60) if CALL < 3 else sys.exit('secret-canary')",
        "give(CALL, life_s=60)",
    ],
)
async def test_neither_log_nor_error_nor_thread_shows_one(
    process: Process,
    does: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process.does(does)
    said = io.StringIO()
    hooked: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, hooked.append
    try:
        with caplog.at_level(logging.DEBUG):
            try:
                async with CredentialSource() as source:
                    await source.refresh_now(source.snapshot(), 5)
                    said.write(f"{source!r} {source.failure!r} {source.snapshot()!r}")
            except NoCredentials as error:
                said.write(f"{error!r} {''.join(traceback.format_exception(error))}")
    finally:
        threading.excepthook = before
    out, err = capsys.readouterr()
    assert "canary" not in said.getvalue() + caplog.text + out + err
    assert not hooked


def test_what_was_fetched_shows_none() -> None:
    class Source:
        access_key, secret_key, token = CANARIES

        def get_frozen_credentials(self) -> "Source":
            return self

        def __repr__(self) -> str:
            return " ".join(CANARIES)

    fetched = Chain(Source)(anew=True)
    assert isinstance(fetched, Fetched)
    assert fetched.value.secret_key.reveal() == "secret-canary"
    assert "canary" not in repr(fetched)

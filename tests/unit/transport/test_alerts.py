"""Whether a server that refuses TLS is starting, or refuses us for good."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

import pytest

from ingester.config import load_config
from ingester.transport.alerts import Refusals
from ingester.transport.reply import NoAnswer
from ingester.wiring import sender_options
from tests.pipeline.certificate import Certificate, make_certificate
from tests.support.scripted import ScriptedServer


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> Refusals:
    return Refusals("https://127.0.0.1:1", None, 30.0, clock)


@pytest.mark.parametrize("kind", ["no_tls", "tls_refused"])
class TestAHandshakeThatIsRefused:
    async def test_before_any_answer_is_final(
        self, refusals: Refusals, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        refused = NoAnswer(kind, "why")
        assert await refusals.explain(refused) == refused
        assert refusals.for_good

    async def test_after_an_answer_is_a_lost_connection_for_a_patience_after_the_first(
        self, refusals: Refusals, clock: Clock, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        refused = NoAnswer(kind, "why")
        refusals.heard()
        for now in (1000.0, 1000.0, 1000.5, 1030.0):
            clock.now = now
            assert await refusals.explain(refused) == NoAnswer("not_sent", "why")
            assert not refusals.for_good
        clock.now = 1030.1
        assert await refusals.explain(refused) == refused
        assert refusals.for_good

    async def test_is_the_first_again_after_each_answer(
        self, refusals: Refusals, clock: Clock, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        refused = NoAnswer(kind, "why")
        for now in (1000.0, 1020.0, 1040.0, 1100.0):
            refusals.heard()
            clock.now = now
            assert await refusals.explain(refused) == NoAnswer("not_sent", "why")
        clock.now = 1131.0
        assert await refusals.explain(refused) == refused
        refusals.heard()
        assert not refusals.for_good

    async def test_is_the_first_again_once_nobody_listened_there(
        self, refusals: Refusals, clock: Clock, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        """Refused as it went down, and once more as it comes up, 20 minutes later."""
        refused = NoAnswer(kind, "why")
        refusals.heard()
        await refusals.explain(refused)
        refusals.nobody_there()
        clock.now += 1200
        assert await refusals.explain(refused) == NoAnswer("not_sent", "why")
        clock.now += 31
        assert await refusals.explain(refused) == refused

    async def test_counts_together_with_those_of_the_other_kind(
        self, refusals: Refusals, clock: Clock, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        refusals.heard()
        await refusals.explain(NoAnswer("no_tls" if kind == "tls_refused" else "tls_refused", ""))
        clock.now += 31
        assert await refusals.explain(NoAnswer(kind, "why")) == NoAnswer(kind, "why")


LOST = NoAnswer("lost", "ServerDisconnectedError")


def answered_once(server: ScriptedServer, trusting: ssl.SSLContext, clock: Clock) -> Refusals:
    """Of a server that was well before."""
    refusals = Refusals(server.url, trusting, 30.0, clock)
    refusals.heard()
    return refusals


class TestTheConnectionThatAsksWhyRequestsWereLost:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Certificate:
        return make_certificate(tmp_path)

    @pytest.fixture
    def trusting(self, certificate: Certificate) -> ssl.SSLContext:
        """Of a client without a certificate."""
        return ssl.create_default_context(cafile=certificate.path)

    @pytest.fixture
    def asking(self, certificate: Certificate) -> ssl.SSLContext:
        """Of a server that wants a certificate."""
        context = certificate.context
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_hears_whatever_there_is_before_any_answer(
        self, asking: ssl.SSLContext, trusting: ssl.SSLContext, clock: Clock,
        version: ssl.TLSVersion,
    ) -> None:  # fmt: skip
        asking.minimum_version = asking.maximum_version = version
        with ScriptedServer(tls=asking) as server:
            refusals = Refusals(server.url, trusting, 30.0, clock)
            assert (await refusals.explain(LOST)).kind == "tls_refused"

    async def test_hears_what_is_said_after_a_handshake_also_after_an_answer(
        self, asking: ssl.SSLContext, trusting: ssl.SSLContext, clock: Clock
    ) -> None:
        """In TLS 1.3 that is no server that is starting: it has seen who we are."""
        asking.minimum_version = ssl.TLSVersion.TLSv1_3
        with ScriptedServer(tls=asking) as server:
            refusals = answered_once(server, trusting, clock)
            assert await refusals.explain(LOST) == LOST
            required = NoAnswer("tls_refused", "certificate required")
            assert await refusals.explain(LOST) == required
            assert await refusals.explain(LOST) == required

    async def test_is_made_anew_after_the_server_was_down(
        self, asking: ssl.SSLContext, trusting: ssl.SSLContext, clock: Clock
    ) -> None:
        """Many were lost as it went down, and the connection that asked why met nobody."""
        asking.minimum_version = ssl.TLSVersion.TLSv1_3
        with ScriptedServer(tls=asking) as server:
            refusals = answered_once(server, trusting, clock)
            server.go_down()
            for _ in range(8):
                assert await refusals.explain(LOST) == LOST
            refusals.nobody_there()
            server.come_back()
            assert await refusals.explain(LOST) == LOST
            assert (await refusals.explain(LOST)).kind == "tls_refused"

    async def test_says_nothing_of_a_request_on_a_connection_with_an_answer(
        self, asking: ssl.SSLContext, trusting: ssl.SSLContext, clock: Clock
    ) -> None:
        asking.minimum_version = ssl.TLSVersion.TLSv1_3
        with ScriptedServer(tls=asking) as server:
            refusals = answered_once(server, trusting, clock)
            for _ in range(3):
                assert await refusals.explain(LOST, answered_before=True) == LOST

    async def test_that_is_refused_its_handshake_after_an_answer_is_one_such_refusal(
        self, asking: ssl.SSLContext, trusting: ssl.SSLContext, clock: Clock
    ) -> None:
        asking.maximum_version = ssl.TLSVersion.TLSv1_2
        refused = NoAnswer("tls_refused", "handshake failure")
        with ScriptedServer(tls=asking) as server:
            refusals = answered_once(server, trusting, clock)
            for _ in range(3):
                assert await refusals.explain(LOST) == LOST
        clock.now += 31.0
        assert await refusals.explain(refused) == refused, "it was the first"


@pytest.mark.parametrize(("base_s", "patience_s"), [(0.5, 30.0), (0.01, 0.6)])
def test_the_patience_is_60_back_off_bases(base_s: float, patience_s: float) -> None:
    config = load_config({"url": "https://127.0.0.1:1", "backoff_base_s": base_s}, {}, None)
    assert sender_options(config).refusal_patience_s == pytest.approx(patience_s)

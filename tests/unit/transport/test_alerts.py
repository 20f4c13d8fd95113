"""Whether a server that refuses TLS is starting, or refuses us for good."""

from __future__ import annotations

from typing import Literal

import pytest

from ingester.config import load_config
from ingester.transport.alerts import Refusals
from ingester.transport.reply import NoAnswer
from ingester.wiring import sender_options


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

    async def test_counts_together_with_those_of_the_other_kind(
        self, refusals: Refusals, clock: Clock, kind: Literal["no_tls", "tls_refused"]
    ) -> None:
        refusals.heard()
        await refusals.explain(NoAnswer("no_tls" if kind == "tls_refused" else "tls_refused", ""))
        clock.now += 31
        assert await refusals.explain(NoAnswer(kind, "why")) == NoAnswer(kind, "why")


@pytest.mark.parametrize(("base_s", "patience_s"), [(0.5, 30.0), (0.01, 0.6)])
def test_the_patience_is_60_back_off_bases(base_s: float, patience_s: float) -> None:
    config = load_config({"url": "https://127.0.0.1:1", "backoff_base_s": base_s}, {}, None)
    assert sender_options(config).refusal_patience_s == pytest.approx(patience_s)

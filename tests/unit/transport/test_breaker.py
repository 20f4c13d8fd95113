from __future__ import annotations

import pytest

from ingester.transport.breaker import Breaker


def probes(outage_s: float) -> list[float]:
    """When a server that is away so long is tried, the last time with success."""
    breaker, now, at = Breaker(), 100.0, []
    breaker.trip(now)
    while breaker.open:
        now += breaker.probe_in_s(now)
        at.append(now - 100.0)
        if now - 100.0 >= outage_s:
            breaker.close()
        else:
            breaker.failed(now)
    return at


class TestAnOutageOfTwentyMinutes:
    def test_costs_an_eighth_more_at_most(self) -> None:
        assert 1200 <= probes(1200)[-1] <= 1200 * 9 / 8 + 1

    def test_is_probed_about_fifty_times(self) -> None:
        assert 30 <= len(probes(1200)) <= 60


class TestAnOutage:
    @pytest.mark.parametrize("outage_s", [0.5, 3, 60, 3600, 40_000])
    def test_is_never_waited_for_more_than_five_minutes_too_long(self, outage_s: float) -> None:
        last = probes(outage_s)[-1]
        assert outage_s <= last <= outage_s + 300

    def test_of_a_night_is_probed_some_hundred_times(self) -> None:
        assert len(probes(12 * 3600)) < 250

    def test_begins_with_the_first_sign(self) -> None:
        breaker = Breaker()
        breaker.trip(10.0)
        breaker.trip(20.0)
        assert breaker.away_s(25.0) == 15.0

    def test_is_over_when_it_is_closed(self) -> None:
        breaker = Breaker()
        breaker.trip(10.0)
        breaker.close()
        assert (breaker.open, breaker.away_s(50.0)) == (False, 0.0)

    def test_waits_as_long_as_the_server_asks(self) -> None:
        breaker = Breaker()
        breaker.trip(0.0)
        breaker.failed(1.0, least_wait_s=120.0)
        assert breaker.probe_in_s(1.0) == 120.0

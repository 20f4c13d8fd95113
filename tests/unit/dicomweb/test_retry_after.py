from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.dicomweb.retry_after import retry_after_s

NOW = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC)


class TestSeconds:
    @pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("120", 120), (" 7 ", 7), ("007", 7)])
    def test_are_waited(self, value: str, seconds: float) -> None:
        assert retry_after_s(value, NOW) == seconds

    @pytest.mark.parametrize("value", ["9" * 400, "9" * 5000])
    def test_are_finite(self, value: str) -> None:
        waited = retry_after_s(value, NOW)
        assert waited is not None
        assert math.isfinite(waited)


class TestADate:
    def test_is_the_time_until_then(self) -> None:
        assert retry_after_s("Thu, 29 Feb 2024 12:01:30 GMT", NOW) == 90

    def test_without_a_zone_is_utc(self) -> None:
        assert retry_after_s("Thu, 29 Feb 2024 12:01:30 -0000", NOW) == 90
        assert retry_after_s("Thu, 29 Feb 2024 12:01:30", NOW) == 90

    def test_of_another_zone(self) -> None:
        assert retry_after_s("Thu, 29 Feb 2024 13:01:30 +0100", NOW) == 90

    def test_that_is_past_is_no_wait(self) -> None:
        assert retry_after_s("Wed, 28 Feb 2024 12:00:00 GMT", NOW) == 0

    def test_of_the_old_forms(self) -> None:
        assert retry_after_s("Thursday, 29-Feb-24 12:00:05 GMT", NOW) == 5
        assert retry_after_s("Thu Feb 29 12:00:05 2024", NOW) == 5

    @given(st.integers(0, 10_000_000))
    def test_round_trips(self, seconds: int) -> None:
        value = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
        assert retry_after_s(value, NOW) == seconds


class TestGarbage:
    @pytest.mark.parametrize(
        "value",
        [None, "", " ", "-5", "1.5", "1e3", "soon", "٣", "²", "5, 6", "GMT", "Thu, 31 Feb 2024 12:00:00 GMT",
         "Wed, 21 Oct 2015 07:28:00 +99999999999999999999", "Wed, 21 Oct 99999 07:28:00 GMT"],
    )  # fmt: skip
    def test_is_no_answer(self, value: str | None) -> None:
        assert retry_after_s(value, NOW) is None

    @given(
        st.text(max_size=40)
        | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} (Jan|Feb) \d{1,6} \d+:\d+:\d+ [-+]?\d{1,30}")
    )
    def test_is_never_a_crash(self, value: str) -> None:
        waited = retry_after_s(value, NOW)
        assert waited is None or (waited >= 0 and math.isfinite(waited))

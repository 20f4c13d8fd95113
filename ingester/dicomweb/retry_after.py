"""The Retry-After header (RFC 9110 10.2.3): seconds or a date."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 1e9
"""Thirty years: so many digits that they are no number of seconds are still one."""


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait from ``now`` (aware), or None where the header is absent or not readable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), LONGEST_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())

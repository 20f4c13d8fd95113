"""What can become of a file: one outcome each, with the evidence for it.

The names are part of the command-line contract: results, summary and reports use them as they are.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The one recorded end of a file that the walk met."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored_with_warning"
    ALREADY_STORED = "already_stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    HELD = "held"
    REJECTED = "rejected"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    INVALID = "invalid"
    NOT_DICOM = "not_dicom"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    SKIPPED = "skipped"
    PENDING = "pending"


class Evidence(StrEnum):
    """Why ``stored`` may be said.

    The server's manifest, a look-up, or that these very bytes were stored as another file's.
    """

    MANIFEST = "manifest"
    QIDO = "qido"
    BYTES = "bytes"


IN_THE_STORE = frozenset({Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.ALREADY_STORED})
"""The server holds an instance of this UID, and said so."""

WAS_TAKEN = frozenset({Outcome.STORED, Outcome.STORED_WITH_WARNING})
"""The server took the file that was sent."""

NEVER_SENT = frozenset({Outcome.INVALID, Outcome.NOT_DICOM, Outcome.UNREADABLE, Outcome.SKIPPED})
"""Nothing of such a file has gone out whole."""

SETTLED = IN_THE_STORE | {
    Outcome.DUPLICATE,
    Outcome.CONFLICT,
    Outcome.HELD,
    Outcome.REJECTED,
    Outcome.INVALID,
    Outcome.NOT_DICOM,
    Outcome.TOO_LARGE,
    Outcome.SKIPPED,
}
"""Not looked at again by the next run while size and mtime are unchanged."""

HOLDS_ITS_CLAIM = IN_THE_STORE | {Outcome.IN_DOUBT}
"""Ends after which no other file may take the instance's UID; all others release it."""

INCOMPLETE = frozenset(
    {
        Outcome.REJECTED,
        Outcome.FAILED,
        Outcome.IN_DOUBT,
        Outcome.INVALID,
        Outcome.TOO_LARGE,
        Outcome.UNREADABLE,
        Outcome.HELD,
        Outcome.CONFLICT,
    },
)
"""A run that ends with one of these exits with 3."""

PIXEL_WARNINGS = frozenset({0xB100, 0xB110, 0xB111, 0xB112, 0xB120})
"""Warning reasons after which pixels may not be readable (AWS HealthImaging, STOW-RS page)."""


def may_warn_of_pixels(outcome: Outcome, warning_code: int | None) -> bool:
    """Whether pixels may not be readable. A warning that nobody knows any more may be of these."""
    if warning_code is None:
        return outcome is Outcome.STORED_WITH_WARNING
    return warning_code in PIXEL_WARNINGS

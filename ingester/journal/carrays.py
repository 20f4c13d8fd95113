"""Many values for one place in a statement."""

from __future__ import annotations

from array import array
from collections.abc import Sequence


def blobs(values: Sequence[bytes]) -> object:
    """For ``IN carray(?)`` of BLOBs."""
    import apsw  # noqa: PLC0415 - loaded by whoever made the connection

    return apsw.carray(tuple(values), flags=apsw.SQLITE_CARRAY_BLOB)


def numbers(ids: array[int]) -> object:
    """The same of 64-bit integers."""
    import apsw  # noqa: PLC0415 - the same

    return apsw.carray(ids)

"""The row of a result in ``details``, which most results do not need."""

from __future__ import annotations

import json

from ingester.items import Result
from ingester.journal.schema import clean_int, clean_text


def has_details(result: Result) -> bool:
    """Whether there is anything to say that its row in ``files`` does not say."""
    return (
        result.attempts > 1
        or bool(result.reason_code)
        or result.warning_code is not None
        or result.failure_code is not None
        or result.other_file_id is not None
        or bool(result.findings)
        or bool(result.reason)
        or (result.http_status is not None and result.http_status >= 300)
    )


def details_of(result: Result) -> tuple[object, ...]:
    """In the order of the table's columns."""
    warning, failure = result.warning_code, result.failure_code
    return (
        result.file.file_id,
        clean_text(result.reason_code),
        clean_text(result.reason),
        None if warning is None else clean_int(warning),
        None if failure is None else clean_int(failure),
        result.http_status,
        result.attempts,
        clean_text(result.request_id),
        result.other_file_id,
        json.dumps(result.findings) if result.findings else "",
    )

"""An exception as it may be shown to anybody: kinds and frames, never a text.

Texts of pydicom's and aiohttp's exceptions quote what they read, a patient's name for instance.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def frames_of(error: BaseException) -> Iterator[str]:
    """The kind of an exception, its frames, indented, and those of all it groups or came from."""
    yield type(error).__name__
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  at {frame.name} ({frame.filename}:{frame.lineno})"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from frames_of(each)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from frames_of(cause)

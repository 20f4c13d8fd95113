"""Where a path leads that somebody gave."""

from __future__ import annotations

import os
from typing import AnyStr

from ingester.errors import UsageError


def real_path(path: AnyStr) -> AnyStr:
    """Absolute and without links. Raises UsageError: it is relative to a directory that is gone."""
    try:
        return os.path.realpath(path)
    except FileNotFoundError as error:  # of os.getcwd(): what does not exist itself is no error
        raise UsageError(
            f"the working directory is gone, and a path begins there: {os.fsdecode(path)}",
            "change to a directory that is there, or give absolute paths",
        ) from error

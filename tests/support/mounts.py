"""Small and read-only file systems, where they may be mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Mounted:
    """A tmpfs of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        """Changes it: `ro`, `rw`, `size=…`."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Mounted]:
    """Mounts one on a new directory; skips the test where nobody may."""
    path.mkdir()
    with _mounted(path, "-t", "tmpfs", "-o", f"size={size},mode=700", "tests"):
        yield Mounted(path)


@contextmanager
def shown_again(directory: Path, path: Path) -> Iterator[None]:
    """Shows a directory at a new path as well, with its own device and inode; skips as above."""
    path.mkdir()
    with _mounted(path, "--bind", str(directory)):
        yield


@contextmanager
def _mounted(path: Path, *what: str) -> Iterator[None]:
    try:
        done = subprocess.run(["mount", *what, path], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)

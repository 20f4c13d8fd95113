"""Keys and moments that the tests of this folder sign with."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypedDict

from ingester.auth import Secret
from ingester.auth.sigv4 import Credentials

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def keys(
    access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY, token: str | None = None
) -> Credentials:
    """Credentials of a test."""
    return Credentials(access_key, Secret(secret_key), None if token is None else Secret(token))


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    """Wait for something another thread does."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it knows of no event
            await asyncio.sleep(0.01)


class Payload(TypedDict):
    byte: str
    length: int
    chunk_size: int


class Vector(TypedDict):
    access_key: str
    secret_key: str
    region: str
    service: str
    method: str
    host: str
    path: str
    headers: dict[str, str]
    payload: Payload
    encoded_length: int
    seed_signature: str
    chunk_signatures: list[str]


@cache
def vector() -> Vector:
    """Amazon's own example of a request in signed chunks."""
    file = Path(__file__).parents[2] / "vectors" / "sigv4_streaming.json"
    read: Vector = json.loads(file.read_text())
    return read

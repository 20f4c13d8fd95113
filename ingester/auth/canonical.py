"""botocore's canonical form of a request, for a moment and for headers of our choice.

Apart from ``sigv4`` because it imports botocore, which a run without AWS never pays for.
``add_auth`` is not used: it reads the clock itself and writes the security token to its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from botocore.auth import SigV4Auth  # type: ignore[import-untyped]  # botocore has no types
from botocore.compat import HTTPHeaders  # type: ignore[import-untyped]  # the same

S3_SERVICES = frozenset({"s3", "s3-outposts", "s3-object-lambda"})
"""They sign the path as it is sent; all others normalise it and encode it a second time."""


class Canonical(NamedTuple):
    """What is signed."""

    string_to_sign: str
    signed_headers: str  # names, lower case, sorted, separated by semicolons


class _Request(NamedTuple):
    """The part of botocore's request that its canonical form is made of."""

    method: str
    url: str
    headers: HTTPHeaders
    context: dict[str, str]


class Canonicalizer(SigV4Auth):  # type: ignore[misc]  # the base has no types
    """SigV4Auth whose clock, headers and key are the caller's."""

    def __init__(self, region: str, service: str) -> None:
        super().__init__(None, service, region)
        self._path_as_sent = service in S3_SERVICES

    def canonicalize(
        self, method: str, url: str, headers: Mapping[str, str], amz_date: str
    ) -> Canonical:
        """The string to sign. All ``headers`` are signed; they have Host and X-Amz-Date."""
        signed = HTTPHeaders()
        for name, value in headers.items():
            signed[name.lower()] = value
        request = _Request(method, url, signed, {"timestamp": amz_date})
        text: str = self.string_to_sign(request, self.canonical_request(request))
        return Canonical(text, self.signed_headers(signed))

    def headers_to_sign(self, request: _Request) -> HTTPHeaders:
        """All: the choice was made before."""
        return request.headers

    def canonical_query_string(self, request: _Request) -> str:
        """Decoded, encoded strictly and sorted, as the service does with what it receives.

        botocore sorts what is there, which must then be strict already: a comma in a QIDO
        query would not be.
        """
        query = request.url.partition("#")[0].partition("?")[2]
        pairs = sorted(_strict(pair) for pair in query.split("&") if pair)
        return "&".join(f"{name}={value}" for name, value in pairs)

    def _normalize_url_path(self, path: str) -> str:
        if self._path_as_sent:
            return path or "/"
        normalized: str = super()._normalize_url_path(path)
        return normalized


def _strict(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return _encode(name), _encode(value)


def _encode(text: str) -> str:
    return quote_from_bytes(unquote_to_bytes(text), safe="-_.~")

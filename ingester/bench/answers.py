"""What the sink answers, and what it counts.

Takes: the parts that a body had, or what it is refused for.
Gives: the bytes of a response; a Store Instances Response (PS3.18 Annex I) where there were parts.
"""

from dataclasses import dataclass, field
from typing import Final

from ingester.bench.parts import Part

_PHRASES: Final = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_STORED: Final = '{"00081150":{"vr":"UI","Value":["%s"]},"00081155":{"vr":"UI","Value":["%s"]}}'
_NOT_UNDERSTOOD: Final = '{"00081197":{"vr":"US","Value":[49152]}}'  # C000, and no UID to name


@dataclass(slots=True)
class Totals:
    """What was received; requests, instances and bytes are of those answered with a manifest."""

    requests: int = 0
    refused: int = 0  # requests answered without a manifest, throttled ones too
    throttled: int = 0  # requests answered 503 because they came too soon
    instances: int = 0
    bytes: int = 0  # request bodies, delimiters and part headers included
    wasted_bytes: int = 0  # of bodies that were refused, or that the client broke off
    first_at: float = 0.0  # when the first request's head was there, monotonic seconds
    last_at: float = 0.0  # when the last answer was written
    sop_instance_uids: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)  # by SOP Instance UID, the last one wins

    def take(self, parts: list[Part], body_bytes: int) -> None:
        """Counts a request that is answered with a manifest."""
        self.requests += 1
        self.bytes += body_bytes
        for part in parts:
            if part.sop_instance_uid:
                self.instances += 1
                self.sop_instance_uids.add(part.sop_instance_uid)
                if part.sha256:
                    self.digests[part.sop_instance_uid] = part.sha256

    def summary(self) -> dict[str, int | float]:
        """The totals as the sink prints them."""
        return {
            "requests": self.requests,
            "refused": self.refused,
            "throttled": self.throttled,
            "instances": self.instances,
            "distinct_instances": len(self.sop_instance_uids),
            "bytes": self.bytes,
            "wasted_bytes": self.wasted_bytes,
            "span_s": round(self.last_at - self.first_at, 3),
        }


def manifest(parts: list[Part]) -> tuple[int, bytes]:
    """Answers a request body: the status and the Store Instances Response, PS3.18 Annex I."""
    stored = [
        _STORED % (part.sop_class_uid, part.sop_instance_uid)
        for part in parts
        if part.sop_instance_uid
    ]
    lists = []
    if stored:
        lists.append(_sequence("00081199", stored))
    failures = len(parts) - len(stored)
    if failures:
        lists.append(_sequence("0008119A", [_NOT_UNDERSTOOD] * failures))
    status = 200 if not failures else 202 if stored else 409
    return status, "".join(("{", ",".join(lists), "}")).encode("ascii")


def _sequence(tag: str, items: list[str]) -> str:
    return f'"{tag}":{{"vr":"SQ","Value":[{",".join(items)}]}}'


def response(
    status: int, body: bytes, content_type: str, *, close: bool, retry_after_s: int | None = None
) -> bytes:
    """The bytes of a response."""
    retry_after = b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s
    return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n%s" % (
        status,
        _PHRASES[status].encode("ascii"),
        content_type.encode("ascii"),
        len(body),
        b"Connection: close\r\n" if close else b"",
        retry_after,
        body,
    )

"""What the emulator says: DICOM JSON (PS3.18 annex F) and refusals in the form of an AWS service.

AWS services with a JSON protocol name the kind of an error in ``x-amzn-errortype`` and explain it
in a ``message``. A refusal never quotes what was sent: it may be a patient's.
"""

from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from ingester.emulator.media_types import MediaType, covers, parse_accept

DICOM_JSON = "application/dicom+json"

Element = dict[str, object]
DataSet = dict[str, Element]  # by tag, eight upper-case hexadecimal digits

_KINDS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    406: "NotAcceptableException",
    411: "LengthRequiredException",
    413: "RequestEntityTooLargeException",
    500: "InternalServerException",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request that is refused as a whole.

    Args:
        status: The HTTP status.
        message: What is wrong with the request, without its values.
        kind: The name of the error, where the status alone does not tell it.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.kind = kind
        self.headers = headers


def refuse(
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> web.Response:
    """The answer to a request that is refused as a whole."""
    kind = kind or _KINDS.get(status)
    return web.Response(
        status=status,
        headers={**(headers or {}), **({"x-amzn-errortype": kind} if kind else {})},
        body=msgspec.json.encode({"message": message}),
        content_type="application/json",
    )


def dicom_json(data: DataSet | Sequence[DataSet], status: int = 200) -> web.Response:
    """An answer in DICOM JSON."""
    body = msgspec.json.encode(data)
    return web.Response(status=status, body=body, content_type=DICOM_JSON)


def element(vr: str, *values: object) -> Element:
    """One element; values that are empty strings are left out, as PS3.18 F.2.5 has it."""
    present = [value for value in values if value != ""]
    return {"vr": vr, "Value": present} if present else {"vr": vr}


def accepted(request: web.Request, *essences: str) -> tuple[str, MediaType]:
    """The first of these media types that a request accepts, and the media range that says so.

    Raises:
        Refusal: 406 when it accepts none of them, 400 when Accept cannot be read.
    """
    try:
        ranges = parse_accept(", ".join(request.headers.getall("Accept", ["*/*"])))
    except ValueError as error:
        raise Refusal(400, f"Accept: {error}") from error
    for media_range in ranges:
        for essence in essences:
            if covers(media_range, essence):
                return essence, media_range
    raise Refusal(406, f"Accept has none of: {', '.join(essences)}")

"""A verifier of SigV4 written from AWS's description alone: it shares nothing with the signer."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

SIGNATURE_LENGTH = 64


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), "sha256").digest()


def expected_signature(
    method: str, target: str, sent: Mapping[str, str], secret_key: str, *, is_s3: bool = False
) -> tuple[str, str]:
    """The signature that a request must have, and the one it has. `target` is the request line's."""
    headers = {name.lower(): value for name, value in sent.items()}
    fields = dict(
        field.strip().split("=", 1)
        for field in headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(",")
    )
    _, date, region, service, ending = fields["Credential"].split("/")
    assert ending == "aws4_request"
    assert headers["x-amz-date"].startswith(date)
    path, _, query = target.partition("?")
    if not is_s3:
        kept: list[str] = []
        for segment in path.split("/"):
            if segment == "..":
                del kept[-1:]
            elif segment not in {"", "."}:
                kept.append(quote(segment, safe="~"))
        slash = "/" if path.endswith("/") and kept else ""
        path = "/" + "/".join(kept) + slash
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    strict = sorted(
        tuple(quote(unquote_to_bytes(text), safe="-_.~") for text in (name, value))
        for name, _, value in pairs
    )
    canonical = "\n".join(
        [
            method,
            path,
            "&".join(f"{name}={value}" for name, value in strict),
            *(f"{name}:{headers[name].strip()}" for name in fields["SignedHeaders"].split(";")),
            "",
            fields["SignedHeaders"],
            headers["x-amz-content-sha256"],
        ]
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = mac(mac(mac(mac(f"AWS4{secret_key}".encode(), date), region), service), "aws4_request")
    words = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{digest}"
    return mac(key, words).hex(), fields["Signature"]


def read_chunks(wire: bytes) -> list[tuple[str, bytes]]:
    """Signature and data of every chunk of an aws-chunked body, which must end with an empty one."""
    chunks: list[tuple[str, bytes]] = []
    while True:
        line, _, wire = wire.partition(b"\r\n")
        length, _, extension = line.partition(b";")
        name, _, signature = extension.partition(b"=")
        assert name == b"chunk-signature"
        assert len(signature) == SIGNATURE_LENGTH
        count = int(length, 16)
        assert b"%x" % count == length
        assert wire[count : count + 2] == b"\r\n"
        chunks.append((signature.decode(), wire[:count]))
        wire = wire[count + 2 :]
        if not count:
            assert not wire
            return chunks


def chunk_signatures(
    seed: str, secret_key: str, amz_date: str, scope: str, chunks: list[bytes]
) -> list[str]:
    """The signature that each chunk must have."""
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = mac(key, part)
    signatures = [seed]
    for chunk in chunks:
        words = [
            "AWS4-HMAC-SHA256-PAYLOAD",
            amz_date,
            scope,
            signatures[-1],
            hashlib.sha256(b"").hexdigest(),
            hashlib.sha256(chunk).hexdigest(),
        ]
        signatures.append(mac(key, "\n".join(words)).hex())
    return signatures[1:]

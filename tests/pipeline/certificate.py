"""Self-made certificates, of servers and of clients, each of which is its own authority."""

from __future__ import annotations

import datetime as dt
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """What a server needs, and what a client is told to trust."""

    context: ssl.SSLContext
    path: Path
    key: Path


def make_certificate(
    directory: Path,
    name: str = "cert",
    *,
    address: str = "127.0.0.1",
    ended: dt.timedelta = dt.timedelta(days=-1),
    password: bytes | None = None,
) -> Certificate:
    """Makes one; skips where `cryptography`, of the test extra, is not installed.

    Args:
        directory: of the two files.
        name: what the files are called.
        address: whose it is.
        ended: how long ago it ended.
        password: of the key; then there is no context for a server.
    """
    pytest.importorskip("cryptography", reason="certificates are made by cryptography")
    from cryptography import x509  # noqa: PLC0415 - may be missing
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - the same

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"of a test: {name}")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now - ended)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path, key_path = directory / f"{name}.pem", directory / f"{name}-key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if password is None:
        context.load_cert_chain(path, key_path)
    return Certificate(context, path, key_path)

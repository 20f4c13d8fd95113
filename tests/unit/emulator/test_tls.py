"""HTTPS with a certificate that the emulator makes."""

import os
import ssl
from pathlib import Path

import aiohttp
import pytest

from ingester.emulator import Emulator
from ingester.emulator.certificates import make_server_context
from tests.unit.emulator.wire import Client, instance, multipart


def files_beside(ca: str) -> list[str]:
    directory = os.path.dirname(ca)
    return os.listdir(directory) if os.path.exists(directory) else []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_client_that_trusts_the_ca_is_served(tmp_path: Path, name: str) -> None:
    async with Emulator(store=tmp_path, tls=True) as emulator:
        assert emulator.url.startswith("https://127.0.0.1:")
        assert emulator.ca is not None
        assert files_beside(emulator.ca) == ["ca.pem"]
        trust = ssl.create_default_context(cafile=emulator.ca)
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(connector=connector) as session:
            client = Client(emulator, session)
            answer = await client.post(multipart(instance()))
            assert answer.status == 200
            assert answer.json["00081190"]["Value"][0].startswith(emulator.base_url)
            url = f"{emulator.base_url}/studies".replace("127.0.0.1", name)
            async with session.get(url) as found:
                assert found.status == 200
    assert files_beside(emulator.ca) == []


async def test_a_client_that_does_not_is_not(tmp_path: Path) -> None:
    async with Emulator(store=tmp_path, tls=True) as emulator, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(emulator.url)


@pytest.mark.parametrize("host", ["pacs.example.org", "192.0.2.7", "::1", "localhost"])
def test_a_certificate_names_the_host(tmp_path: Path, host: str) -> None:
    context, ca = make_server_context(str(tmp_path), host)
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(ours, theirs, server_side=True)
    trust = ssl.create_default_context(cafile=ca)
    client = trust.wrap_bio(theirs, ours, server_hostname=host)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"

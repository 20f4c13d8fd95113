"""How the emulator starts, ends, and is found again."""

import asyncio
import os
import re
import shutil
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import uvloop

from ingester.emulator import Emulator
from ingester.emulator.index import Key
from ingester.emulator.store import Store
from tests.unit.emulator.wire import (
    MULTIPART,
    Client,
    files_under,
    instance,
    multipart,
    running,
    until,
)

ONE_KEY = Key("1.2.1", "1.2.1.1", "1.2.1.1.1")
DATASTORE = "0123456789abcdefghijklmnopqrstuv"
MIB = 1 << 20


def store_threads() -> int:
    return sum("emulator-store" in thread.name for thread in threading.enumerate())


def lose_the_index(store: Path) -> None:
    for path in store.glob("index.sqlite*"):
        path.unlink()


async def versions(store: Path) -> dict[str, int]:
    async with Store(store) as it:
        rows = await it.search("instance", {}, 1000, 0)
    return {str(row["sop_instance_uid"]): int(row["version"]) for row in rows}


class TestAnAddress:
    async def test_has_the_shape_of_healthimaging(self, tmp_path: Path) -> None:
        async with Emulator(store=tmp_path) as emulator:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", emulator.url)
            assert re.fullmatch(r"[0-9a-z]{32}", emulator.datastore)
            assert emulator.base_url == f"{emulator.url}/datastore/{emulator.datastore}"
            assert emulator.ready_line() == {
                "url": emulator.url,
                "datastore": emulator.datastore,
                "region": "us-east-1",
                "access_key": None,
                "secret_key": None,
                "session_token": None,
                "ca": None,
            }

    async def test_has_the_datastore_that_is_asked_for(self, tmp_path: Path) -> None:
        async with running(tmp_path, datastore=DATASTORE) as client:
            assert client.emulator.base_url.endswith(DATASTORE)
            assert (await client.post(multipart(instance()))).status == 200

    @pytest.mark.parametrize("datastore", ["", "short", DATASTORE.upper(), DATASTORE + "x"])
    def test_with_another_form_of_datastore_is_refused(
        self, tmp_path: Path, datastore: str
    ) -> None:
        with pytest.raises(ValueError, match="32 characters"):
            Emulator(store=tmp_path, datastore=datastore)

    async def test_of_ipv6_is_in_brackets(self, tmp_path: Path) -> None:
        try:
            async with running(tmp_path, host="::1") as client:
                assert client.emulator.url.startswith("http://[::1]:")
                assert (await client.get("/studies")).status == 200
        except OSError:
            pytest.skip("no IPv6 loopback here")

    @pytest.mark.parametrize("path", ["/studies", "/", f"/datastore/{DATASTORE}/studies"])
    async def test_that_is_not_its_own_is_404(self, client: Client, path: str) -> None:
        async with client.session.get(client.emulator.url + path) as answer:
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (
                404,
                "ResourceNotFoundException",
            )

    async def test_with_another_method_is_405(self, client: Client) -> None:
        answer = await client.request("DELETE", "/studies", None, [])
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,POST")


class TestARestart:
    async def test_finds_everything_under_the_same_datastore(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            first = client.emulator.datastore
            await client.post(multipart(instance(), instance(sop="1.2.3")))
            before = await client.get("/instances")
        async with running(tmp_path) as client:
            assert client.emulator.datastore == first
            assert (await client.get("/instances")).json == before.json
            answer = await client.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1", "*/*")
            assert answer.body == instance()

    async def test_goes_on_counting_versions(self, tmp_path: Path) -> None:
        for _ in range(3):
            async with running(tmp_path) as client:
                await client.post(multipart(instance()))
        assert await versions(tmp_path) == {"1.2.1.1.1": 3}

    async def test_finds_files_whose_index_was_lost(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            await client.post(multipart(instance(), instance(sop="1.2.3")))
        lose_the_index(tmp_path)
        (tmp_path / "1.2.1" / "1.2.1.1" / "1.2.4.dcm").write_bytes(instance(sop="1.2.5"))
        (tmp_path / "1.2.1" / "1.2.1.1" / "notes.txt").write_bytes(b"not an instance")
        assert await versions(tmp_path) == {"1.2.1.1.1": 1, "1.2.3": 1}

    async def test_makes_an_index_of_another_version_anew(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            datastore = client.emulator.datastore
            await client.post(multipart(instance()))
        old = sqlite3.connect(tmp_path / "index.sqlite")
        old.executescript("DROP TABLE image_set; DROP TABLE non_primary; PRAGMA user_version = 0")
        old.close()
        async with running(tmp_path) as client:
            assert client.emulator.datastore == datastore
            assert len((await client.get("/instances")).json) == 1

    async def test_forgets_instances_whose_files_are_gone(self, tmp_path: Path) -> None:
        async with running(tmp_path) as client:
            await client.post(multipart(instance(), instance("1.2.9", sop="1.2.3")))
        shutil.rmtree(tmp_path / "1.2.9")
        assert await versions(tmp_path) == {"1.2.1.1.1": 1}

    async def test_clears_what_was_still_arriving(self, tmp_path: Path) -> None:
        (tmp_path / ".incoming").mkdir()
        (tmp_path / ".incoming" / "1").write_bytes(b"half a file")
        async with running(tmp_path) as client:
            assert (await client.post(multipart(instance()))).status == 200
        assert files_under(tmp_path) == [os.path.join(*ONE_KEY[:2], "1.2.1.1.1.dcm")]

    async def test_on_the_same_port_is_possible_at_once(self, tmp_path: Path) -> None:
        port = 0
        for _ in range(3):
            async with running(tmp_path, port=port) as client:
                port = int(client.emulator.url.rpartition(":")[2])
                assert (await client.get("/studies")).status == 200


class TestAStoreDirectory:
    async def test_is_held_by_one_emulator_at_a_time(self, tmp_path: Path) -> None:
        async with Emulator(store=tmp_path):
            with pytest.raises(sqlite3.OperationalError):
                async with Emulator(store=tmp_path):
                    pass
        async with Emulator(store=tmp_path):
            pass

    async def test_is_made_if_it_is_missing(self, tmp_path: Path) -> None:
        async with running(tmp_path / "a" / "b") as client:
            assert (await client.post(multipart(instance()))).status == 200


class TestTheEnd:
    async def test_waits_for_what_is_under_way(self, tmp_path: Path) -> None:
        async with aiohttp.ClientSession() as session:
            async with Emulator(store=tmp_path, latency_s=0.3) as emulator:
                task = asyncio.create_task(Client(emulator, session).post(multipart(instance())))
                await until(lambda: emulator.requests > 0)
            assert (await task).status == 200

    async def test_does_not_wait_for_a_body_that_does_not_come(self, tmp_path: Path) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield multipart(instance(), instance(sop="1.2.3"))[:-10]
            await asyncio.Event().wait()

        async with aiohttp.ClientSession() as session:
            async with Emulator(store=tmp_path) as emulator:
                task = asyncio.create_task(Client(emulator, session).post(endless()))
                await until((tmp_path / "1.2.1").exists)
                began = time.monotonic()
            assert time.monotonic() - began < 60
            with pytest.raises(aiohttp.ClientError):
                await task
        assert len(files_under(tmp_path)) == 1

    async def test_leaves_no_thread(self, tmp_path: Path) -> None:
        async with Emulator(store=tmp_path):
            assert store_threads() == 1
        assert store_threads() == 0


class TestAnErrorOfItsOwn:
    async def test_answers_500_and_logs_frames_without_the_text(
        self, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The text of an OSError is a path, and the path has UIDs."""
        (tmp_path / "1.2.1").write_bytes(b"a file in the way of the study's directory")
        answer = await client.post(multipart(instance()))
        assert (answer.status, answer.json) == (500, {"message": "see the log of the emulator"})
        [record] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "in _admit" in record.getMessage()
        assert "1.2.1" not in caplog.text
        assert os.listdir(tmp_path / ".incoming") == []

    async def test_of_broken_http_does_not_quote_it(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        host, port = client.emulator.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"Nobody^Known\x00 is not HTTP\r\n\r\n")
        assert b" 400 " in await reader.read()
        writer.close()
        await writer.wait_closed()
        assert "Nobody" not in caplog.text


class TestMemory:
    async def test_does_not_grow_with_a_part(self, client: Client, tmp_path: Path) -> None:
        """200 MiB through a process that may hold 24, what the client holds included."""
        head, tail = multipart(instance() + b"|").split(b"|")
        size = 200

        async def body() -> AsyncIterator[bytes]:
            yield head
            yield b"\xfc\xff\xfc\xffOB\0\0" + (size * MIB).to_bytes(4, "little")
            for _ in range(size):
                yield bytes(MIB)
            yield tail

        tracemalloc.start()
        try:
            answer = await client.post(body())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (answer.status, answer.stored) == (200, ["1.2.1.1.1"])
        assert peak < 24 * MIB
        [path] = files_under(tmp_path)
        assert (tmp_path / path).stat().st_size > size * MIB


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_on_either_loop(
    tmp_path: Path, loop_factory: type[asyncio.AbstractEventLoop]
) -> None:
    async def roundtrip() -> int:
        async with running(tmp_path) as client:
            answers = await asyncio.gather(
                *(client.post(multipart(instance(sop=f"1.2.{n}")), MULTIPART) for n in range(20))
            )
            assert {answer.status for answer in answers} == {200}
            assert len((await client.get("/instances")).json) == 20
            return client.emulator.requests

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(roundtrip()) == 21

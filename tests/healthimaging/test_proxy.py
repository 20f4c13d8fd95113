"""Proxies from the flag and the environment, around them by NO_PROXY, and no .netrc."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.healthimaging.emulated import Command, Running, assert_same_bytes, command, emulator
from tests.healthimaging.proxying import Proxy
from tests.support.dicom_files import Corpus
from tests.support.process import run_ingester
from tests.support.scripted import ScriptedServer

USER, PASSWORD = "proxy-user-canary", "proxy-pass%40word-canary"
BASIC = "Basic " + base64.b64encode(b"proxy-user-canary:proxy-pass@word-canary").decode()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """An emulator over TLS."""
    with emulator(tmp_path / "store") as made:
        yield made


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that asks nobody who he is."""
    with Proxy() as made:
        yield made


class TestHttpsThroughAProxy:
    @pytest.mark.parametrize("how", ["HTTPS_PROXY", "https_proxy", "--proxy"])
    def test_is_a_tunnel_and_the_run_is_as_without_it(
        self, how: str, archive: Corpus, running: Running, proxy: Proxy, directory: Path
    ) -> None:
        loaded = command(archive.root, running, directory)
        address = f"http://{proxy.address}"
        if how.startswith("--"):
            run = loaded.run(f"{how}={address}")
        else:
            run = loaded.run(env={how: address})
        assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
        assert run.summary["retries"] == 0
        assert proxy.methods == {"CONNECT"}
        assert all("authorization" not in head.lower() for head in proxy.heads)
        assert_same_bytes(running, loaded)

    def test_no_proxy_goes_around_it(
        self, archive: Corpus, running: Running, proxy: Proxy, directory: Path
    ) -> None:
        run = command(archive.root, running, directory).run(
            env={"HTTPS_PROXY": f"http://{proxy.address}", "NO_PROXY": "example.org,127.0.0.1"}
        )
        assert run.outcomes == {"stored": len(archive)}
        assert proxy.heads == []

    def test_a_proxy_of_the_other_scheme_is_not_asked(
        self, archive: Corpus, running: Running, proxy: Proxy, directory: Path
    ) -> None:
        run = command(archive.root, running, directory).run(
            env={"http_proxy": f"http://{proxy.address}"}
        )
        assert run.outcomes == {"stored": len(archive)}
        assert proxy.heads == []


class TestHttpThroughAProxy:
    def test_asks_it_for_the_whole_url_and_signs_for_the_server(
        self, archive: Corpus, proxy: Proxy, tmp_path: Path
    ) -> None:
        with emulator(tmp_path / "store", tls=False) as running:
            loaded = command(archive.root, running, tmp_path / "kept")
            run = loaded.run(env={"HTTP_PROXY": f"http://{proxy.address}"})
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert proxy.methods == {"POST"}
            assert all(f" {running.url}/studies " in head for head in proxy.heads)
            assert_same_bytes(running, loaded)


class TestCredentialsOfAProxy:
    def test_are_sent_to_it_and_shown_nowhere(
        self, archive: Corpus, running: Running, directory: Path
    ) -> None:
        with Proxy(f"{USER}:proxy-pass@word-canary") as proxy:
            loaded = command(archive.root, running, directory)
            env = {"HTTPS_PROXY": f"http://{USER}:{PASSWORD}@{proxy.address}"}
            run = loaded.run(env=env)
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert proxy.authorizations == {BASIC}
            assert "canary" not in run.ended.stdout + run.ended.stderr
            assert b"canary" not in loaded.kept_bytes()

    def test_that_are_wrong_stop_the_run_and_are_shown_nowhere(
        self, archive: Corpus, running: Running, directory: Path
    ) -> None:
        with Proxy("somebody:else") as proxy:
            loaded = command(archive.root, running, directory)
            env = {"HTTPS_PROXY": f"http://{USER}:{PASSWORD}@{proxy.address}"}
            run = loaded.run(env=env)
            assert (run.exit_code, run.outcomes) == (1, {"pending": len(archive)})
            assert proxy.refused >= 1
            assert "there is no connection through the proxy (HTTP 407)" in run.ended.stderr
            assert running.emulator.requests == 0
            assert "canary" not in run.ended.stdout + run.ended.stderr
            assert b"canary" not in loaded.kept_bytes()

    def test_are_not_in_the_shown_configuration(self) -> None:
        shown = run_ingester(
            "config",
            "--url=https://pacs.example",
            env={"HTTPS_PROXY": f"http://{USER}:{PASSWORD}@127.0.0.1:3128"},
        )
        assert shown.returncode == 0
        assert "canary" not in shown.stdout + shown.stderr

    def test_in_a_flag_are_wrong_use_and_are_not_repeated(self) -> None:
        shown = run_ingester(
            "config", "--url=https://pacs.example", f"--proxy=http://{USER}:{PASSWORD}@h:1"
        )
        assert shown.returncode == 2
        assert "HTTPS_PROXY" in shown.stderr
        assert "canary" not in shown.stdout + shown.stderr


class TestANetrcEntry:
    TEXT = "machine 127.0.0.1 login netrc-canary password netrc-canary\n" * 2
    TEXT += "default login netrc-canary password netrc-canary\n"

    @pytest.fixture
    def home(self, tmp_path: Path) -> dict[str, str]:
        """A home with a .netrc for the host, and the variable that names it."""
        netrc = tmp_path / "home" / ".netrc"
        netrc.parent.mkdir()
        netrc.write_text(self.TEXT)
        netrc.chmod(0o600)
        return {"HOME": str(netrc.parent), "NETRC": str(netrc)}

    @pytest.mark.parametrize("proxied", [False, True])
    def test_changes_nothing_for_a_signed_request(
        self,
        archive: Corpus,
        running: Running,
        proxy: Proxy,
        directory: Path,
        home: dict[str, str],
        *,
        proxied: bool,
    ) -> None:
        env = home | ({"HTTPS_PROXY": f"http://{proxy.address}"} if proxied else {})
        run = command(archive.root, running, directory).run(env=env)
        assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
        assert run.summary["retries"] == 0
        assert proxy.authorizations <= {None}

    def test_is_not_sent_where_no_authentication_was_asked_for(
        self, archive: Corpus, server: ScriptedServer, directory: Path, home: dict[str, str]
    ) -> None:
        run = Command(archive.root, server.url, directory, server=()).run(env=home)
        assert run.outcomes == {"stored": len(archive)}
        assert all("authorization" not in post.headers for post in server.posts)

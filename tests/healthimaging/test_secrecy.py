"""Keys and tokens are in the headers of a request, and nowhere else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest

from ingester.auth.credentials import CredentialSource
from ingester.config import load_config
from ingester.control import StopControl
from ingester.errors import FatalError, IngesterError
from ingester.pipeline import ingest
from ingester.sources import Source
from tests.healthimaging.emulated import TEMPORARY, Command, command, emulator, environment_of
from tests.support.dicom_files import Corpus
from tests.support.process import start_ingester
from tests.support.scripted import Answer, Request, ScriptedServer, Step
from tests.support.steps import Choose

SECRETS = ("canary",)


def echo(status: int) -> Step:
    """A server that says back what it was told, headers and all, as debugging proxies do."""

    def pick(request: Request) -> Step:
        return Answer(status, {"x-amzn-RequestId": "id"}, repr(request.headers).encode())

    return Choose(pick)


class TestARunThatWasVerbose:
    """Python's own levels: warnings, its development mode, asyncio's debugging."""

    @pytest.mark.parametrize("mode", ["literal", "aws-chunked"])
    @pytest.mark.parametrize("good", [True, False])
    def test_shows_and_keeps_no_credential(
        self, mode: str, archive: Corpus, tmp_path: Path, *, good: bool
    ) -> None:
        keys = TEMPORARY if good else replace(TEMPORARY, secret_key="wrong-secret-canary")
        verbose = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1", "AIOHTTP_NO_EXTENSIONS": "1"}
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            loaded = command(
                archive.root, running, tmp_path / "kept", f"--payload-signing={mode}", keys=keys
            )
            run = loaded.run(env=verbose)
            assert run.exit_code == (0 if good else 1)
        shown = run.ended.stdout + run.ended.stderr
        assert "canary" not in shown
        assert keys.access_key not in shown
        assert "Signature=" not in shown
        for secret in (b"canary", keys.access_key.encode(), b"Signature="):
            assert secret not in loaded.kept_bytes()

    def test_nor_does_the_shown_configuration(self) -> None:
        with start_ingester(
            "config", "--url=https://pacs.example", "--auth=sigv4", "--region=eu-west-1", "--json",
            env=environment_of(TEMPORARY),
        ) as process:  # fmt: skip
            shown = process.wait()
        assert shown.returncode in {0, 2}
        assert "canary" not in shown.stdout + shown.stderr


class TestALogAtItsLowestLevel:
    @pytest.fixture
    def log(self) -> Iterator[StringIO]:
        """Everything that any library says."""
        text = StringIO()
        handler = logging.StreamHandler(text)
        root = logging.getLogger()
        level, botocore = root.level, logging.getLogger("botocore")
        propagate = botocore.propagate
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        yield text
        root.removeHandler(handler)
        root.setLevel(level)
        botocore.propagate = propagate

    async def test_has_no_credential(
        self, archive: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: StringIO
    ) -> None:
        for name, value in environment_of(TEMPORARY).items():
            monkeypatch.setenv(name, value)
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            config = load_config(
                {
                    "url": running.url, "server": "healthimaging", "auth": "sigv4",
                    "region": running.emulator.region, "ca_bundle": running.ca,
                    "journal": str(tmp_path / "journal.db"),
                },
                {},
            )  # fmt: skip
            summary = await ingest(config, [Source(os.fsencode(archive.root))])
        assert summary.exit_code == 0
        assert "canary" not in log.getvalue()
        assert TEMPORARY.access_key not in log.getvalue()
        assert "canary" not in repr(config) + repr(summary)


class TestAServerThatSaysBackWhatItWasTold:
    @pytest.mark.parametrize("status", [400, 403, 500])
    def test_is_not_quoted_off_a_terminal(
        self, status: int, archive: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        server.default = echo(status)
        loaded = Command(archive.root, server.url, directory, (), environment_of(TEMPORARY))
        run = loaded.run("--max-attempts=2")
        assert run.exit_code == 1
        shown = run.ended.stdout + run.ended.stderr
        assert "canary" not in shown
        assert "Signature=" not in shown


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a test, as botocore gives them."""

    access_key: str = TEMPORARY.access_key
    secret_key: str = TEMPORARY.secret_key
    token: str | None = TEMPORARY.session_token

    def get_frozen_credentials(self) -> Keys:
        """These."""
        return self


def _quoting() -> Keys:
    raise RuntimeError(f"the process printed {TEMPORARY.secret_key}")


def _unprintable() -> Keys:
    return Keys(secret_key="secret canary\r\nX: y")


class TestTheTextsOfErrors:
    @pytest.mark.parametrize("source", [_quoting, _unprintable])
    async def test_of_a_source_quote_no_key(self, source: Callable[[], Keys]) -> None:
        with pytest.raises(IngesterError) as refusal:
            await CredentialSource(resolve=source).start()
        error = refusal.value
        assert isinstance(error, FatalError)
        assert "canary" not in f"{error} {error!r} {error.hint} {error.words} {error.__cause__!r}"

    async def test_of_a_run_that_was_stopped_quote_no_key(
        self, archive: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        server.default = Answer(403)
        config = load_config(
            {
                "url": server.url, "server": "healthimaging", "auth": "sigv4",
                "region": "eu-west-1", "journal": str(directory / "journal.db"),
                "backoff_base_s": 0.01,
            },
            {},
        )  # fmt: skip
        stop = StopControl()
        sources = [Source(os.fsencode(archive.root))]
        summary = await ingest(config, sources, stop=stop, resolve=Keys)
        assert summary.exit_code == 1
        assert isinstance(stop.cause, FatalError)
        assert "canary" not in f"{stop.cause} {stop.cause!r} {stop.cause.hint} {stop.cause.words}"

"""Credentials from botocore's chain: environment, files and real processes."""

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ingester.auth.credentials import CredentialSource
from ingester.auth.refreshing import NoCredentials
from ingester.auth.sigv4 import Credentials
from ingester.errors import UsageError
from tests.unit.signing.conftest import Process
from tests.unit.signing.made import until

_ROTATED = "[default]\naws_access_key_id = C\naws_secret_access_key = c\n"


def revealed(keys: Credentials) -> tuple[str, str, str | None]:
    return (
        keys.access_key,
        keys.secret_key.reveal(),
        None if keys.token is None else keys.token.reveal(),
    )


def ends_at(keys: Credentials) -> float:
    assert keys.token is not None
    return float(keys.token.reveal().partition("@")[2])


class TestTheEnvironment:
    async def test_gives_keys_and_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
        async with CredentialSource() as source:
            assert revealed(source.snapshot()) == ("AKID", "secret", "token")

    async def test_keys_that_were_refused_are_read_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        async with CredentialSource(refusal_interval_s=0) as source:
            first = source.snapshot()
            assert await source.refresh_now(first, 60) is None
            assert source.snapshot() is first
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "new")
            second = await source.refresh_now(first, 60)
            assert second is source.snapshot()
            assert second is not None
            assert second is not first
            assert revealed(second) == ("AKID", "new", None)

    async def test_half_a_pair_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        with pytest.raises(NoCredentials) as refusal:
            await CredentialSource().start()
        assert refusal.value.hint == "a key is set without the other"

    @pytest.mark.parametrize("key", ["two\nlines", "sp ace", "ä"])
    async def test_keys_that_no_header_carries_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(NoCredentials, match="header"):
            await CredentialSource().start()

    async def test_without_anything_there_is_nothing(self) -> None:
        source = CredentialSource()
        with pytest.raises(NoCredentials, match="no AWS credentials yet"):
            source.snapshot()
        with pytest.raises(NoCredentials, match="no AWS credentials were found"):
            await source.start()


class _Container(BaseHTTPRequestHandler):
    """What a container asks for its role's credentials."""

    def do_GET(self) -> None:
        self.server.calls += 1  # type: ignore[attr-defined]  # set where it is started
        end = datetime.now(UTC) + timedelta(seconds=4)
        keys = {
            "AccessKeyId": f"KEY{self.server.calls}",  # type: ignore[attr-defined]  # the same
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(keys).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


async def test_a_containers_role_is_renewed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _Container) as server:
        server.calls = 0  # type: ignore[attr-defined]  # counted by the handler
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/"
        )
        async with CredentialSource() as source:
            first = source.snapshot()
            await until(lambda: source.snapshot() is not first)
            assert revealed(source.snapshot())[1:] == ("secret", "token")
        server.shutdown()


class TestAProfile:
    @pytest.fixture(autouse=True)
    def files(self, no_aws: None, tmp_path: Path) -> Path:
        del no_aws
        path = tmp_path / "aws" / "credentials"
        path.write_text(
            "[default]\naws_access_key_id = A\naws_secret_access_key = a\n"
            "[archive]\naws_access_key_id = B\naws_secret_access_key = b\n"
        )
        return path

    async def test_is_the_default_one(self) -> None:
        async with CredentialSource() as source:
            assert revealed(source.snapshot()) == ("A", "a", None)

    async def test_is_the_one_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "archive")
        async with CredentialSource() as source:
            assert revealed(source.snapshot()) == ("B", "b", None)

    async def test_that_is_named_wins_over_keys_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        async with CredentialSource("archive") as source:
            assert revealed(source.snapshot()) == ("B", "b", None)

    async def test_that_does_not_exist_is_wrong_use(self) -> None:
        with pytest.raises(UsageError, match="profile does not exist"):
            await CredentialSource("nobody").start()

    async def test_that_wants_a_code_typed_says_so_and_asks_nobody(
        self, files: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A night has nobody who types it, and its keys end after hours."""
        _add_role(files, "archive-role", "archive", _WANTS_A_CODE)
        with pytest.raises(NoCredentials, match="wants an MFA code") as refusal:
            await CredentialSource("archive-role").start()
        assert "aws sts get-session-token" in refusal.value.hint
        assert capfd.readouterr() == ("", "")

    async def test_that_another_is_made_from_asks_nobody_either(self, files: Path) -> None:
        _add_role(files, "archive-role", "archive", _WANTS_A_CODE)
        _add_role(files, "outer", "archive-role")
        with pytest.raises(NoCredentials, match="wants an MFA code"):
            await CredentialSource("outer").start()

    async def test_is_read_again_after_a_refusal(self, files: Path) -> None:
        async with CredentialSource() as source:
            files.write_text(_ROTATED)  # noqa: ASYNC240 - a few bytes
            assert revealed(source.snapshot()) == ("A", "a", None)
            other = await source.refresh_now(source.snapshot(), 60)
            assert other is not None
            assert revealed(other) == ("C", "c", None)


_WANTS_A_CODE = "mfa_serial = arn:aws:iam::123456789012:mfa/operator\n"


def _add_role(files: Path, name: str, source: str, more: str = "") -> None:
    role = f"role_arn = arn:aws:iam::123456789012:role/{name}\nsource_profile = {source}\n"
    with files.open("a") as profiles:
        profiles.write(f"[{name}]\n{role}{more}")


class TestAProcess:
    async def test_without_an_end_is_asked_once(self, process: Process) -> None:
        process.does("give(CALL)")
        async with CredentialSource() as source:
            first = source.snapshot()
            assert revealed(first) == ("KEY1", "secret-canary-1", None)
            await asyncio.sleep(0.3)
            assert (process.calls, source.snapshot()) == (1, first)

    async def test_that_rotates_is_asked_in_time_and_the_loop_never_waits(
        self, process: Process
    ) -> None:
        """It gives new keys only when the loop has turned meanwhile."""
        process.does("note()\nCALL < 3 or wait_for('turned')\ngive(CALL, life_s=8)")
        async with CredentialSource() as source:
            first = source.snapshot()
            asked = len(process.notes())
            await until(lambda: len(process.notes()) > asked)
            assert source.snapshot() is first
            process.tell("turned")
            await until(lambda: source.snapshot() is not first)
        assert process.notes()[asked] < ends_at(first)

    async def test_that_gives_the_same_keys_until_they_end_gives_the_same_snapshot(
        self, process: Process
    ) -> None:
        process.does("give(1, end=4102444800)")
        async with CredentialSource(refusal_interval_s=0) as source:
            first = source.snapshot()
            assert await source.refresh_now(first, 60) is None
            assert source.snapshot() is first

    async def test_that_hangs_stops_nobody_who_has_keys(self, process: Process) -> None:
        process.does("give(CALL, life_s=30) if CALL < 3 else hang()")
        async with CredentialSource() as source:
            first = source.snapshot()
            before = time.monotonic()
            refreshing = [asyncio.create_task(source.refresh_now(first, 0.5)) for _ in range(20)]
            while not all(task.done() for task in refreshing):
                assert source.snapshot() is first
                await asyncio.sleep(0.005)
            assert [task.result() for task in refreshing] == [None] * 20
            assert time.monotonic() - before < 60
            await until(lambda: process.calls == 3)

    async def test_that_hung_is_left_behind_and_asked_anew(self, process: Process) -> None:
        process.does("hang() if CALL == 3 else give(CALL, life_s=4)")
        async with CredentialSource() as source:
            first = source.snapshot()
            source._hang_timeout_s = 0.8
            assert first.access_key == "KEY2"
            await until(lambda: source.snapshot() is not first)
            other = source.snapshot()
        assert int(other.access_key.removeprefix("KEY")) > 3

    async def test_that_hangs_from_the_start_is_given_up(self, process: Process) -> None:
        process.does("hang()")
        before = time.monotonic()
        with pytest.raises(NoCredentials, match=r"none for 0\.3 s"):
            await CredentialSource(start_timeout_s=0.3).start()
        assert time.monotonic() - before < 60

    async def test_that_fails_later_leaves_the_keys_that_are_there(self, process: Process) -> None:
        process.does("give(CALL, life_s=30) if CALL < 3 else sys.exit(1)")
        async with CredentialSource() as source:
            first = source.snapshot()
            assert await source.refresh_now(first, 60) is None
            assert source.snapshot() is first
            assert source.failure is not None
            assert source.failure.hint == "run the command of credential_process by hand"

    async def test_that_recovers_is_asked_again_by_itself(self, process: Process) -> None:
        process.does("give(CALL, life_s=4) if CALL != 3 else sys.exit(1)")
        async with CredentialSource() as source:
            first = source.snapshot()
            await until(lambda: source.snapshot() is not first)
            assert int(source.snapshot().access_key.removeprefix("KEY")) > 3
            assert source.failure is None

    @pytest.mark.parametrize(
        "does",
        [
            "sys.exit('secret-canary')",
            "print('secret-canary')",
            'print(\'{"Version": 2, "SecretAccessKey": "secret-canary"}\')',
            'print(\'{"Version": 1, "SecretAccessKey": "secret-canary"}\')',
            "give(1, life_s=-5)",
        ],
    )
    async def test_that_fails_says_so_in_one_line_of_ours(
        self, process: Process, does: str
    ) -> None:
        process.does(does)
        with pytest.raises(NoCredentials) as refusal:
            await CredentialSource().start()
        assert str(refusal.value).startswith("the source of the AWS credentials failed: ")
        assert "\n" not in str(refusal.value)
        assert "canary" not in repr(refusal.value) + refusal.value.hint + refusal.value.words
        assert refusal.value.__cause__ is None

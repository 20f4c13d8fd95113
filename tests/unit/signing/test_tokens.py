"""Bearer tokens: what a file or a command has, when it ends, and when it is asked for again."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingester.auth import Secret
from ingester.auth.commands import Command, CommandFailed
from ingester.auth.fetching import Fetched, FetchFailed
from ingester.auth.refreshing import NoCredentials, Refreshing
from ingester.auth.tokens import (
    LIMIT_BYTES,
    GivenToken,
    TokenCommand,
    TokenFile,
    read_token,
    token_source,
    token_wait_s,
)
from tests.support.process import is_alive
from tests.support.waiting import wait_until
from tests.unit.signing.made import until


def jwt(claims: object, *, padded: bool = False) -> str:
    """A token whose signature nobody looks at."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in ({}, claims)]
    parts = parts if padded else [part.rstrip("=") for part in parts]
    return ".".join((*parts, "c2ln"))


def read(text: str | bytes) -> tuple[str, datetime | None]:
    found = read_token(text.encode() if isinstance(text, str) else text, "the token")
    assert isinstance(found, Fetched), found
    return found.value.reveal(), found.expires


END = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH = int(END.timestamp())


class TestWhatATokenIs:
    @pytest.mark.parametrize(
        ("text", "token", "expires"),
        [
            ("ya29.a0Af_H6-SM+/~==", "ya29.a0Af_H6-SM+/~==", None),
            ("\n token \r\n", "token", None),
            (jwt({"exp": EPOCH}), None, END),
            (jwt({"exp": EPOCH}, padded=True), None, END),
            (jwt({"exp": EPOCH + 0.25}), None, END + timedelta(seconds=0.25)),
            (jwt({"sub": "x"}), None, None),
            (jwt({"exp": "soon"}), None, None),
            (jwt({"exp": 1e300}), None, None),
            (jwt([]), None, None),
            ("a.b.c", None, None),
            ("a." + "A" * 5 + ".c", None, None),
            (f"a.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.c", None, None),
            ('{"access_token": "t"}', "t", None),
            (f'{{"accessToken": "t", "expires_on": {EPOCH}, "expiresOn": "local"}}', "t", END),
            (f'{{"access_token": "t", "expires_on": "{EPOCH}"}}', "t", END),
            (f'{{"access_token": "{jwt({"exp": 1})}", "expires_on": {EPOCH}}}', None, END),
            (f'{{"access_token": "{jwt({"exp": EPOCH})}"}}', None, END),
            ('{"access_token": "t", "expires_on": "x", "expires_in": "inf"}', "t", None),
            ('{"access_token": "t", "expires_in": 1e300}', "t", None),
        ],
    )
    def test_and_when_it_ends(self, text: str, token: str | None, expires: datetime | None) -> None:
        found, ends = read(text)
        assert ends == expires
        assert found.startswith("Bearer ")
        if token is not None:
            assert found == f"Bearer {token}"

    @pytest.mark.parametrize("life", [3600, "3600"])
    def test_and_how_long_it_lives(self, life: object) -> None:
        before = datetime.now(UTC)
        _, ends = read(json.dumps({"access_token": "t", "expires_in": life}))
        assert ends is not None
        hour = timedelta(hours=1)
        assert before + hour <= ends <= datetime.now(UTC) + hour

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b" \n",
            b"two words",
            b"two\nlines",
            b"t\x00",
            "tökén".encode(),
            b"\xff\xfe",
            b"{",
            b"{}",
            b'{"access_token": null}',
            b'{"access_token": ["canary"]}',
            b'{"access_token": "canary canary"}',
            b'{"access_token": "t", "expires_in": []}',
            b'{"a":' * 20_000,
            b"canary" * LIMIT_BYTES,
        ],
        ids=range(15),
    )
    def test_and_what_is_none_is_not_quoted(self, text: bytes) -> None:
        found = read_token(text, "the token")
        assert isinstance(found, FetchFailed)
        assert found.text.startswith("the token is n")
        assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("remaining_s", "failures", "expected_s"),
    [
        (3600, 0, 3300),
        (600, 0, 300),
        (300, 0, 150),
        (3, 0, 1.5),
        (0.5, 0, 1),
        (0, 0, 86400),
        (-1200, 0, 86400),
        (1e12, 0, 86400),
        (None, 0, None),
        (3600, 1, 1),
        (-5, 3, 4),
        (3600, 99, 60),
        (None, 3, None),
    ],
)
def test_it_is_asked_for_again_five_minutes_before_it_ends(
    remaining_s: float | None, failures: int, expected_s: float | None
) -> None:
    assert token_wait_s(remaining_s, failures) == expected_s


class TestAGivenToken:
    async def test_stays_what_it_is(self) -> None:
        async with token_source(Secret(f"Bearer {jwt({'exp': EPOCH})}"), None, None) as source:
            given = source.snapshot()
            assert await source.refresh_now(given, 5) is None
            assert source.origin == "the bearer token of INGESTER_TOKEN"
            assert not source.expired(END - timedelta(seconds=1))
            assert source.expired(END)

    def test_is_shown_by_no_repr(self) -> None:
        found = GivenToken(Secret("Bearer canary"))(anew=True)
        assert found.value.reveal() == "Bearer canary"
        assert "canary" not in repr(found)


def put(path: Path, text: str) -> None:
    path.write_text(text)


class TestAFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "token"

    async def test_is_read_again_when_the_server_refuses(self, path: Path) -> None:
        put(path, "first\n")
        async with token_source(None, str(path), None) as source:
            first = source.snapshot()
            assert first.reveal() == "Bearer first"
            put(path, "second")
            second = await source.refresh_now(first, 5)
            assert second is not None
            assert second.reveal() == "Bearer second"

    async def test_is_read_again_by_itself(self, path: Path) -> None:
        put(path, "first")
        source = Refreshing(TokenFile(str(path)), what="token", wait_s=lambda _s, _n: 0.01)
        async with source:
            put(path, "second")
            await until(lambda: source.snapshot().reveal() == "Bearer second")

    async def test_that_is_half_written_leaves_the_token_that_is_there(self, path: Path) -> None:
        put(path, "first")
        async with token_source(None, str(path), None) as source:
            first = source.snapshot()
            put(path, "")
            assert await source.refresh_now(first, 5) is None
            assert source.snapshot() is first

    async def test_that_is_missing_is_said_to_be(self, path: Path) -> None:
        with pytest.raises(NoCredentials, match=r"cannot be read \(No such file or directory\)"):
            await token_source(None, str(path), None).start()


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


class TestACommand:
    async def test_is_asked_again_in_time(self, tmp_path: Path) -> None:
        calls = tmp_path / "calls"
        code = (
            f"f = open({str(calls)!r}, 'a'); f.write('x'); n = f.tell()\n"
            'print(f\'{{"access_token": "T{n}", "expires_in": 2}}\')'
        )
        async with token_source(None, None, python(code)) as source:
            assert source.snapshot().reveal() == "Bearer T1"
            await until(lambda: source.snapshot().reveal() == "Bearer T2")
            assert source.origin == "the bearer token that --token-command prints"

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (python("print('canary'); raise SystemExit('canary')"), r"failed \(exit code 1\)"),
            (["/nowhere/at-all"], r"cannot be started \(No such file or directory\)"),
            ([""], "cannot be started"),
            (["a\0b"], "cannot be started"),
            (python("pass"), "not a token that a header can carry"),
            (python("print('canary canary')"), "not a token that a header can carry"),
        ],
        ids=range(6),
    )
    async def test_that_fails_says_so_in_one_line_of_ours(
        self, arguments: list[str], problem: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(NoCredentials, match=problem) as refusal:
            await token_source(None, None, arguments).start()
        assert "\n" not in str(refusal.value)
        assert "canary" not in repr(refusal.value) + "".join(capfd.readouterr())

    def test_has_no_terminal_no_input_and_no_shell(self) -> None:
        code = "import os, sys; print(sys.stdin.read() + sys.argv[1], os.getsid(0) == os.getpid())"
        printed = Command([*python(code), "$HOME;`id`"], 1000).run()
        assert printed == b"$HOME;`id` True\n"

    def test_that_floods_costs_no_memory(self) -> None:
        code = "import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))"
        assert Command(python(code), 1000).run() == b"x" * 1001

    def test_that_leaves_a_child_with_its_output_is_not_waited_for(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time\n"
            "print('token', flush=True)\n"
            f"if os.fork() == 0: open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(300)\n"
        )
        try:
            assert Command(python(code), 1000, timeout_s=60).run() == b"token\n"
        finally:
            pid = tmp_path / "pid"
            wait_until(lambda: pid.exists() and pid.read_text())
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    def test_that_hangs_is_killed_with_its_children(self, tmp_path: Path) -> None:
        pids = tmp_path / "pids"
        code = (
            "import os, time\n"
            "os.fork()\n"
            f"os.write(os.open({str(pids)!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY), f'{{os.getpid()}}\\n'.encode())\n"
            "time.sleep(300)\n"
        )
        with pytest.raises(CommandFailed, match="does not answer within 2 s"):
            Command(python(code), 1000, timeout_s=2).run()
        numbers = [int(line) for line in pids.read_text().split()]
        assert len(numbers) == 2
        wait_until(lambda: not any(map(is_alive, numbers)))

    async def test_that_hangs_ends_with_the_run(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        code = (
            "import os, sys, time\n"
            f"if os.path.exists({str(pid)!r}): time.sleep(300)\n"
            f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
            "print('token')"
        )
        source = token_source(None, None, python(code))
        async with source:
            first = source.snapshot()
            assert await source.refresh_now(first, 0.2) is None
            running = source._fetch
            assert isinstance(running, TokenCommand)
            await until(lambda: running._command._running is not None)
            process = running._command._running
            assert process is not None
        await until(lambda: not is_alive(process.pid))

"""What is wrong with signatures ends or heals, and never costs a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingester.emulator import Credentials, PayloadMode
from tests.healthimaging.emulated import (
    KEYS,
    REGION,
    TEMPORARY,
    ActingClock,
    Command,
    assert_same_bytes,
    command,
    emulator,
    environment_of,
)
from tests.support.command import Run, read_run
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.exchange import Exchange
from tests.support.logs import lines_of, until_logged
from tests.support.scripted import ScriptedServer

IN_MID_RUN = 30
"""Questions for the time: after 10 of 40 requests or more, and before the last."""


def assert_all_pending(run: Run, archive: Corpus) -> None:
    """The run says what to check, and nothing was given up."""
    assert (run.exit_code, run.outcomes) == (1, {"pending": len(archive)})
    assert "hint:" in run.ended.stderr
    assert "canary" not in run.ended.stdout + run.ended.stderr


class TestAPayloadModeThatTheStoreRefuses:
    @pytest.mark.parametrize(
        ("takes", "sent"),
        [
            ("sha256", "literal"),
            ("sha256", "unsigned"),
            ("literal", "aws-chunked"),
            ("unsigned", "sha256"),
        ],
    )
    def test_stops_the_run_and_the_right_one_goes_on(
        self, takes: str, sent: str, archive: Corpus, tmp_path: Path
    ) -> None:
        with emulator(tmp_path / "store", payload_modes=frozenset({PayloadMode(takes)})) as running:
            loaded = command(archive.root, running, tmp_path / "kept")
            assert_all_pending(loaded.run(f"--payload-signing={sent}"), archive)
            run = loaded.run(f"--payload-signing={takes}")
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert_same_bytes(running, loaded)

    def test_rejects_nothing_in_a_journal_that_was_right_before(
        self, copied: Path, archive: Corpus, tmp_path: Path
    ) -> None:
        """The second day's load has the wrong mode: nothing new is stored, nothing given up."""
        store = tmp_path / "store"
        with emulator(store) as running:
            loaded = command(copied, running, tmp_path / "kept")
            assert loaded.run().exit_code == 0
        new = write_corpus(copied / "new", 8, 2, seed=9)
        modes = frozenset({PayloadMode.SHA256})
        with emulator(store, payload_modes=modes) as running:
            again = replace(loaded, url=running.url, environment={
                **loaded.environment, "AWS_CA_BUNDLE": running.ca,
            })  # fmt: skip
            run = again.run("--rebind")
            assert run.exit_code == 1
            assert run.outcomes == {"stored": len(archive), "pending": len(new)}
            run = again.run("--payload-signing=sha256", "--rebind")
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive) + len(new)})


class TestSignaturesOfSomebodyElse:
    @pytest.mark.parametrize(
        ("flag", "keys"),
        [
            ("--region=us-east-1", KEYS),
            ("--signing-service=s3", KEYS),
            (f"--region={REGION}", replace(KEYS, secret_key="other-secret-canary")),
            (f"--region={REGION}", replace(KEYS, access_key="AKIAUNKNOWN")),
            (f"--region={REGION}", replace(KEYS, session_token="token-canary-none-asked")),
        ],
        ids=["region", "service", "secret", "key", "token"],
    )
    def test_stop_the_run_and_leave_everything_pending(
        self, flag: str, keys: Credentials, archive: Corpus, tmp_path: Path
    ) -> None:
        with emulator(tmp_path / "store") as running:
            signed = ("--server=healthimaging", "--auth=sigv4", f"--region={REGION}")
            server = (*signed[:2], flag) if "region" in flag else (*signed, flag)
            wrong = replace(
                command(archive.root, running, tmp_path / "kept", keys=keys), server=server
            )
            assert_all_pending(wrong.run(), archive)
            assert b"canary" not in wrong.kept_bytes()
            right = command(archive.root, running, tmp_path / "kept").run()
            assert (right.exit_code, right.outcomes) == (0, {"stored": len(archive)})


class TestATokenThatExpires:
    """Of keys without an expiration date, so that only the server tells."""

    @pytest.fixture
    def many(self, tmp_path: Path) -> Corpus:
        """Forty requests, some of them a file alone."""
        return write_corpus(tmp_path / "many", 20, 2, 20_000, seed=3)

    def test_is_renewed_where_the_source_has_another(self, many: Corpus, tmp_path: Path) -> None:
        later = replace(TEMPORARY, session_token="token-canary-2")
        process = Source(tmp_path / "aws")
        process.gives(TEMPORARY)

        def expire() -> None:
            process.gives(later)
            running.emulator.replace_credentials(later)

        clock = ActingClock(IN_MID_RUN, expire)
        with emulator(tmp_path / "store", credentials=TEMPORARY, clock=clock) as running:
            loaded = command(
                many.root, running, tmp_path / "kept", "--max-batch-instances=1",
                "--max-concurrency=2", keys=None,
            )  # fmt: skip
            run = loaded.run(env=process.environment)
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(many)})
            assert 1 <= run.summary["retries"] <= 2
            assert_same_bytes(running, loaded)

    @pytest.mark.parametrize("of_a_process", [False, True])
    def test_stops_the_run_where_it_has_none(
        self, many: Corpus, tmp_path: Path, *, of_a_process: bool
    ) -> None:
        later = replace(TEMPORARY, session_token="token-canary-2")
        process = Source(tmp_path / "aws")
        process.gives(TEMPORARY)
        env = process.environment if of_a_process else environment_of(TEMPORARY)
        origin = "that credential_process prints" if of_a_process else "in the environment"
        clock = ActingClock(IN_MID_RUN, lambda: running.emulator.replace_credentials(later))
        with emulator(tmp_path / "store", credentials=TEMPORARY, clock=clock) as running:
            loaded = command(
                many.root, running, tmp_path / "kept", "--max-batch-instances=1",
                "--max-concurrency=4", "--auth-patience-s=1", keys=None,
            )  # fmt: skip
            run = loaded.run(env=env)
            assert run.exit_code == 1
            assert run.outcomes.keys() == {"stored", "pending"}
            assert f"the AWS session token {origin} has expired" in run.ended.stderr
            assert running.emulator.requests <= run.outcomes["stored"] + 4
            process.gives(later)
            run = loaded.run(env=process.environment)
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(many)})
            assert_same_bytes(running, loaded)

    def test_is_waited_for_where_a_file_gets_others(self, many: Corpus, tmp_path: Path) -> None:
        """Whoever logs in again writes the file; until then no request goes out."""
        later = replace(TEMPORARY, session_token="token-canary-2")
        file = tmp_path / "credentials"
        write_credentials(file, TEMPORARY)
        clock = ActingClock(IN_MID_RUN, lambda: running.emulator.replace_credentials(later))
        with emulator(tmp_path / "store", credentials=TEMPORARY, clock=clock) as running:
            loaded = command(
                many.root, running, tmp_path / "kept", "--max-batch-instances=1",
                "--max-concurrency=4", f"--log-file={tmp_path / 'log'}", keys=None,
            )  # fmt: skip
            with loaded.start(env={"AWS_SHARED_CREDENTIALS_FILE": str(file)}) as started:
                until_logged(tmp_path / "log", "pause")
                write_credentials(file, later)
                run = read_run(started.wait(60))
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(many)})
            assert 1 <= run.summary["retries"] <= 4
            assert running.emulator.requests <= len(many) + 4
            assert_same_bytes(running, loaded)
        events = [line["event"] for line in lines_of(tmp_path / "log")]
        assert events.count("pause") == events.count("pause_over") == 1

    def test_before_the_first_success_stops_at_once(self, many: Corpus, tmp_path: Path) -> None:
        later = replace(TEMPORARY, session_token="token-canary-2")
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            running.emulator.replace_credentials(later)
            loaded = command(
                many.root, running, tmp_path / "kept", "--auth-patience-s=600", keys=TEMPORARY
            )
            run = loaded.run()
            assert_all_pending(run, many)
            assert "the AWS session token in the environment has expired\n" in run.ended.stderr


def write_credentials(path: Path, credentials: Credentials) -> None:
    """The file that AWS's tools share, replaced at once."""
    new = path.with_suffix(".new")
    new.write_text(
        f"[default]\naws_access_key_id = {credentials.access_key}\n"
        f"aws_secret_access_key = {credentials.secret_key}\n"
        f"aws_session_token = {credentials.session_token}\n"
    )
    new.replace(path)


class Source:
    """A credential_process whose keys have no end."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._keys = folder / "keys.json"
        script = folder / "give.py"
        script.write_text(f"print(open({str(self._keys)!r}).read())\n")
        config = folder / "config"
        config.write_text(f"[default]\ncredential_process = '{sys.executable}' -I -S '{script}'\n")
        self.environment = {"AWS_CONFIG_FILE": str(config)}

    def gives(self, credentials: Credentials) -> None:
        """From now on."""
        new = self._keys.with_suffix(".new")
        new.write_text(
            json.dumps(
                {
                    "Version": 1,
                    "AccessKeyId": credentials.access_key,
                    "SecretAccessKey": credentials.secret_key,
                    "SessionToken": credentials.session_token,
                }
            )
        )
        new.replace(self._keys)


class RefuseWithout:
    """403 without a Date, after the whole body."""

    def play(self, exchange: Exchange) -> None:
        """Reads and refuses."""
        exchange.read_body()
        exchange.answer(403, {}, b'{"message": "Signature expired"}')


class TestAClockThatIsWrong:
    @pytest.mark.parametrize("minutes", [20, -20])
    @pytest.mark.parametrize("mode", ["literal", "aws-chunked"])
    def test_is_put_right_by_the_servers_date(
        self, minutes: int, mode: str, archive: Corpus, tmp_path: Path
    ) -> None:
        with emulator(tmp_path / "store", clock=_ahead(minutes * 60)) as running:
            loaded = command(archive.root, running, tmp_path / "kept")
            run = loaded.run(f"--payload-signing={mode}", "--max-concurrency=4")
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert 1 <= run.summary["retries"] <= 4

    def test_stops_the_run_where_the_server_gives_no_date(
        self, archive: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        server.default = RefuseWithout()
        loaded = Command(archive.root, server.url, directory, (), environment_of(KEYS))
        assert_all_pending(loaded.run(), archive)
        assert len(server.posts) <= 2 * 32


def _ahead(seconds: float) -> Callable[[], float]:
    return lambda: time.time() + seconds

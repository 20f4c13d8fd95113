"""A machine whose clock is 20 minutes wrong, seen by a whole process and everything in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.healthimaging.emulated import (
    KEYS,
    TEMPORARY,
    Command,
    assert_same_bytes,
    command,
    emulator,
    environment_of,
)
from tests.healthimaging.test_rotation import give_by
from tests.support.dicom_files import Corpus
from tests.support.faketime import environment_of_a_clock
from tests.support.logs import lines_of
from tests.support.process import start_python
from tests.support.scripted import Answer, ScriptedServer

_GIVE = """
import json, sys, time
from datetime import datetime, timezone
end = datetime.fromtimestamp(time.time() + 3600, timezone.utc).isoformat()
print(json.dumps({
    "Version": 1, "AccessKeyId": sys.argv[1], "SecretAccessKey": sys.argv[2],
    "SessionToken": sys.argv[3], "Expiration": end,
}))
"""


@pytest.fixture(params=["+20m", "-20m"])
def clock(request: pytest.FixtureRequest) -> dict[str, str]:
    """Of the process that loads, not of the server."""
    return environment_of_a_clock(request.param)


class TestAClockThatIs20MinutesWrong:
    def test_is_wrong_in_this_test(self, clock: dict[str, str]) -> None:
        code = "import time; print(time.time())"
        with start_python("-c", code, env=clock) as process:
            there = float(process.wait(60).stdout)
        off = timedelta(seconds=there - datetime.now(UTC).timestamp())
        assert timedelta(minutes=19) < abs(off) < timedelta(minutes=21)

    @pytest.mark.parametrize("mode", ["literal", "aws-chunked"])
    def test_is_put_right_by_the_servers_date(
        self, mode: str, clock: dict[str, str], archive: Corpus, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        with emulator(tmp_path / "store") as running:
            loaded = command(
                archive.root, running, tmp_path / "kept",
                f"--payload-signing={mode}", "--max-concurrency=4", f"--log-file={log}",
            )  # fmt: skip
            run = loaded.run(env=clock)
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert 1 <= run.summary["retries"] <= 4
            assert_same_bytes(running, loaded)
        (learned,) = [line for line in lines_of(log) if line["event"] == "clock_is_off"]
        seconds = learned["seconds"]
        assert isinstance(seconds, int)
        assert abs(abs(seconds) - 1200) < 60
        assert (seconds > 0) == clock["FAKETIME"].startswith("-")

    def test_is_put_right_with_keys_that_have_an_end_too(
        self, clock: dict[str, str], archive: Corpus, tmp_path: Path
    ) -> None:
        """The source's clock is right: by ours the keys end 20 minutes sooner or later."""
        keys = (TEMPORARY.access_key, TEMPORARY.secret_key, TEMPORARY.session_token)
        config = give_by(tmp_path / "aws", _GIVE, *keys)
        line = config.read_text().replace("= ", "= /usr/bin/env -u LD_PRELOAD ", 1)
        config.write_text(line)
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            loaded = command(archive.root, running, tmp_path / "kept", keys=None)
            run = loaded.run(env={**clock, "AWS_CONFIG_FILE": str(config)})
            assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
            assert_same_bytes(running, loaded)

    @pytest.mark.parametrize("date", [None, "yesterday", "wrong by itself"])
    def test_without_a_date_to_go_by_stops_the_run(
        self,
        date: str | None,
        clock: dict[str, str],
        archive: Corpus,
        server: ScriptedServer,
        directory: Path,
    ) -> None:
        if date == "wrong by itself":
            date = format_datetime(datetime.now(UTC) + timedelta(days=400), usegmt=True)
        headers = {} if date is None else {"Date": date}
        server.default = Answer(403, headers, b'{"message": "Signature expired"}')
        loaded = Command(archive.root, server.url, directory, (), environment_of(KEYS))
        run = loaded.run(env=clock)
        assert (run.exit_code, run.outcomes) == (1, {"pending": len(archive)})
        assert "this machine's clock" in run.ended.stderr
        assert len(server.posts) <= 3 * 32

"""``ingester config``: every value and where it came from, and never a credential."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from ingester.options import OPTIONS
from tests.support.process import run_ingester

URL = "http://127.0.0.1:9"
PASSWORD = "hunter2"
CREDENTIALS = {
    "INGESTER_USERNAME": "operator",
    "INGESTER_PASSWORD": PASSWORD,
    "INGESTER_TOKEN": "t0k3n",
}


class TestTheOrigin:
    def test_is_that_of_the_strongest(self, tmp_path: Path) -> None:
        toml = tmp_path / "c.toml"
        toml.write_text(
            f'[target]\nurl = "{URL}/"\nserver = "orthanc"\n'
            "[scan]\nreaders = 2\n[upload]\nmax_attempts = 2\n",
            encoding="utf-8",
        )
        completed = run_ingester(
            "config", "--json", "--config", toml, "--readers", "7",
            env={"INGESTER_READERS": "5", "INGESTER_MAX_ATTEMPTS": "3"},
        )  # fmt: skip
        assert completed.returncode == 0
        assert completed.stderr == ""
        options = json.loads(completed.stdout)["options"]
        assert [
            (key, options[key]["value"], options[key]["origin"])
            for key in (
                "scan.readers",
                "upload.max_attempts",
                "target.url",
                "upload.max_concurrency",
                "scan.checksums",
            )
        ] == [
            ("scan.readers", 7, "flag --readers"),
            ("upload.max_attempts", 3, "environment INGESTER_MAX_ATTEMPTS"),
            ("target.url", URL, f"{toml}:2: target.url"),
            ("upload.max_concurrency", 8, "default of server orthanc"),
            ("scan.checksums", "sha256", "default"),
        ]

    def test_stands_beside_each_value_for_people_too(self) -> None:
        completed = run_ingester("config", "--url", URL, env={"INGESTER_NAME": "night\nurl forged"})
        lines = completed.stdout.splitlines()
        assert [line.split()[0] for line in lines[:-1]] == [option.key for option in OPTIONS]
        assert lines[-1].split() == ["credentials", "none"]
        assert lines[0].split() == ["target.url", URL, "#", "flag", "--url"]
        assert r"night\x0aurl forged" in completed.stdout

    def test_is_there_for_every_option(self) -> None:
        completed = run_ingester("config", "--json", "--url", URL)
        options = json.loads(completed.stdout)["options"]
        assert list(options) == [option.key for option in OPTIONS]
        assert all(set(row) == {"value", "origin"} for row in options.values())


class TestCredentials:
    def test_are_never_shown(self) -> None:
        basic = b64encode(f"operator:{PASSWORD}".encode()).decode()
        for auth in ("none", "basic", "bearer"):
            for flags in ([], ["--json"]):
                completed = run_ingester(
                    "config", "--url", URL, "--auth", auth, *flags, env=CREDENTIALS
                )
                assert completed.returncode == 0
                for secret in (PASSWORD, "t0k3n", basic):
                    assert secret not in completed.stdout + completed.stderr

    @pytest.mark.parametrize(
        ("flags", "source"),
        [
            (("--auth=none",), None),
            (("--auth=basic",), "the environment"),
            (("--auth=bearer",), "the environment"),
            (("--auth=sigv4", "--region=us-east-1"), "the AWS credentials chain"),
        ],
    )
    def test_are_said_to_be_there(self, flags: tuple[str, ...], source: str | None) -> None:
        """The same for people and in JSON."""
        args = ("config", "--url", URL, *flags)
        people, program = (run_ingester(*args, *form, env=CREDENTIALS) for form in ([], ["--json"]))
        words = f"from {source}" if source else "none"
        assert people.stdout.splitlines()[-1].split(maxsplit=1) == ["credentials", words]
        said = json.loads(program.stdout)
        assert (said["credentials"], said["credentials_from"]) == (source is not None, source)

    @pytest.mark.parametrize("flag", ["--token-file", "--token-command"])
    def test_are_said_to_be_where_they_are_renewed(self, flag: str) -> None:
        args = ("config", "--url", URL, "--auth=bearer", flag, "cat")
        assert run_ingester(*args).stdout.splitlines()[-1].split() == ["credentials", "from", flag]
        said = json.loads(run_ingester(*args, "--json").stdout)
        assert (said["credentials"], said["credentials_from"]) == (True, flag)

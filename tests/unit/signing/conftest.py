"""An environment without AWS, and credential processes that are real scripts."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_PREAMBLE = """
import json, os, sys, time
from datetime import datetime, timezone
HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "calls"), "a") as calls:
    calls.write("x")
CALL = os.path.getsize(os.path.join(HERE, "calls"))

def give(number, life_s=None, end=None):
    keys = {"Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": f"secret-canary-{number}"}
    if life_s is not None:
        end = time.time() + life_s
    if end is not None:
        date = datetime.fromtimestamp(end, timezone.utc).isoformat()
        keys |= {"SessionToken": f"token-canary@{end}", "Expiration": date}
    print(json.dumps(keys))

def note():
    with open(os.path.join(HERE, "notes"), "a") as notes:
        notes.write(f"{time.time()}\\n")

def wait_for(name):
    while not os.path.exists(os.path.join(HERE, name)):
        time.sleep(0.02)

def hang():
    wait_for("let-go")
    sys.exit(1)

"""


class Process:
    """A credential_process of the default profile. Each call is counted, from 1, in CALL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "give keys.py"
        config = folder / "config"
        config.write_text(
            f"[default]\ncredential_process = '{sys.executable}' -I -S '{self.script}'\n"
        )

    def does(self, body: str) -> None:
        """What the script runs: give(number, life_s), hang(), or anything else."""
        new = self.script.with_suffix(".new")
        new.write_text(_PREAMBLE + body)
        new.replace(self.script)

    @property
    def calls(self) -> int:
        """How often it was started."""
        return (self.folder / "calls").stat().st_size

    def notes(self) -> list[float]:
        """When it made a note, by the clock of time.time()."""
        return [float(line) for line in (self.folder / "notes").read_text().split()]

    def tell(self, name: str) -> None:
        """End those that wait for it."""
        (self.folder / name).touch()

    def let_go(self) -> None:
        """End all that hang."""
        self.tell("let-go")


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of this machine's AWS configuration is met, and no instance is asked."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws" / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws" / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "aws").mkdir()
    log = logging.getLogger("botocore")
    propagate = log.propagate
    yield
    log.propagate = propagate


@pytest.fixture
def process(no_aws: None, tmp_path: Path) -> Iterator[Process]:
    """A credential_process; it does nothing until it is told what."""
    del no_aws
    made = Process(tmp_path / "aws")
    yield made
    made.let_go()

"""Whatever happens, at debug level: no credential, patient, path, UID or server's word gets out.

Canaries are planted wherever a run meets one of them; then everything that a run says, and its log,
is searched. Journal and results are the files that may have them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest

from ingester.emulator import Credentials
from tests.healthimaging.emulated import REGION, ActingClock, emulator, environment_of
from tests.healthimaging.proxying import Proxy
from tests.pipeline.certificate import make_certificate
from tests.support.dicom_files import write_corpus
from tests.support.logs import lines_of
from tests.support.process import Completed, start_ingester, start_python
from tests.support.scripted import Answer, Request, Reset, ScriptedServer, Step, StoreAll
from tests.support.steps import Choose, StoreThenDrop

CANARY = "CANARY"
KEYS = Credentials("AKIA0CANARY0KEY", "CANARY/secret+key", "CANARY-session-token==")
WORDS = b'{"message": "CANARY^PATIENT 1970 in /CANARY/file.dcm"}'
BUG = "a bug that was planted: CANARY"


@dataclass(frozen=True, slots=True)
class Planted:
    """An archive full of canaries, and where a run keeps its files."""

    archive: Path
    kept: Path
    uids: frozenset[str]

    @property
    def log(self) -> Path:
        return self.kept / "log"

    def arguments(self, url: str, *options: str) -> tuple[str, ...]:
        return (
            "run", str(self.archive), f"--url={url}", f"--journal={self.kept / 'journal.db'}",
            f"--results={self.kept / 'results.jsonl'}", f"--log-file={self.log}",
            "--log-level=debug", "--backoff-base-s=0.01", "--backoff-cap-s=0.05", "--readers=1",
            "--max-attempts=3", "--progress-interval-s=0.05", "--auth-patience-s=0.2", *options,
        )  # fmt: skip

    def run(self, url: str, *options: str, env: Mapping[str, str] | None = None) -> Completed:
        """Python's own levels are at their lowest, too."""
        verbose = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}
        with start_ingester(*self.arguments(url, *options), env={**verbose, **(env or {})}) as run:
            return run.wait(90)

    def assert_nothing_got_out(self, *done: Completed) -> None:
        """Neither as it is nor in the forms that it is sent in."""
        said = self.log.read_text("utf-8") + "".join(each.stdout + each.stderr for each in done)
        assert CANARY.lower() not in said.lower()
        for secret in (KEYS.access_key, KEYS.secret_key, str(KEYS.session_token)):
            assert b64encode(secret.encode()).decode()[:-4] not in said
        assert b64encode(b"CANARY-user:CANARY-password").decode() not in said
        assert "Signature=" not in said
        assert "Traceback" not in said
        assert not [uid for uid in self.uids if uid in said]
        assert lines_of(self.log)
        assert self.log.stat().st_mode & 0o777 == 0o600

    def events(self) -> set[object]:
        return {line["event"] for line in lines_of(self.log)}


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """Four studies of three files; two files that are none; names that would forge lines."""
    archive = tmp_path / "archive"
    made = write_corpus(archive / "CANARY^DIRECTORY", 4, 3, 2000, seed=7)
    uids: set[str] = set()
    for n, file in enumerate(sorted(made.files)):
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "CANARY^PATIENT"
        dataset.PatientID = "CANARY-4711"
        dataset.AccessionNumber = f"CANARY{n}"
        dataset.save_as(file)
        uids |= {dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID}
        file.rename(
            file.with_name(f'CANARY {n}\n{{"level":"info","event":"forged"}}\x1b[31m\r.dcm')
        )
    (archive / "CANARY.txt").write_text("CANARY")
    broken = next(iter((archive / "CANARY^DIRECTORY").rglob("*.dcm")))
    shutil.copy(broken, archive / "CANARY broken.dcm")
    os.truncate(archive / "CANARY broken.dcm", 300)
    (tmp_path / "kept").mkdir()
    return Planted(archive, tmp_path / "kept", frozenset(uids))


def echo(status: int) -> Step:
    """Says back what it was told, headers and all, as debugging proxies do."""

    def pick(request: Request) -> Step:
        said = repr(request.headers).encode() + WORDS + request.body[:2000]
        return Answer(status, {"x-amzn-RequestId": "CANARY PATIENT"}, said)

    return Choose(pick)


WAYS = {
    "none": ((), {}),
    "basic": (
        ("--auth=basic",),
        {"INGESTER_USERNAME": "CANARY-user", "INGESTER_PASSWORD": "CANARY-password"},
    ),
    "token": (("--auth=bearer",), {"INGESTER_TOKEN": "CANARY.token"}),
    "command": (
        (
            "--auth=bearer",
            "--token-command="
            + shlex.join(
                [
                    sys.executable,
                    "-c",
                    "import os, sys; print(os.environ['T']); sys.exit(sys.stderr.write('CANARY') and 0)",
                ]
            ),
        ),
        {"T": "CANARY.printed"},
    ),
    "sigv4": (
        ("--server=healthimaging", "--auth=sigv4", f"--region={REGION}"),
        environment_of(KEYS),
    ),
}
"""How to be let in, with canaries."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], dict[str, str]]:
    options, environment = WAYS[request.param]
    return options, environment


Way = tuple[tuple[str, ...], dict[str, str]]


class TestNothingGetsOut:
    def test_of_a_run_that_stores_and_rejects(
        self, way: Way, planted: Planted, server: ScriptedServer
    ) -> None:
        rejected = sorted(planted.uids)[::2]
        server.push(StoreAll(), echo(503), StoreThenDrop())
        server.default = StoreAll(
            failures=dict.fromkeys(rejected, 0xC000),
            headers={"x-amzn-RequestId": "CANARY^REQUEST"},
        )
        server.default_get = echo(400)
        done = planted.run(server.url, *way[0], env=way[1])
        assert done.returncode == 3
        planted.assert_nothing_got_out(done)
        assert {"start", "run", "request", "file", "end"} <= planted.events()
        journal_and_results = b"".join(
            path.read_bytes() for path in planted.kept.iterdir() if path != planted.log
        )
        assert b"CANARY" in journal_and_results, "where it may be it is"

    def test_not_even_into_the_journal_of_what_a_server_quotes_of_credentials(
        self, way: Way, planted: Planted, server: ScriptedServer
    ) -> None:
        refused = min(planted.uids).encode()
        said = echo(400)
        server.default = Choose(lambda post: said if refused in post.body else StoreAll())
        done = planted.run(server.url, "--max-batch-instances=1", *way[0], env=way[1])
        assert done.returncode == 3
        kept = b"".join(path.read_bytes() for path in planted.kept.iterdir())
        assert b"CANARY^PATIENT" in kept, "the server's words are kept"
        for secret in (
            b"CANARY.token", b"CANARY.printed", b"Signature=", str(KEYS.session_token).encode(),
            b64encode(b"CANARY-user:CANARY-password"),
        ):  # fmt: skip
            assert secret not in kept

    @pytest.mark.parametrize("written", [str, lambda said: said.replace("=", r"\u003d")])
    def test_not_even_of_what_a_proxy_is_told(
        self, written: Callable[[str], str], planted: Planted, server: ScriptedServer
    ) -> None:
        """Of plain HTTP it is a header of the request: whoever answers has seen it."""
        refused = min(planted.uids).encode()
        told = "Basic " + b64encode(b"CANARY-user:CANARY-password").decode()

        def pick(post: Request) -> Step:
            said = Answer(400, {}, written(repr(post.headers)).encode() + WORDS)
            return said if refused in post.body else StoreAll()

        server.default = Choose(pick)
        proxy = f"http://CANARY-user:CANARY-password@127.0.0.1:{server.port}"
        done = planted.run(
            "http://store.invalid", "--max-batch-instances=1", env={"HTTP_PROXY": proxy}
        )
        assert done.returncode == 3
        assert {post.headers["proxy-authorization"] for post in server.posts} == {told}
        planted.assert_nothing_got_out(done)
        kept = b"".join(path.read_bytes() for path in planted.kept.iterdir())
        assert b"CANARY^PATIENT" in kept, "the server's words are kept"
        assert told[6:30].encode() not in kept

    @pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 413, 500])
    def test_of_a_server_that_refuses_and_says_back_all(
        self, status: int, planted: Planted, server: ScriptedServer
    ) -> None:
        server.default = server.default_get = echo(status)
        options, environment = WAYS["sigv4"]
        done = planted.run(server.url, *options, env=environment)
        assert done.returncode in {1, 3}
        planted.assert_nothing_got_out(done)
        assert "request" in planted.events()

    def test_of_credentials_that_expire(self, planted: Planted, tmp_path: Path) -> None:
        later = replace(KEYS, session_token="CANARY-later")
        clock = ActingClock(7, lambda: running.emulator.replace_credentials(later))
        with emulator(tmp_path / "store", credentials=KEYS, clock=clock) as running:
            env = {**environment_of(KEYS), "AWS_CA_BUNDLE": running.ca}
            options = (*WAYS["sigv4"][0], "--max-batch-instances=1", "--max-concurrency=2")
            arguments = planted.arguments(running.url, *options)
            with start_ingester(*arguments, env=env) as process:
                done = process.wait(60)
        assert done.returncode == 1
        planted.assert_nothing_got_out(done)
        assert "pause" in planted.events()

    def test_of_a_proxy_with_a_password(self, planted: Planted, server: ScriptedServer) -> None:
        with Proxy(asks_for="CANARY-user:CANARY-password") as proxy:
            url = f"http://CANARY-user:CANARY-password@{proxy.address}"
            done = planted.run(server.url, env={"HTTP_PROXY": url})
            wrong = planted.run(
                server.url, "--retry=rejected,invalid",
                env={"HTTP_PROXY": url.replace("password", "other")},
            )  # fmt: skip
        assert done.returncode == 3
        planted.assert_nothing_got_out(done, wrong)

    def test_of_a_server_in_tls_that_is_another(self, planted: Planted, tmp_path: Path) -> None:
        made = make_certificate(tmp_path)
        options, environment = WAYS["token"]
        with ScriptedServer(tls=made.context) as server:
            done = planted.run(server.url, *options, env=environment)
        assert done.returncode == 1
        planted.assert_nothing_got_out(done)

    def test_of_a_server_that_is_not_there(self, planted: Planted, server: ScriptedServer) -> None:
        server.default = Reset()
        done = planted.run(server.url, *WAYS["command"][0], env=WAYS["command"][1])
        assert done.returncode in {1, 3}
        planted.assert_nothing_got_out(done)

    @pytest.mark.parametrize("code", ["sys.exit('CANARY')", "print('CANARY CANARY')"])
    def test_of_a_source_of_credentials_that_fails(
        self, code: str, planted: Planted, server: ScriptedServer
    ) -> None:
        command = shlex.join([sys.executable, "-c", f"import sys; {code}"])
        done = planted.run(server.url, "--auth=bearer", f"--token-command={command}")
        assert done.returncode == 1
        config = planted.kept / "config"
        config.write_text(f"[default]\ncredential_process = {command}\n")
        options = WAYS["sigv4"][0]
        again = planted.run(server.url, *options, env={"AWS_CONFIG_FILE": str(config)})
        assert again.returncode == 1
        planted.assert_nothing_got_out(done, again)


class TestACrash:
    def run_with(self, planted: Planted, code: str, url: str) -> Completed:
        """Runs the command after some code, in a process of its own."""
        code += "\nimport runpy; runpy.run_module('ingester', run_name='__main__', alter_sys=True)"
        options, environment = WAYS["token"]
        arguments = planted.arguments(url, *options)
        with start_python("-c", code, *arguments, env=environment) as process:
            return process.wait(60)

    @pytest.mark.parametrize(
        "where",
        [
            "ingester.attempts.manifest_of",
            "ingester.scan._header_of",
            "ingester.cli.live.progress_line",
        ],
    )
    def test_shows_frames_and_no_text(
        self, where: str, planted: Planted, server: ScriptedServer
    ) -> None:
        """The bug is planted: there is none to be had."""
        module, _, name = where.rpartition(".")
        code = (
            f"import {module} as module\n"
            f"module.{name}  # a name that is gone would plant nothing\n"
            f"def {name}(*_): raise RuntimeError({BUG!r})\n"
            f"module.{name} = {name}\n"
        )
        done = self.run_with(planted, code, server.url)
        assert done.returncode in {1, 3}
        planted.assert_nothing_got_out(done)
        if "scan" not in where:
            assert "RuntimeError" in done.stderr
            (bug,) = [line for line in lines_of(planted.log) if line["event"] == "bug"]
            assert "RuntimeError" in json.dumps(bug["frames"])

    @pytest.mark.parametrize("limit_bytes", [4096, 60_000, 120_000])
    def test_of_a_full_disk(
        self, limit_bytes: int, planted: Planted, server: ScriptedServer
    ) -> None:
        """RLIMIT_FSIZE: no file may be larger, neither journal nor log."""
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, "
            f"({limit_bytes}, resource.RLIM_INFINITY))"
        )
        done = self.run_with(planted, code, server.url)
        assert done.returncode in {1, 3}
        planted.assert_nothing_got_out(done)


class TestTheShownConfiguration:
    @pytest.mark.parametrize("name", set(WAYS) - {"command"})
    @pytest.mark.parametrize("as_json", [True, False])
    def test_has_no_credential(self, name: str, *, as_json: bool) -> None:
        options, environment = WAYS[name]
        environment = environment | {"HTTP_PROXY": "http://CANARY:CANARY@127.0.0.1:1"}
        flags = (*options, "--json") if as_json else options
        with start_ingester("config", "--url=http://127.0.0.1:9", *flags, env=environment) as run:
            done = run.wait(30)
        assert done.returncode == 0
        assert CANARY not in done.stdout + done.stderr


class TestANameThatWouldForgeALine:
    def test_forges_none(self, planted: Planted, server: ScriptedServer) -> None:
        done = planted.run(server.url)
        assert done.returncode == 3
        assert "forged" not in planted.events()
        assert "forged" not in done.stdout + done.stderr + planted.log.read_text()
        assert "\x1b" not in done.stdout + done.stderr + planted.log.read_text()
        results = (planted.kept / "results.jsonl").read_bytes()
        assert b"\x1b" not in results
        rows = [json.loads(line) for line in results.splitlines()]
        assert len(rows) == sum(len(files) for _, _, files in os.walk(planted.archive))
        assert all("outcome" in row for row in rows)

"""The three curl commands of AWS's 'Storing instances with STOW-RS', run against the emulator.

As they are there but for scheme, CA, host, data store, region, keys, and ``stat`` of GNU for that
of BSD; the files are made here, the second with the study UID that the second command names.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_files import write_corpus
from tests.support.orthanc import free_port
from tests.support.process import clean_environment
from tests.support.scripted import ScriptedServer
from tests.unit.emulator.wire import instance

STUDY = "1.3.6.1.4.1.5962.1.2.4.20040826285059.5457"

ONE_FILE = r"""
curl -X POST "$URL/datastore/$DATASTORE/studies" \
  --aws-sigv4 "aws:amz:$REGION:medical-imaging" \
  --user "$ACCESS_KEY:$SECRET_KEY" \
  --header "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD" \
  --header "x-amz-decoded-content-length: $(stat -c %s "$FILE")" \
  --header "Accept: application/dicom+json" \
  --header "x-amz-security-token: $SESSION_TOKEN" \
  --header "Content-Type: application/dicom" \
  --upload-file "$FILE" $MORE
"""
ONE_STUDY = ONE_FILE.replace('/studies"', f'/studies/{STUDY}"')
SEVERAL_FILES = r"""
BOUNDARY=$(cat /proc/sys/kernel/random/uuid)
printf -- "--$BOUNDARY\r\nContent-Type: application/dicom\r\n\r\n" > payload
cat "$FILE" >> payload
printf -- "\r\n--$BOUNDARY\r\nContent-Type: application/dicom\r\n\r\n" >> payload
cat "$OTHER" >> payload
printf -- "\r\n--$BOUNDARY--" >> payload
curl -X POST "$URL/datastore/$DATASTORE/studies" \
  --aws-sigv4 "aws:amz:$REGION:medical-imaging" \
  --user "$ACCESS_KEY:$SECRET_KEY" \
  --header "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD" \
  --header "x-amz-decoded-content-length: $(stat -c %s payload)" \
  --header "Accept: application/dicom+json" $TOKEN_HEADER \
  --header "Content-Type: multipart/related; type=\"application/dicom\"; boundary=\"$BOUNDARY\"" \
  --data-binary @payload $MORE
"""
BY_HASH = ONE_FILE.replace("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "$SHA256")


def has_sigv4() -> bool:
    try:
        told = subprocess.run(["curl", "--help", "all"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return "--aws-sigv4" in told.stdout


pytestmark = pytest.mark.skipif(not has_sigv4(), reason="no curl that knows --aws-sigv4")


@dataclass
class Emulate:
    """The command, running."""

    ready: dict[str, Any]
    directory: Path

    def run(self, script: str, **variables: str) -> tuple[int, Any]:
        """One of the scripts: the status and what was answered."""
        names = ("url", "datastore", "region", "access_key", "secret_key", "session_token")
        token = self.ready["session_token"]
        environment = {
            "PATH": os.environ["PATH"],
            **{name.upper(): self.ready[name] or "" for name in names},
            "TOKEN_HEADER": f"--header x-amz-security-token:{token}" if token else "",
            "MORE": "-sS -w \\n%{http_code}" + f" --cacert {self.ready['ca']}" * bool(self.ready["ca"]),
            **variables,
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    def file(self, data: bytes) -> str:
        path = self.directory / f"{hashlib.sha256(data).hexdigest()}.dcm"
        path.write_bytes(data)
        return str(path)


@contextmanager
def emulate(directory: Path, *arguments: str) -> Iterator[Emulate]:
    store = str(directory / "store")
    command = [sys.executable, "-m", "ingester", "emulate", "--store", store, "--port", "0"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Emulate(json.loads(process.stdout.readline()), directory)
        finally:
            process.terminate()
    assert process.returncode == 0


# Plain with long-term keys, where curl leaves the empty token out; TLS with temporary ones.
KINDS = {"http": [], "https": ["--tls", "--session-token", "FwoGZXIvYXdzEXAMPLE//token=="]}


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulate]:
    with emulate(tmp_path_factory.mktemp("emulate"), *KINDS[request.param]) as it:
        yield it


def stored(answer: Any) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer["00081199"]["Value"]]


class TestTheCommandsOfThePage:
    def test_first_one_file(self, server: Emulate) -> None:
        status, answer = server.run(ONE_FILE, FILE=server.file(instance("1.1", "1.1.1", "1.1.1.1")))
        assert (status, stored(answer)) == (200, ["1.1.1.1"])

    def test_second_one_study(self, server: Emulate) -> None:
        file = server.file(instance(STUDY, f"{STUDY}.1", "1.2.1.1"))
        status, answer = server.run(ONE_STUDY, FILE=file)
        assert (status, stored(answer)) == (200, ["1.2.1.1"])

    def test_third_several_files(self, server: Emulate) -> None:
        files = [server.file(instance("1.3", "1.3.1", f"1.3.1.{n}")) for n in (1, 2)]
        status, answer = server.run(SEVERAL_FILES, FILE=files[0], OTHER=files[1])
        assert (status, stored(answer)) == (200, ["1.3.1.1", "1.3.1.2"])


class TestWhatIsWrong:
    @pytest.mark.parametrize("script", [ONE_FILE, ONE_STUDY, SEVERAL_FILES])
    def test_a_wrong_secret_is_403(self, server: Emulate, script: str) -> None:
        file = server.file(instance("1.4", "1.4.1", "1.4.1.1"))
        status, answer = server.run(script, FILE=file, OTHER=file, SECRET_KEY="wrong")
        assert (status, list(answer)) == (403, ["message"])

    def test_a_file_of_another_study_is_409(self, server: Emulate) -> None:
        status, answer = server.run(
            ONE_STUDY, FILE=server.file(instance("1.5", "1.5.1", "1.5.1.1"))
        )
        assert status == 409
        assert answer["00081198"]["Value"][0]["00081155"]["Value"] == ["1.5.1.1"]

    def test_a_changed_body_is_400_by_its_hash(self, server: Emulate) -> None:
        data = instance("1.6", "1.6.1", "1.6.1.1")
        sha256 = hashlib.sha256(data).hexdigest()
        changed = server.file(data.replace(b"Nobody^Known", b"Nobody^Knows"))
        status, answer = server.run(BY_HASH, FILE=changed, SHA256=sha256)
        assert (status, list(answer)) == (400, ["message"])
        status, answer = server.run(BY_HASH, FILE=server.file(data), SHA256=sha256)
        assert (status, stored(answer)) == (200, ["1.6.1.1"])


class TestTheReadyLine:
    def test_has_what_a_client_needs(self, server: Emulate) -> None:
        names = ["url", "datastore", "region", "access_key", "secret_key", "session_token", "ca"]
        assert list(server.ready) == names
        is_tls = server.ready["url"].startswith("https://127.0.0.1:")
        assert (server.ready["ca"] is not None) == is_tls
        assert server.ready["region"] == "us-east-1"
        assert all(server.ready[name] for name in ("datastore", "access_key", "secret_key"))

    def test_has_the_keys_that_were_given(self, tmp_path: Path) -> None:
        keys = ["--access-key", "AKIDEXAMPLE", "--secret-key", "secret", "--region", "eu-west-2"]
        with emulate(tmp_path, *keys, "--payload-modes", "sha256", "--latency-ms", "1") as it:
            given = ("access_key", "secret_key", "session_token", "region", "ca")
            assert [it.ready[name] for name in given] == [
                "AKIDEXAMPLE",
                "secret",
                None,
                "eu-west-2",
                None,
            ]
            status, answer = it.run(ONE_FILE, FILE=it.file(instance()))
            assert (status, list(answer)) == (403, ["message"])  # the mode is not accepted

    def test_has_no_keys_where_nobody_is_asked(self, tmp_path: Path) -> None:
        with emulate(tmp_path, "--no-auth", "--max-rps", "0.001") as it:
            assert [it.ready[name] for name in ("access_key", "secret_key")] == [None, None]
            ask = 'curl "$URL/datastore/$DATASTORE/studies" $MORE'
            assert it.run(ask) == (200, [])
            assert it.run(ask) == (429, {"message": "Rate exceeded"})


class TestTheReadmesExample:
    def test_loads_an_archive_and_shows_it(self, tmp_path: Path) -> None:
        """As it stands there, but for the archive and the port."""
        corpus = write_corpus(tmp_path / "archive", 2, 3, 100)
        done = self.run(tmp_path, free_port())
        assert done.returncode == 0, done.stderr
        assert "6 files: stored 6" in done.stdout
        studies = json.loads(done.stdout.splitlines()[-1])
        assert {one["0020000D"]["Value"][0] for one in studies} == {file.study for file in corpus}

    def test_sends_nothing_to_whoever_has_the_port_where_the_emulator_cannot_start(
        self, tmp_path: Path
    ) -> None:
        write_corpus(tmp_path / "archive", 1, 1, 100)
        with ScriptedServer() as another:
            done = self.run(tmp_path, another.port)
            assert another.posts == []
        assert "the emulator cannot start (Address already in use)" in done.stderr
        assert done.returncode != 0

    def run(self, directory: Path, port: int) -> subprocess.CompletedProcess[str]:
        text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
        script = text.split("<!-- emulator -->\n```sh\n")[1].split("```")[0]
        script = script.replace("emulate ", f"emulate --port {port} ").replace(":8080", f":{port}")
        script = script.replace("/archive", str(directory / "archive"))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=clean_environment({"PATH": path, "INGESTER_BACKOFF_BASE_S": "0.01"}),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

"""What a person is told when a run stops: what, where, and what to do next. With the real command."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.pipeline.job import Job
from tests.support.process import Completed, Process, run_ingester, start_ingester
from tests.support.scripted import Answer, ScriptedServer, StoreAll, Wait
from tests.support.waiting import wait_until

GIVE_CREDENTIALS = (
    "say which with --auth: basic (INGESTER_USERNAME and INGESTER_PASSWORD), "
    "bearer (INGESTER_TOKEN) or sigv4 (AWS credentials)"
)
TOKEN = {"INGESTER_TOKEN": "token-canary"}


def start(job: Job, *options: str, env: dict[str, str] | None = None, url: str = "") -> Process:
    return start_ingester(
        "run", job.archive, f"--url={url or job.server.url}", f"--journal={job.journal}",
        "--backoff-base-s=0.01", "--backoff-cap-s=0.05", "--max-concurrency=1", *options, env=env,
    )  # fmt: skip


def load(job: Job, *options: str, env: dict[str, str] | None = None, url: str = "") -> Completed:
    with start(job, *options, env=env, url=url) as process:
        return process.wait()


def said(done: Completed) -> list[str]:
    """Lines beside the progress."""
    return [line for line in done.stderr.splitlines() if not line.startswith("progress ")]


class TestAServerThatAsksForCredentials:
    @pytest.mark.parametrize("status", [401, 403])
    def test_and_got_none_says_so(self, job: Job, server: ScriptedServer, status: int) -> None:
        job.write_studies(3)
        server.default = Answer(status)
        done = load(job)
        assert done.returncode == 1
        assert said(done) == [
            f"ingester: the server asks for credentials and none were sent (HTTP {status})",
            f"  hint: {GIVE_CREDENTIALS}",
        ]

    @pytest.mark.parametrize("status", [401, 403])
    def test_and_refuses_ours_says_that(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(3)
        server.default = Answer(status)
        done = load(job, "--auth=bearer", env=TOKEN)
        assert done.returncode == 1
        line, hint = said(done)
        assert line == f"ingester: the server refuses the credentials (HTTP {status})"
        assert hint.startswith("  hint: check --auth, the credentials ")


class TestTheErrorTypeOfAws:
    @pytest.mark.parametrize(
        ("headers", "body", "named"),
        [
            ({"x-amzn-ErrorType": "AccessDeniedException"}, {}, "AccessDeniedException"),
            ({"X-Amzn-Errortype": "A.B:http://internal.example/"}, {}, "A.B"),
            ({}, {"__type": "UnrecognizedClientException"}, "UnrecognizedClientException"),
            ({}, {"__type": "com.example#InvalidSignatureException"}, "InvalidSignatureException"),
            ({"x-amzn-ErrorType": "X" * 64}, {"__type": "Other"}, "X" * 64),
        ],
        ids=["header", "header with an address", "body", "body with a namespace", "long"],
    )
    def test_is_named_where_the_credentials_are_refused(
        self, job: Job, server: ScriptedServer, headers: dict[str, str], body: object, named: str
    ) -> None:
        job.write("a.dcm")
        server.default = Answer(403, headers, json.dumps(body).encode())
        done = load(job, "--auth=bearer", env=TOKEN)
        assert done.returncode == 1
        assert said(done)[0] == f"ingester: the server refuses the credentials (HTTP 403): {named}"

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({"x-amzn-ErrorType": "X" * 65}, b""),
            ({"x-amzn-ErrorType": "Doe^Jane"}, b""),
            ({"x-amzn-ErrorType": "1.2.840.113619.2.55.3"}, b""),
            ({}, b'{"__type": "Doe Jane"}'),
            ({}, b'{"__type": "A\\u001b[2J"}'),
            ({}, b'{"__type": 7}'),
            ({}, b'{"__type": "\xff"}'),
            ({}, b'["__type", "Other"]'),
            ({}, b"[" * 60_000),
        ],
    )
    def test_is_left_out_where_it_is_no_name(
        self, job: Job, server: ScriptedServer, headers: dict[str, str], body: bytes
    ) -> None:
        job.write("a.dcm")
        server.default = Answer(403, headers, body)
        done = load(job, "--auth=bearer", env=TOKEN)
        assert done.returncode == 1
        assert said(done)[0] == "ingester: the server refuses the credentials (HTTP 403)"

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (402, "the server refuses every request (HTTP 402): OptInRequired"),
            (404, "there is no STOW-RS service at this address (HTTP 404): OptInRequired"),
        ],
    )
    def test_is_named_where_requests_are_refused(
        self, job: Job, server: ScriptedServer, status: int, words: str
    ) -> None:
        job.write("a.dcm")
        server.default = Answer(status, {"x-amzn-ErrorType": "OptInRequired"})
        done = load(job)
        assert done.returncode == 1
        assert said(done)[0] == f"ingester: {words}"

    def test_is_not_in_the_log(self, job: Job, server: ScriptedServer) -> None:
        """Which may be sent on to anybody, and has no word of a server."""
        job.write("a.dcm")
        log = job.journal.with_name("log.jsonl")
        server.default = Answer(403, {"x-amzn-ErrorType": "AccessDeniedException"})
        done = load(job, "--auth=bearer", f"--log-file={log}", env=TOKEN)
        assert done.returncode == 1
        assert "refuses the credentials (HTTP 403)" in log.read_text("utf-8")
        assert "AccessDenied" not in log.read_text("utf-8")


class TestRefusalsWithoutASuccess:
    @pytest.mark.parametrize(
        ("studies", "words"),
        [
            (9, "6 unrelated requests in a row were refused"),
            (3, "every request so far was refused"),
        ],
    )
    def test_name_the_status_and_the_error_type(
        self, job: Job, server: ScriptedServer, studies: int, words: str
    ) -> None:
        job.write_studies(studies)
        server.default = Answer(400, {"x-amzn-ErrorType": "ValidationException"}, b"Doe^Jane")
        done = load(job)
        assert done.returncode == 1
        assert said(done)[0] == (
            f"ingester: {words} (the last with HTTP 400), and none succeeded: ValidationException"
        )
        assert "Doe" not in done.stderr

    def test_name_the_status_of_an_answer_that_confirms_nothing(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(9)
        server.default = Answer(200, {}, b"thanks")
        done = load(job)
        assert done.returncode == 1
        assert "(the last with HTTP 200)" in said(done)[0]


class TestTheFirstFailureOfARun:
    def test_is_told_while_the_run_goes_on_and_no_other_is(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(4)
        gate = threading.Event()
        refuse = StoreAll(failures=lambda _uid: 0xC122)
        server.push(StoreAll(), refuse, refuse, Wait(gate))
        told = (
            "warning: a first file is not stored (rejected: failure_C122, HTTP 409); for the "
            f"files: ingester status --exceptions --journal {job.journal}"
        )
        with start(job) as process:
            wait_until(lambda: told in process.stderr_so_far())
            assert process.running
            gate.set()
            done = process.wait()
        assert done.returncode == 3
        assert said(done) == [told]
        listed = run_ingester("status", "--exceptions", "--journal", job.journal)
        assert listed.stdout.count('"rejected"') == 2

    def test_is_told_when_the_last_commit_has_it(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        server.default = StoreAll(failures=lambda _uid: 0xC122)
        done = load(job)
        assert done.returncode == 3
        assert len(said(done)) == 1
        assert done.stderr.splitlines()[-1].startswith("progress ")

    def test_of_an_earlier_run_is_not_told_again(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        server.default = StoreAll(failures=lambda _uid: 0xC122)
        load(job)
        done = load(job)
        assert len(server.posts) == 1
        assert said(done) == []

    def test_is_none_of_a_file_that_is_no_matter_of_the_server(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        (job.archive / "notes.txt").write_text("no DICOM", encoding="utf-8")
        done = load(job)
        assert len(server.posts) == 1
        assert said(done) == []


class TestAProxyThatCannotBeReached:
    @pytest.fixture
    def proxy(self) -> Iterator[str]:
        """The option for one where nobody listens, and nobody else can get the port."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            yield f"--proxy=http://127.0.0.1:{bound.getsockname()[1]}"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_is_not_called_the_server(self, job: Job, proxy: str, scheme: str) -> None:
        job.write("a.dcm")
        done = load(job, proxy, url=f"{scheme}{job.server.url[4:]}")
        assert done.returncode == 1
        assert job.server.connections == 0
        line, hint = said(done)
        assert line == (
            "ingester: there is no connection through the proxy "
            "(ClientProxyConnectionError: Connection refused)"
        )
        assert hint.startswith("  hint: check --proxy (or HTTP_PROXY, HTTPS_PROXY), ")

    def test_is_not_called_so_after_a_success_either(self, job: Job, proxy: str) -> None:
        job.write("a.dcm")
        load(job)
        job.write("b.dcm")
        done = load(job, proxy, "--max-outage-s=1", "--max-attempts=2")
        assert done.returncode == 1
        assert said(done) == [
            "ingester: the proxy has let nothing through for 1 s",
            "  hint: the same command goes on when the proxy is back",
        ]

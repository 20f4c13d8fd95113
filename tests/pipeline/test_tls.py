"""TLS: who the server is, who we are, and what `--insecure` says. With the real command."""

from __future__ import annotations

import datetime as dt
import json
import socket
import socketserver
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cli.said import complaint
from tests.pipeline.certificate import Certificate, make_certificate
from tests.pipeline.job import Job, Ran, uid_of
from tests.support.exchange import Exchange
from tests.support.logs import lines_of
from tests.support.process import Completed, run_ingester
from tests.support.scripted import (
    Answer,
    Choose,
    NeverRead,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
)

SHOUT = "WARNING: --insecure: nobody verifies who the server is; patient data may go to anybody"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@pytest.fixture
def client(tmp_path: Path) -> Certificate:
    """What a server trusts that asks its clients for a certificate."""
    return make_certificate(tmp_path, "client")


def load(job: Job, server: ScriptedServer, *options: object, url: str = "") -> Completed:
    return run_ingester(
        "run", job.archive, f"--url={url or server.url}", f"--journal={job.journal}",
        f"--results={job.results}", "--json", "--backoff-base-s=0.01", *map(str, options),
    )  # fmt: skip


def said(done: Completed) -> list[str]:
    """What was said beside the progress."""
    return [line for line in done.stderr.splitlines() if not line.startswith("progress ")]


def assert_stopped(done: Completed, job: Job, words: str, hint: str) -> None:
    """Exit 1, a line and a hint, everything pending."""
    assert done.returncode == 1, done.stderr
    assert len(said(done)) == 2, done.stderr
    line, next_ = said(done)
    assert line.startswith("ingester: ")
    assert words in line
    assert next_.startswith("  hint: ")
    assert hint in next_
    outcomes = json.loads(done.stdout)["outcomes"]
    assert outcomes["pending"] == sum(outcomes.values()) == len(list(job.archive.rglob("*.dcm")))


class Plain(socketserver.BaseRequestHandler):
    """As HTTP servers answer what they cannot read."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


class TestAConnectionThatEndsShortlyBeforeItsTimeLimit:
    def test_is_looked_into_and_the_limit_is_not_missed_meanwhile(
        self, job: Job, certificate: Certificate
    ) -> None:
        """The look takes 2 s, and the request that it is about has ended: it cannot time out."""
        job.write("a.dcm", payload_bytes=30_000_000)
        log = job.archive.parent / "log"

        with ScriptedServer(tls=certificate.context) as server:
            server.push(NeverRead(2.6))
            done = load(
                job, server, f"--ca-bundle={certificate.path}", "--stall-timeout-s=3",
                f"--log-file={log}",
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "bug" not in {line["event"] for line in lines_of(log)}


class TestAPortWithoutTls:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_is_told_at_once(self, event_loop: str, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as plain:
            threading.Thread(target=plain.serve_forever).start()
            url = f"https://127.0.0.1:{plain.server_address[1]}"
            done = load(job, server, f"--event-loop={event_loop}", url=url)
            plain.shutdown()
        assert_stopped(done, job, "what listens there does not speak TLS", "is it http://")
        assert "WRONG_VERSION_NUMBER" in done.stderr
        assert done.elapsed_s < 10


class TestAServerThatIsNotWhoItShouldBe:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_of_an_unknown_authority(
        self, event_loop: str, job: Job, certificate: Certificate
    ) -> None:
        job.write_many(3)
        with ScriptedServer(tls=certificate.context) as server:
            done = load(job, server, f"--event-loop={event_loop}")
            assert server.requests == []
        assert_stopped(done, job, "self-signed certificate", "--ca-bundle")

    def test_of_another_authority_than_the_bundle_has(
        self, job: Job, certificate: Certificate, client: Certificate
    ) -> None:
        job.write_many(3)
        with ScriptedServer(tls=certificate.context) as server:
            done = load(job, server, f"--ca-bundle={client.path}")
            assert server.requests == []
        assert_stopped(done, job, "certificate cannot be verified", "--ca-bundle")

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    @pytest.mark.parametrize(
        ("host", "words"),
        [("127.0.0.1", "IP address mismatch"), ("localhost", "Hostname mismatch")],
    )
    def test_of_another_name(
        self, host: str, words: str, event_loop: str, job: Job, tmp_path: Path
    ) -> None:
        """Its authority is the right one, and no --insecure is suggested."""
        job.write_many(3)
        other = make_certificate(tmp_path, address="127.0.0.2")
        with ScriptedServer(tls=other.context, host=host) as server:
            done = load(job, server, f"--ca-bundle={other.path}", f"--event-loop={event_loop}")
            assert server.requests == []
        assert_stopped(done, job, "the server's certificate is for another name", "--url")
        line, hint = said(done)
        assert words in line
        assert f"'{host}'" in line
        assert "--ca-bundle" not in hint
        assert "insecure" not in hint

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_with_a_certificate_that_has_expired(
        self, event_loop: str, job: Job, tmp_path: Path
    ) -> None:
        job.write_many(3)
        old = make_certificate(tmp_path, ended=dt.timedelta(seconds=1))
        with ScriptedServer(tls=old.context) as server:
            done = load(job, server, f"--ca-bundle={old.path}", f"--event-loop={event_loop}")
            assert server.requests == []
        assert_stopped(done, job, "certificate has expired", "renew")
        assert "--ca-bundle" not in said(done)[1]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def asking(
    request: pytest.FixtureRequest, certificate: Certificate, client: Certificate
) -> ssl.SSLContext:
    """A server's context that lets in nobody without a certificate."""
    context = certificate.context
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client.path)
    context.minimum_version = context.maximum_version = request.param
    return context


class TestAServerThatAsksForACertificate:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    @pytest.mark.parametrize("together", [True, False])
    def test_gets_it(
        self, together: bool, event_loop: str, job: Job, asking: ssl.SSLContext,
        certificate: Certificate, client: Certificate,
    ) -> None:  # fmt: skip
        names = job.write_many(3)
        options = [f"--client-cert={client.path}", f"--client-key={client.key}"]
        if together:
            both = client.path.with_name("both.pem")
            both.write_bytes(client.key.read_bytes() + client.path.read_bytes())
            options = [f"--client-cert={both}"]
        with ScriptedServer(tls=asking) as server:
            options += [f"--ca-bundle={certificate.path}", f"--event-loop={event_loop}"]
            done = load(job, server, *options)
            assert (done.returncode, said(done)) == (0, [])
            assert all(server.stored[uid_of(name)] == [job.sha256(name)] for name in names)

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_and_gets_none_stops_the_run(
        self, event_loop: str, job: Job, asking: ssl.SSLContext, certificate: Certificate
    ) -> None:
        job.write_studies(3)
        with ScriptedServer(tls=asking) as server:
            options = (f"--ca-bundle={certificate.path}", f"--event-loop={event_loop}")
            done = load(job, server, *options)
            assert server.requests == []
        assert_stopped(done, job, "the server refuses the TLS connection", "--client-cert")

    def test_and_does_not_trust_it_stops_the_run(
        self, job: Job, asking: ssl.SSLContext, certificate: Certificate, tmp_path: Path
    ) -> None:
        job.write_many(3)
        other = make_certificate(tmp_path, "other")
        with ScriptedServer(tls=asking) as server:
            done = load(
                job, server, f"--ca-bundle={certificate.path}",
                f"--client-cert={other.path}", f"--client-key={other.key}",
            )  # fmt: skip
            assert server.requests == []
        assert_stopped(done, job, "the server refuses the TLS connection", "--client-cert")


class TestAServerThatTrustsUsNoMore:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_is_no_outage_that_is_waited_for(
        self, event_loop: str, job: Job, asking: ssl.SSLContext, certificate: Certificate,
        client: Certificate, tmp_path: Path,
    ) -> None:  # fmt: skip
        """A certificate that expires or is revoked in mid-run: bodies are under way by then."""
        for number in range(4):
            job.write(f"{number}.dcm", study=number, payload_bytes=3_000_000)
        changed = _trusting_another(certificate, asking, tmp_path)
        with ScriptedServer(tls=asking) as server:
            job.server = server
            server.before_answer(lambda _: server.ask_by(changed))
            server.push(StoreAll(headers={"Connection": "close"}))
            ran = job.run(
                url=server.url, ca_bundle=str(certificate.path), client_cert=str(client.path),
                client_key=str(client.key), event_loop=event_loop, max_attempts=3, max_outage_s=5.0,
            )  # fmt: skip
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert ran.cause.message.startswith("the server refuses the TLS connection (")
        assert ran.outcomes.get("in_doubt", 0) + ran.outcomes["pending"] == 3

    @pytest.mark.parametrize("asking", [ssl.TLSVersion.TLSv1_3], indirect=True)
    def test_leaves_in_doubt_what_was_lost_on_a_connection_that_it_had_answered_on(
        self, job: Job, asking: ssl.SSLContext, certificate: Certificate, client: Certificate,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        """It was made when the certificate was good: that end says nothing of it."""
        names = [f"{number}.dcm" for number in range(4)]
        for number, name in enumerate(names):
            job.write(name, study=number, payload_bytes=3_000_000)
        changed = _trusting_another(certificate, asking, tmp_path)
        first_two = threading.Barrier(2)
        with ScriptedServer(tls=asking) as server:
            job.server = server

            def take(request: Request) -> Step:
                if request.number < 2:
                    first_two.wait(60)
                    return StoreAll()
                server.wait_until(lambda: len(server.posts) == 4)
                server.ask_by(changed)
                return StoreThenDrop()

            server.default = Choose(take)
            ran = job.run(
                url=server.url, ca_bundle=str(certificate.path), client_cert=str(client.path),
                client_key=str(client.key), max_concurrency=2, max_outage_s=5.0,
            )  # fmt: skip
        assert ran.cause is not None
        assert ran.cause.message.startswith("the server refuses the TLS connection (")
        assert len(server.stored) == 4
        assert [ran.outcome(name) for name in names] == ["stored"] * 2 + ["in_doubt"] * 2


def _trusting_another(
    certificate: Certificate, asking: ssl.SSLContext, directory: Path
) -> ssl.SSLContext:
    """Of the same server, when it trusts the client's certificate no more."""
    other = make_certificate(directory, "other")
    changed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    changed.load_cert_chain(certificate.path, certificate.key)
    changed.verify_mode = ssl.CERT_REQUIRED
    changed.load_verify_locations(other.path)
    changed.minimum_version = changed.maximum_version = asking.minimum_version
    return changed


PLAIN = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n"
HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"  # RFC 8446 6: a fatal alert, 40


class Balancer(ssl.SSLContext):
    """Of a server of which a backend is being restarted: some connections meet no TLS there."""

    instead: list[bytes]  # what the next connections get
    together: int  # of them are answered at a time
    _held: list[socket.socket]

    @classmethod
    def of(cls, certificate: Certificate) -> Self:
        made = cls(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(certificate.path, certificate.key)
        made.instead, made.together, made._held = [], 1, []
        return made

    def wrap_socket(self, sock: socket.socket, *rest: Any, **more: Any) -> ssl.SSLSocket:
        if not self.instead:
            return super().wrap_socket(sock, *rest, **more)
        self._held.append(sock.dup())
        if len(self._held) >= self.together:
            for held in self._held:
                held.recv(16384)
                held.sendall(self.instead.pop())
                held.close()
            self._held.clear()
        raise OSError  # the server gives this connection up


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("word", "told"),
    [
        (PLAIN, "what listens there does not speak TLS"),
        (HANDSHAKE_FAILURE, "the server refuses the TLS connection"),
    ],
    ids=["plain", "alert"],
)
class TestABackendThatIsBeingRestarted:
    """Others answered well before: for 60 back-off bases each such costs an attempt."""

    def load(
        self, job: Job, certificate: Certificate, event_loop: str, after: dict[int, list[bytes]],
        together: int = 1, **options: object,
    ) -> tuple[Ran, ScriptedServer]:  # fmt: skip
        """``after``: what is met in place of TLS after so many answers, each on its connection."""
        balancer = Balancer.of(certificate)
        balancer.together = together
        return self.through(
            balancer, job, certificate, event_loop, after, max_concurrency=together, **options
        )

    def through(
        self, balancer: Balancer, job: Job, certificate: Certificate, event_loop: str,
        after: dict[int, list[bytes]], **options: object,
    ) -> tuple[Ran, ScriptedServer]:  # fmt: skip
        """The same, by a balancer that shows afterwards what of it was not met."""
        with ScriptedServer(tls=balancer) as server:
            job.server = server
            server.default = StoreAll(headers={"Connection": "close"})
            server.before_answer(lambda n: balancer.instead.extend(after.get(n, [])))
            ran = job.run(
                options, url=server.url, ca_bundle=str(certificate.path), event_loop=event_loop
            )
        return ran, server

    @pytest.mark.parametrize("after", [{1: 1}, {1: 1, 2: 1}, {1: 5}, {2: 3, 3: 2}])
    def test_costs_an_attempt_each_time(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str,
        after: dict[int, int],
    ) -> None:  # fmt: skip
        del told
        job.write_studies(4)
        met = {number: [word] * times for number, times in after.items()}
        ran, server = self.load(job, certificate, event_loop, met, backoff_base_s=1.0)
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 4})
        assert ran.summary.retries == sum(after.values())
        assert len(server.posts) == 4

    def test_is_waited_for_when_the_attempts_are_used_up(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str
    ) -> None:
        del told
        job.write_studies(4)
        ran, server = self.load(
            job, certificate, event_loop, {2: [word] * 9}, backoff_base_s=1.0, max_outage_s=60
        )
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 4})
        assert len(server.stored) == 4

    def test_for_good_ends_the_run_and_is_no_outage_that_is_waited_for(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str
    ) -> None:
        job.write_studies(4)
        balancer = Balancer.of(certificate)
        ran, server = self.through(
            balancer, job, certificate, event_loop, {2: [word] * 1000}, max_outage_s=600
        )
        assert (ran.exit_code, ran.outcomes) == (1, {"stored": 2, "pending": 2})
        assert ran.cause is not None
        assert ran.cause.message.startswith(told)
        assert len(server.posts) == 2
        refused = 1000 - len(balancer.instead)
        assert refused <= 8, "six attempts, a look-up, and the body that is told so"

    def test_for_good_ends_the_run_also_after_many_were_lost_in_a_row(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str
    ) -> None:
        job.write_studies(20)
        balancer = Balancer.of(certificate)
        ran, _ = self.through(
            balancer, job, certificate, event_loop, {4: [word] * 1000},
            max_outage_s=600, max_concurrency=4,
        )  # fmt: skip
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert ran.cause.message.startswith(told)
        assert ran.outcomes["stored"] + ran.outcomes["pending"] == 20
        assert len(balancer.instead) >= 950

    def test_for_good_ends_the_wait_for_a_stored_file_too(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str
    ) -> None:
        """It is sent to see whether six refusals are the files' or the setting's."""
        del told
        job.write_studies(8)
        balancer = Balancer.of(certificate)
        began = time.monotonic()
        with ScriptedServer(tls=balancer) as server:
            job.server = server
            server.push(StoreAll(headers={"Connection": "close"}))
            server.default = Answer(422, {"Connection": "close"})
            server.before_answer(lambda n: balancer.instead.extend([word] * 1000 * (n == 7)))
            ran = job.run(
                url=server.url, ca_bundle=str(certificate.path), event_loop=event_loop,
                max_outage_s=60,
            )  # fmt: skip
        assert time.monotonic() - began < 30
        assert (ran.exit_code, ran.outcomes) == (1, {"stored": 1, "pending": 7})
        assert ran.cause is not None
        assert ran.cause.message.startswith("6 unrelated requests in a row were refused")

    def test_costs_each_of_two_requests_an_attempt_that_meet_it_at_the_same_time(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes, told: str
    ) -> None:
        del told
        job.write_studies(8)
        ran, server = self.load(
            job, certificate, event_loop, {2: [word] * 2}, together=2, backoff_base_s=1.0
        )
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 8})
        assert ran.summary.retries == 2
        assert len(server.posts) == 8


class _Both:
    """Two requests are lost at the same moment, and the next connection meets no handshake."""

    def __init__(self, balancer: Balancer, word: bytes) -> None:
        self._here = threading.Barrier(2, lambda: balancer.instead.append(word))

    def play(self, exchange: Exchange) -> None:
        """Waits for the other one and resets."""
        exchange.read_body()
        self._here.wait(60)
        exchange.reset()


class TestAConnectionThatAsksWhyTwoRequestsWereLost:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    @pytest.mark.parametrize("word", [PLAIN, HANDSHAKE_FAILURE], ids=["plain", "alert"])
    def test_and_meets_a_backend_that_is_being_restarted_ends_no_run(
        self, job: Job, certificate: Certificate, event_loop: str, word: bytes
    ) -> None:
        job.write_studies(8)
        balancer = Balancer.of(certificate)
        with ScriptedServer(tls=balancer) as server:
            job.server = server
            server.default = StoreAll(headers={"Connection": "close"})
            lost = _Both(balancer, word)
            server.push(server.default, server.default, lost, lost)
            ran = job.run(
                url=server.url, ca_bundle=str(certificate.path), event_loop=event_loop,
                max_concurrency=2, backoff_base_s=1.0, backoff_cap_s=0.5,
            )  # fmt: skip
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 8})
        assert balancer.instead == []


class TestAClientCertificateThatCannotBeUsed:
    @pytest.fixture
    def other(self, tmp_path: Path) -> Certificate:
        return make_certificate(tmp_path, "other", password=b"s3cret")

    @pytest.mark.parametrize(
        ("certificate_file", "key_file", "line", "hint"),
        [
            ("other.pem", "other-key.pem", "the client key is encrypted: other-key.pem", "openssl"),
            ("client.pem", "none.pem", "the client key cannot be read (No such file", ""),
            ("none.pem", None, "the client certificate cannot be read (No such file", ""),
            ("client.pem", None, "the client certificate or its key is no PEM", "--client-key"),
            ("client.pem", "cert-key.pem", "they do not belong together (key values mismatch)", ""),
            ("junk", "client-key.pem", "the client certificate or its key is no PEM", ""),
            ("client.pem", "junk", "the client certificate or its key is no PEM", ""),
        ],
    )
    def test_is_wrong_use(
        self, certificate_file: str, key_file: str | None, line: str, hint: str, tmp_path: Path,
        certificate: Certificate, client: Certificate, other: Certificate,
    ) -> None:  # fmt: skip
        del certificate, client, other
        (tmp_path / "junk").write_bytes(b"s3cret")
        (tmp_path / "archive").mkdir()
        options = ["--client-cert", certificate_file]
        options += [] if key_file is None else ["--client-key", key_file]
        done = run_ingester(
            "run", "archive", "--url", "https://127.0.0.1:9", *options, cwd=tmp_path
        )
        assert done.returncode == 2
        first, next_ = complaint(done)
        assert line in first
        assert hint in next_
        assert "s3cret" not in done.stderr
        assert not (tmp_path / "ingester.db").exists()


class TestInsecure:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_works_and_is_said_at_the_beginning_and_the_end(
        self, event_loop: str, job: Job, certificate: Certificate
    ) -> None:
        job.write_many(3)
        with ScriptedServer(tls=certificate.context, host="localhost") as server:
            done = load(job, server, "--insecure", f"--event-loop={event_loop}")
            assert len(server.stored) == 3
        assert done.returncode == 0
        assert said(done) == [SHOUT, SHOUT]
        assert done.stderr.startswith(SHOUT)
        assert done.stderr.endswith(f"{SHOUT}\n")
        assert json.loads(done.stdout)["insecure"] is True

    def test_is_in_the_summary_for_people(self, job: Job, certificate: Certificate) -> None:
        job.write_many(3)
        with ScriptedServer(tls=certificate.context) as server:
            done = run_ingester(
                "run", job.archive, f"--url={server.url}", f"--journal={job.journal}", "--insecure"
            )
        assert "the server's certificate was not verified (--insecure)" in done.stdout.splitlines()

    def test_ignores_a_bundle_that_the_environment_has(
        self, job: Job, certificate: Certificate
    ) -> None:
        job.write_many(1)
        with ScriptedServer(tls=certificate.context) as server:
            done = run_ingester(
                "run", job.archive, f"--url={server.url}", f"--journal={job.journal}", "--insecure",
                env={"AWS_CA_BUNDLE": "/nowhere"},
            )  # fmt: skip
        assert done.returncode == 0

    def test_is_said_where_the_configuration_is_shown(self) -> None:
        done = run_ingester("config", "--url", "https://host", env={"INGESTER_INSECURE": "1"})
        assert done.stderr.splitlines() == [SHOUT]
        row = next(line for line in done.stdout.splitlines() if line.startswith("target.insecure"))
        assert row.split() == ["target.insecure", "true", "#", "environment", "INGESTER_INSECURE"]

    def test_is_off_unless_it_is_asked_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(1)
        done = load(job, server)
        assert (said(done), json.loads(done.stdout)["insecure"]) == ([], False)

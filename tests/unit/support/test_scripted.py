"""The scripted server does to real sockets what its steps say."""

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.dicom_files import instance_bytes
from tests.support.multipart import MultipartError
from tests.support.scripted import (
    Answer,
    AnswerAndSee,
    Choose,
    CloseAfter,
    DropIdle,
    EarlyAnswer,
    NeverAnswer,
    NeverRead,
    ReadSlowly,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)

TYPE = 'multipart/related; type="application/dicom"; boundary=bnd'


def make_body(*sops: str) -> bytes:
    parts = [
        b"--bnd\r\nContent-Type: application/dicom\r\n\r\n"
        + instance_bytes(study="2.25.1", series="2.25.2", sop=sop)
        + b"\r\n"
        for sop in sops
    ]
    return b"".join(parts) + b"--bnd--"


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    yield connection
    connection.close()


def post(
    client: http.client.HTTPConnection, body: bytes, content_type: str = TYPE
) -> tuple[int, bytes]:
    client.request("POST", "/studies", body, {"Content-Type": content_type})
    response = client.getresponse()
    return response.status, response.read()


def uids(answer: bytes, tag: str) -> list[str]:
    items = json.loads(answer).get(tag, {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in items]


class TestStoreAll:
    def test_stores_and_names_every_instance(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        status, answer = post(client, make_body("2.25.3", "2.25.4"))
        assert (status, uids(answer, "00081199")) == (200, ["2.25.3", "2.25.4"])
        assert list(server.stored) == ["2.25.3", "2.25.4"]

    def test_takes_a_single_file(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        file = instance_bytes(study="2.25.1", series="2.25.2", sop="2.25.3")
        assert post(client, file, "application/dicom")[0] == 200
        assert list(server.stored) == ["2.25.3"]

    def test_fails_warns_leaves_out_and_invents_as_told(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(
            StoreAll(
                only=lambda uid: uid != "2.25.5",
                named=lambda uid: uid != "2.25.6",
                failures={"2.25.3": 0xA700},
                warnings={"2.25.4": 0xB000},
                unknown=["2.25.99"],
            )
        )
        status, answer = post(client, make_body("2.25.3", "2.25.4", "2.25.5", "2.25.6"))
        assert status == 202
        assert uids(answer, "00081199") == ["2.25.4", "2.25.99"]
        assert uids(answer, "00081198") == ["2.25.3"]
        assert b'"00081196": {"vr": "US", "Value": [45056]}' in answer
        assert set(server.stored) == {"2.25.4", "2.25.6"}

    def test_says_409_when_nothing_is_stored(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(StoreAll(failures=lambda _: 0x0110))
        assert post(client, make_body("2.25.3"))[0] == 409
        assert server.stored == {}


class TestTheScript:
    def test_is_followed_in_order_then_comes_the_default(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(Answer(503, {"Retry-After": "1"}), Answer(429))
        body = make_body("2.25.3")
        assert [post(client, body)[0] for _ in range(3)] == [503, 429, 200]
        assert [request.status for request in server.requests] == [503, 429, 200]
        assert {request.body for request in server.requests} == {body}
        assert len({request.sha256 for request in server.requests}) == 1
        assert server.connections == 1

    def test_is_not_shifted_by_a_look_up(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        post(client, make_body("2.25.3", "2.25.4"))
        server.push(Answer(503))
        client.request("GET", "/studies/2.25.1/instances?SOPInstanceUID=2.25.4,2.25.5")
        [found] = json.loads(client.getresponse().read())
        assert found["00080018"] == {"vr": "UI", "Value": ["2.25.4"]}
        assert post(client, make_body("2.25.3"))[0] == 503
        assert [request.method for request in server.posts] == ["POST", "POST"]

    def test_can_choose_by_the_body(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.default = Choose(lambda r: Answer(400) if b"2.25.66" in r.body else StoreAll())
        assert post(client, make_body("2.25.3"))[0] == 200
        assert post(client, make_body("2.25.3", "2.25.66"))[0] == 400


class TestFaults:
    def test_reset_is_a_reset_after_so_many_bytes(self, server: ScriptedServer) -> None:
        server.push(Reset(after_bytes=1000))
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"POST /studies HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + bytes(1000))
            with pytest.raises(ConnectionResetError):
                raw.recv(1)
        server.wait_until(lambda: server.ledger.open_connections == 0)
        [request] = server.requests
        assert (request.body_bytes, request.body, request.complete) == (1000, bytes(1000), False)

    def test_close_is_an_end_of_file_even_while_the_body_is_going_out(
        self, server: ScriptedServer
    ) -> None:
        server.push(CloseAfter(after_bytes=10))
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"POST /studies HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + bytes(3000))
            assert raw.recv(1) == b""
        assert server.requests[0].body_bytes == 10

    def test_a_lost_answer_has_stored(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(StoreThenDrop())
        with pytest.raises(http.client.RemoteDisconnected):
            post(client, make_body("2.25.3"))
        assert list(server.stored) == ["2.25.3"]
        assert (server.answers, server.requests[0].status) == (0, None)

    def test_a_cut_answer_breaks_off(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(StoreThenDrop(answer_bytes=150))
        with pytest.raises(http.client.IncompleteRead):
            post(client, make_body("2.25.3"))

    def test_an_early_answer_comes_before_the_body_is_complete(
        self, server: ScriptedServer
    ) -> None:
        server.push(EarlyAnswer(413, after_bytes=100))
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"POST /studies HTTP/1.1\r\nContent-Length: 500\r\n\r\n" + bytes(100))
            assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
            raw.sendall(bytes(400) + b"GET /instances HTTP/1.1\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert server.requests[0].complete

    def test_a_kept_connection_is_lost_after_the_answer(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(DropIdle(StoreAll()))
        assert post(client, make_body("2.25.3"))[0] == 200
        assert client.sock is not None
        assert client.sock.recv(1) == b""

    def test_a_kept_connection_is_reset_under_the_next_request(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(DropIdle(when="next_request"))
        assert post(client, make_body("2.25.3"))[0] == 200
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            post(client, make_body("2.25.4"))
        assert (len(server.requests), server.dropped_reuses) == (1, 1)

    def test_a_kept_connection_that_is_not_used_again_is_no_dropped_reuse(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(DropIdle(when="next_request"))
        assert post(client, make_body("2.25.3"))[0] == 200
        client.close()
        server.wait_until(lambda: server.ledger.open_connections == 0)
        assert server.dropped_reuses == 0

    def test_a_server_that_is_down_refuses_and_comes_back_on_its_port(
        self, server: ScriptedServer
    ) -> None:
        server.go_down()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.port))
        server.come_back()
        socket.create_connection(("127.0.0.1", server.port)).close()


class TestTime:
    def test_a_slow_reader_takes_its_time(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        server.push(ReadSlowly(bytes_per_s=40_000, chunk=1000, then=Answer(200)))
        began = time.monotonic()
        assert post(client, bytes(20_000))[0] == 200
        assert time.monotonic() - began >= 0.45
        assert server.body_bytes == 20_000

    def test_a_server_that_never_reads_stops_the_sender(self) -> None:
        with ScriptedServer(receive_buffer=4096) as server:
            server.push(NeverRead())
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                raw.sendall(b"POST /studies HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n")
                raw.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    raw.sendall(bytes(10_000_000))
                server.wait_until(lambda: bool(server.requests))
            assert server.requests[0].body_bytes == 0

    def test_an_answer_is_seen_when_the_client_has_closed(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        read = threading.Event()
        server.push(AnswerAndSee(read, 503, {"Retry-After": "1"}))
        client.request("POST", "/studies", b"x")
        response = client.getresponse()  # http.client closes once it has read the body
        assert (response.status, response.headers["Connection"]) == (503, "close")
        assert not read.is_set()
        response.read()
        client.close()
        assert read.wait(60)

    def test_silence_ends_with_the_server(self) -> None:
        with ScriptedServer() as server:
            server.push(NeverAnswer())
            raw = socket.create_connection(("127.0.0.1", server.port))
            raw.sendall(b"POST /studies HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
            server.wait_until(lambda: bool(server.requests) and server.requests[0].complete)
        raw.close()
        assert not [t for t in threading.enumerate() if t.name == f"scripted-{server.port}-0"]

    def test_it_can_wait_for_the_test(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        gate = threading.Event()
        server.push(Wait(gate))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(post, client, make_body("2.25.3"))
            server.wait_until(lambda: server.body_bytes == len(make_body("2.25.3")))
            assert (server.answers, server.stored) == (0, {})
            gate.set()
            assert answer.result(60)[0] == 200


class TestCountsAndHooks:
    def test_the_peak_is_what_the_client_really_had_under_way(self, server: ScriptedServer) -> None:
        four = threading.Barrier(4, timeout=60)

        def together(_request: Request) -> Step:
            four.wait()
            return Answer(200)

        server.push(*[Choose(together)] * 4)
        server.default = Answer(200)

        def several() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            for _ in range(5):
                post(connection, b"x")
            connection.close()

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(several) for _ in range(4)]:
                future.result()
        assert (server.peak_requests, server.connections, server.answers) == (4, 4, 20)
        assert server.peak_connections == 4

    def test_hooks_are_called_around_every_answer(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        calls: list[tuple[str, int, int]] = []
        server.before_answer(lambda n: calls.append(("before", n, len(server.stored))))
        server.after_answer(lambda n: calls.append(("after", n, len(server.stored))))
        server.push(StoreAll(), StoreThenDrop(), Answer(503))
        post(client, make_body("2.25.3"))
        with pytest.raises(http.client.RemoteDisconnected):
            post(client, make_body("2.25.4"))
        post(client, b"")
        server.wait_until(lambda: len(calls) == 4)
        assert calls == [("before", 1, 1), ("after", 1, 1), ("before", 2, 2), ("after", 2, 2)]

    def test_a_count_of_body_bytes_is_met_exactly(
        self, server: ScriptedServer, client: http.client.HTTPConnection
    ) -> None:
        seen: list[int] = []
        server.default = Answer(200)
        server.at_body_bytes(12_345, lambda: seen.append(server.body_bytes))
        post(client, bytes(10_000))
        post(client, bytes(10_000))
        assert seen == [12_345]

    def test_a_body_beyond_the_cap_is_counted_and_not_kept(self) -> None:
        with ScriptedServer(keep_body_bytes=1000) as server:
            server.default = Answer(200)
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            for size in (600, 600, 100_000):
                post(connection, bytes(size))
            connection.close()
            first, second, third = server.requests
        assert first.body == bytes(600)
        assert not second.body_kept
        assert third.body_bytes == 100_000
        with pytest.raises(LookupError):
            assert third.body


class TestWhatGoesWrongInside:
    def test_a_body_that_cannot_be_split_fails_the_test(self) -> None:
        def use_it() -> None:
            with ScriptedServer() as server:
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                assert post(connection, b"--bnd\r\nrubbish")[0] == 400
                connection.close()

        with pytest.raises(ExceptionGroup) as caught:
            use_it()
        assert caught.group_contains(MultipartError)

    def test_a_hook_that_fails_fails_the_test(self) -> None:
        def hook(number: int) -> None:
            raise ValueError(number)

        def use_it() -> None:
            with ScriptedServer() as server:
                server.before_answer(hook)
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                with pytest.raises(http.client.RemoteDisconnected):
                    post(connection, b"")
                connection.close()

        with pytest.raises(ExceptionGroup) as caught:
            use_it()
        assert caught.group_contains(ValueError)


class TestTls:
    def test_speaks_https_and_resets_below_it(self, tmp_path: Path) -> None:
        serving, trusting = make_contexts(tmp_path)
        with ScriptedServer(tls=serving, host="localhost") as server:
            server.push(StoreAll(), Reset(after_bytes=10), CloseAfter(after_bytes=10))
            outcomes: list[object] = []
            for _ in range(3):
                connection = http.client.HTTPSConnection(
                    "localhost", server.port, timeout=60, context=trusting
                )
                try:
                    outcomes.append(post(connection, make_body("2.25.3"))[0])
                except OSError as error:
                    outcomes.append(type(error))
                connection.close()
            assert server.url == f"https://localhost:{server.port}"
            assert outcomes[0] == 200
            # Python's blocking TLS gives the ECONNRESET of the first one as an end of file.
            assert all(isinstance(o, type) and issubclass(o, OSError) for o in outcomes[1:])
            assert [request.body_bytes for request in server.requests[1:]] == [10, 10]

    def test_counts_a_client_that_does_not_trust_it(self, tmp_path: Path) -> None:
        serving, _ = make_contexts(tmp_path)
        with ScriptedServer(tls=serving, host="localhost") as server:
            connection = http.client.HTTPSConnection("localhost", server.port, timeout=60)
            with pytest.raises(ssl.SSLCertVerificationError):
                post(connection, b"")
            connection.close()
            server.wait_until(lambda: server.ledger.open_connections == 0)
            assert (server.handshake_failures, server.requests) == (1, [])


def make_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Gives a server's context with a certificate of its own, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = directory / "server.pem"
    path.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(path)
    return serving, ssl.create_default_context(cadata=pem.decode())

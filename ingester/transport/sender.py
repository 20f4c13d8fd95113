"""One request at a time through aiohttp, and what came of it as a value.

Redirects are not followed, cookies are not kept, the environment is not read, certificates are
verified, and there is no total timeout. One attempt, never a hidden second one.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from ingester.arena import Region
from ingester.auth import Secret
from ingester.logs import DEBUG, log
from ingester.transport.alerts import Refusals
from ingester.transport.authorizer import Authorized, Authorizer, FixedHeaders
from ingester.transport.body import Body
from ingester.transport.error_type import error_type_of
from ingester.transport.no_answer import no_answer_of
from ingester.transport.payload import BodyPayload
from ingester.transport.reply import Answer, NoAnswer, Reply
from ingester.transport.signs import CONFLICT, PROXY_AUTHENTICATION_REQUIRED, UNAUTHORIZED
from ingester.transport.watchdog import Watchdog

ANSWER_BYTES = 1 << 20
ANSWER_BYTES_PER_FILE = 6 << 10
"""An answer may be as long as both together: a real server writes 0.6 KB of each file."""
LOOK_UP_BYTES = 8 << 20
"""A page of 1,000 instances, with 8 KiB of each."""
HEADER_BYTES = 64 << 10
"""Of one line. A portal before the store may answer with more than the 8,190 that aiohttp takes."""
PAGES_AT_ONCE = 2
"""With 32, as after an outage, they took 300 MiB."""

_REQUEST_ID_HEADERS = ("x-amzn-RequestId", "x-amz-request-id", "x-ms-request-id", "X-Request-Id")


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """Where to and how patiently. Times in seconds."""

    base_url: str
    user_agent: str
    accept: str = "application/dicom+json"
    proxy: str | None = None  # URL of an HTTP proxy, without credentials
    proxy_authorization: Secret | None = None
    ssl_context: ssl.SSLContext | None = None
    max_connections: int = 8
    keep_alive_s: float = 4.0
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 60.0
    answer_timeout_s: float = 600.0
    refusal_patience_s: float = 30.0  # with one that answered before and now refuses TLS


class Sender:
    """An HTTP session with one server. Use as an async context manager."""

    def __init__(self, options: SenderOptions, authorizer: Authorizer | None = None) -> None:
        self.options = options
        self._authorizer = FixedHeaders({}) if authorizer is None else authorizer
        self.requests = 0
        self.in_flight = 0
        self._session: aiohttp.ClientSession | None = None
        # No tunnel: the requests themselves are the proxy's, and may be answered by it.
        self._proxy_reads_all = options.proxy is not None and options.ssl_context is None
        told = options.proxy_authorization
        self._told_proxy = {} if told is None else {"Proxy-Authorization": told.reveal()}
        self._pieces: list[Region] = []
        # Where connections begin on which an answer came: of those there are, and some before.
        self._answered: deque[object] = deque(maxlen=2 * options.max_connections)
        self.pages = asyncio.Semaphore(PAGES_AT_ONCE)  # for those who ask for one
        asked_by = options.ssl_context if options.proxy is None else None
        self._refusals = Refusals(options.base_url, asked_by, options.refusal_patience_s)

    @property
    def refused_for_good(self) -> bool:
        """Whether the server has refused TLS since long, or from the first: asking is no use."""
        return self._refusals.for_good

    async def __aenter__(self) -> Self:
        options = self.options
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=options.max_connections,
                keepalive_timeout=options.keep_alive_s,
                ssl=True if options.ssl_context is None else options.ssl_context,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=options.stall_timeout_s,  # all of it: a proxy may take a CONNECT and hang
                sock_connect=options.connect_timeout_s,
            ),
            headers={"User-Agent": options.user_agent, "Accept": options.accept},
            trust_env=False,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: Body) -> Reply:
        """Send one Store Instances request once.

        Raises:
            NoCredentials: they have expired, and nothing newer is to be had. Nothing was stored.
            NoThreadError: there is none to read or to sign the body.
        """
        if self._authorizer.needs_sha256 and (failed := await body.hash_whole()) is not None:
            return failed
        await self.ready()
        payload = BodyPayload(
            body,
            self._pieces.pop() if self._pieces else body.readers.piece(),
            self._authorizer.chunk_bytes,
        )
        self.requests += 1
        self.in_flight += 1
        try:
            reply = await self._exchange("POST", path, payload)
        finally:
            self.in_flight -= 1
            self._settle(payload)
        if payload.no_thread is not None:
            raise payload.no_thread
        return reply if payload.failure is None else payload.failure

    def _settle(self, payload: BodyPayload) -> None:
        piece = payload.settle()
        if piece is not None:
            self._pieces.append(piece)

    async def get(self, path: str) -> Answer | NoAnswer:
        """Ask for something small, and once more with other credentials. Raises NoCredentials."""
        await self.ready()
        reply = await self._exchange("GET", path, None)
        if isinstance(reply, Answer) and reply.mended:
            reply = await self._exchange("GET", path, None)
        log(DEBUG, "look_up", status=reply.status if isinstance(reply, Answer) else reply.kind)
        return reply

    async def ready(self) -> None:
        """Wait while nothing can be authorized, unless the run is to end. Raises NoCredentials."""
        await self._authorizer.ready()

    def _authorize(self, method: str, url: str, payload: BodyPayload | None) -> Authorized:
        if payload is None:
            return self._authorizer.authorize(method, url, {}, 0, None)
        content = {"Content-Type": payload.content_type}
        body = payload.body
        length = body.framing.content_length
        authorized = self._authorizer.authorize(method, url, content, length, body.whole_sha256)
        payload.sign_chunks(authorized.chunks)
        return authorized

    async def _exchange(
        self, method: str, path: str, payload: BodyPayload | None
    ) -> Answer | NoAnswer:
        assert self._session is not None  # noqa: S101 - entered
        tracker = aiohttp.UploadTracker()
        watchdog: Watchdog | None = None
        url = self.options.base_url + path
        authorized = self._authorize(method, url, payload)
        told_proxy = self._told_proxy
        if told_proxy and self._proxy_reads_all:
            authorized = authorized._replace(headers={**authorized.headers, **told_proxy})
        limit = LOOK_UP_BYTES
        if payload is not None:
            limit = ANSWER_BYTES + ANSWER_BYTES_PER_FILE * len(payload.body.instances)
        try:
            async with asyncio.timeout(None) as deadline:
                watchdog = Watchdog(
                    deadline,
                    tracker,
                    payload,
                    stall_timeout_s=self.options.stall_timeout_s,
                    answer_timeout_s=self.options.answer_timeout_s,
                )
                async with self._session.request(
                    method,
                    URL(url, encoded=True),
                    data=payload,
                    headers=authorized.headers,
                    proxy=self.options.proxy,
                    proxy_headers=told_proxy,
                    allow_redirects=False,
                    upload_tracker=tracker,
                ) as response:
                    answer = await _read_answer(response, watchdog, limit)
                    refused_at = response.headers.get("Date")
                    if payload is not None and not payload.complete:
                        response.close()  # or aiohttp would go on writing the body
        except _TooLong:
            return NoAnswer("answer_too_long", f"more than {limit >> 10} KiB")
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if watchdog is not None:
                watchdog.stop()  # its deadline is over, and what follows takes a while
            said = None if payload is None else payload.last_words()
            if said is None:
                expired = None if watchdog is None else watchdog.expired
                return await self._without_answer(error, payload, expired)
            answer = _answer(said.status, said.headers, said.body)
            refused_at = said.headers.get("Date")
        finally:
            if payload is not None:
                payload.stop_listening()
            if watchdog is not None:
                watchdog.stop()
        self._heard(payload)
        if answer.status == PROXY_AUTHENTICATION_REQUIRED and self._proxy_reads_all:
            if payload is not None:
                payload.body.bytes_out = 0
            return NoAnswer("no_proxy", f"HTTP {answer.status}")
        answer = answer._replace(body=authorized.hide_in(answer.body))
        if answer.meant_status in UNAUTHORIZED:
            if payload is not None:
                payload.body.bytes_out = 0  # it was refused: however long we wait now, no doubt
                self._settle(payload)  # meanwhile its connection is another's
            mended = await self._authorizer.refused(authorized, answer, refused_at)
            sent = "Authorization" in authorized.headers
            tunnelled = self.options.proxy is not None and not self._proxy_reads_all
            return answer._replace(mended=mended, credentials_sent=sent, tunnelled=tunnelled)
        if answer.status < 300 or answer.status == CONFLICT:
            self._authorizer.accepted(authorized)
        return answer

    def _heard(self, payload: BodyPayload | None) -> None:
        self._refusals.heard()
        if payload is not None and payload.local_address not in self._answered:
            self._answered.append(payload.local_address)

    async def _without_answer(
        self, error: Exception, payload: BodyPayload | None, expired: str | None
    ) -> NoAnswer:
        sent = payload is not None and payload.handed_over > 0
        proxied = self.options.proxy is not None
        no_answer = no_answer_of(error, sent=sent, expired=expired, proxied=proxied)
        if getattr(error, "errno", None) == errno.ECONNREFUSED:
            self._refusals.nobody_there()
        before = payload is not None and payload.local_address in self._answered
        no_answer = await self._refusals.explain(no_answer, answered_before=before)
        if payload is not None and not no_answer.maybe_stored:
            payload.body.bytes_out = 0
        return no_answer


class _TooLong(Exception):  # noqa: N818 - caught above
    pass


async def _read_answer(response: aiohttp.ClientResponse, watchdog: Watchdog, limit: int) -> Answer:
    watchdog.answer = response
    body = bytearray()
    async for piece in response.content.iter_any():
        watchdog.answer_progress()
        body += piece
        if len(body) > limit:
            response.close()
            raise _TooLong
    return _answer(response.status, response.headers, bytes(body))


def _answer(status: int, headers: Mapping[str, str] | Message, body: bytes) -> Answer:
    request_id = next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), "")
    shown = "".join(c for c in request_id[:200] if c.isascii() and c.isprintable())
    error_type = error_type_of(headers.get("x-amzn-ErrorType"), body) if status >= 400 else ""
    return Answer(status, body, headers.get("Retry-After"), shown, error_type=error_type)

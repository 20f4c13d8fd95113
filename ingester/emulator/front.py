"""The front door: every request is counted, weighed, let in by its signature, and answered."""

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from aiohttp import web

from ingester.emulator.answers import Refusal, refuse
from ingester.emulator.body import BODY, Body
from ingester.emulator.canonical import Head
from ingester.emulator.sigv4 import EMPTY_SHA256, Verifier
from ingester.emulator.throttle import Throttle

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """The middleware around every handler.

    Args:
        verifier: None lets everybody in.
        throttle: None has no limit.
        body_limit_bytes: The least size of a body that is refused.
        latency_s: Every answer is held back this long, after the work is done.
        clock: Seconds since the epoch, for the Date of the answers.
    """

    def __init__(
        self,
        *,
        verifier: Verifier | None,
        throttle: Throttle | None,
        body_limit_bytes: int,
        latency_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.requests = 0  # that arrived, whatever became of them
        self._verifier = verifier
        self._throttle = throttle
        self._body_limit_bytes = body_limit_bytes
        self._latency_s = latency_s
        self._clock = clock

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer one request; every error becomes an answer, too."""
        self.requests += 1
        request_id = str(uuid.uuid4())
        answer = await self._answer(request, handler)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if not answer.prepared:
            answer.headers["x-amzn-RequestId"] = request_id
            answer.headers["Date"] = formatdate(self._clock(), usegmt=True)
            if "Expect" in request.headers and not self._is_body_begun(request):
                answer.force_close()  # nobody knows whether the body will come
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if self._throttle is not None:
                self._throttle.take()
            self._let_in(request)
            return await handler(request)
        except Refusal as error:
            return refuse(error.status, error.message, error.headers, error.kind)
        except web.HTTPException as error:
            allow = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return refuse(error.status, error.reason, allow)
        except ConnectionError:
            _LOG.info("a client went away in the middle of a request")
            return refuse(400, "the connection broke off")  # nobody hears it
        except Exception as error:  # noqa: BLE001 - a server answers 500 to what it did not foresee
            _LOG.error(
                "%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            return refuse(500, "see the log of the emulator")

    def _let_in(self, request: web.Request) -> None:
        claim = None
        if self._verifier is not None:
            headers = request.headers.items()
            claim = self._verifier.open(Head.of(request.method, request.raw_path, headers))
        if request.method not in ("GET", "HEAD"):
            request[BODY] = Body(request, self._body_limit_bytes, claim)
        elif claim is not None:
            claim.prove(request.headers.get("x-amz-content-sha256", EMPTY_SHA256))

    def _is_body_begun(self, request: web.Request) -> bool:
        body = request.get(BODY)
        return body is not None and body.is_begun

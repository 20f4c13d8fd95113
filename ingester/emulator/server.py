"""The emulator as a server: what is mounted where, how it starts and how it ends.

``http://{host}:{port}/datastore/{datastore}`` is the base URL, as with HealthImaging. There is no
authentication: it is for the loopback interface.
"""

import asyncio
import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import web

from ingester.emulator.answers import Refusal, refuse
from ingester.emulator.qido import QidoService
from ingester.emulator.store import Store
from ingester.emulator.stow import StowService
from ingester.emulator.wado import WadoService

_LOG = logging.getLogger(__name__)

_DATASTORE = re.compile(r"[0-9a-z]{32}")

# A piece of a body as the socket gives it: several small parts, or a good write of a large one.
_READ_BUFFER_BYTES = 1 << 18

# Requests under way at the end get this long; then they are cut, as by a crash.
_SHUTDOWN_S = 2.0


def _without_text(record: logging.LogRecord) -> bool:
    """Keep what aiohttp says of broken HTTP, but not the bytes it quotes: they may be a file's."""
    if record.exc_info and record.exc_info[0] is not None:
        record.msg = f"{record.getMessage()}: {record.exc_info[0].__name__}"
        record.args = ()
        record.exc_info = None
    return True


_HTTP_LOG = logging.getLogger("ingester.emulator.http")
_HTTP_LOG.addFilter(_without_text)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Emulator:
    """A DICOMweb store on a socket, for as long as the async context lasts.

    Args:
        store: Directory of the instances; one that was used before is found as it was left.
        host: Address to listen on.
        port: 0 takes a free one.
        datastore: Datastore id, 32 characters of [0-9a-z]; by default the one the store directory
            had last time, or a new one.
        latency_s: Every answer is held back this long, after the work is done.

    Raises:
        ValueError: The datastore id has another form.
        OSError: On entering: the port is taken, the directory cannot be written.
        sqlite3.OperationalError: On entering: another emulator has the store directory open.
    """

    def __init__(
        self,
        *,
        store: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 0,
        datastore: str | None = None,
        latency_s: float = 0.0,
    ) -> None:
        if datastore is not None and not _DATASTORE.fullmatch(datastore):
            raise ValueError("a datastore id is 32 characters of [0-9a-z]")
        self.requests = 0  # that arrived, whatever became of them
        self.datastore = datastore or ""  # known once entered
        self.url = ""  # known once entered: scheme, host and port
        self._store = Store(store)
        self._host = host
        self._port = port
        self._latency_s = latency_s
        self._stack = AsyncExitStack()

    @property
    def base_url(self) -> str:
        """What ``/studies`` is appended to."""
        return f"{self.url}/datastore/{self.datastore}"

    def ready_line(self) -> dict[str, str]:
        """What a caller in another process must know, for one line of JSON."""
        return {"url": self.url, "datastore": self.datastore}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._store)
            self.datastore = await store.datastore(self.datastore or None)
            runner = web.AppRunner(
                self._application(),
                access_log=None,  # it would have UIDs
                logger=_HTTP_LOG,
                handle_signals=False,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                shutdown_timeout=_SHUTDOWN_S,
            )
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer])
        base = f"/datastore/{self.datastore}"
        study = "/studies/{StudyInstanceUID}"
        series = study + "/series/{SeriesInstanceUID}"
        stow, qido, wado = (
            StowService(self._store),
            QidoService(self._store),
            WadoService(self._store),
        )
        routes: list[tuple[str, str, _Handler]] = [
            ("POST", "/studies", stow.store_instances),
            ("POST", study, stow.store_instances),
            ("GET", "/studies", qido.search("study")),
            ("GET", "/series", qido.search("series")),
            ("GET", "/instances", qido.search("instance")),
            ("GET", study + "/series", qido.search("series")),
            ("GET", study + "/instances", qido.search("instance")),
            ("GET", series + "/instances", qido.search("instance")),
            ("GET", series + "/instances/{SOPInstanceUID}", wado.retrieve_instance),
        ]
        for method, path, handler in routes:
            application.router.add_route(method, base + path, handler)
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every request passes here: it is counted, and every error becomes an answer."""
        self.requests += 1
        try:
            answer = await handler(request)
        except Refusal as error:
            answer = refuse(error.status, error.message)
        except web.HTTPException as error:
            allow = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            answer = refuse(error.status, error.reason, allow)
        except ConnectionError:
            _LOG.info("a client went away in the middle of a request")
            answer = refuse(400, "the connection broke off")  # nobody hears it
        except Exception as error:  # noqa: BLE001 - a server answers 500 to what it did not foresee
            _LOG.error(
                "%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            answer = refuse(500, "see the log of the emulator")
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return answer

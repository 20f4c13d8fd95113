"""The emulator as a server: what is mounted where, how it starts and how it ends.

``{scheme}://{host}:{port}/datastore/{datastore}`` is the base URL, as with HealthImaging. It is
for the loopback interface: whoever may connect may fill the disk.
"""

import logging
import math
import os
import re
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import web

from ingester.emulator.body import BODY_LIMIT_BYTES, continue_later
from ingester.emulator.credentials import Credentials
from ingester.emulator.front import Front, Handler
from ingester.emulator.metadata import MetadataService
from ingester.emulator.payload import ALL_MODES, PayloadMode
from ingester.emulator.qido import QidoService
from ingester.emulator.search_image_sets import SearchImageSetsService
from ingester.emulator.sigv4 import Verifier
from ingester.emulator.store import Store
from ingester.emulator.stow import StowService
from ingester.emulator.throttle import Throttle
from ingester.emulator.wado import WadoService

_DATASTORE = re.compile(r"[0-9a-z]{32}")
_REGION = re.compile(r"[0-9a-z-]+")

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


class Emulator:
    """A DICOMweb store on a socket, for as long as the async context lasts.

    Args:
        store: Directory of the instances; one that was used before is found as it was left.
        host: Address to listen on.
        port: 0 takes a free one.
        datastore: Datastore id, 32 characters of [0-9a-z]; by default the one the store directory
            had last time, or a new one.
        latency_s: Every answer is held back this long, after the work is done.
        credentials: What every request must be signed with; by default nobody is asked.
        region: The region in the scope of a signature.
        payload_modes: The ways of vouching for a body that STOW-RS accepts.
        tls: Serve HTTPS with a certificate of its own; needs the package cryptography.
        max_rps: Requests a second, more are answered 429 and 503 by turns; None: no limit.
        wado_rps: The same for WADO-RS alone, with a burst of twice as many; HealthImaging has 50.
        body_limit_bytes: The least size of a body that is refused.
        clock: Seconds since the epoch: what signatures are judged by, and the Date of answers.

    Raises:
        ValueError: An argument has another form.
        ModuleNotFoundError: On entering: there is no cryptography, and ``tls`` was asked for.
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
        credentials: Credentials | None = None,
        region: str = "us-east-1",
        payload_modes: frozenset[PayloadMode] = ALL_MODES,
        tls: bool = False,
        max_rps: float | None = None,
        wado_rps: float | None = None,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if datastore is not None and not _DATASTORE.fullmatch(datastore):
            raise ValueError("a datastore id is 32 characters of [0-9a-z]")
        if not _REGION.fullmatch(region):
            raise ValueError("a region is characters of [0-9a-z-]")
        if not (latency_s >= 0 and math.isfinite(latency_s)):
            raise ValueError("a latency is 0 or more")
        self.datastore = datastore or ""  # known once entered
        self.url = ""  # known once entered: scheme, host and port
        self.ca: str | None = None  # known once entered, with TLS: path of the CA certificate, PEM
        self.region = region
        self._verifier = None if credentials is None else Verifier(region, credentials, clock)
        self._front = Front(
            verifier=self._verifier,
            throttle=None if max_rps is None else Throttle(max_rps),
            body_limit_bytes=body_limit_bytes,
            latency_s=latency_s,
            clock=clock,
        )
        self._wado_throttle = None if wado_rps is None else Throttle(wado_rps, 2 * wado_rps)
        self._store = Store(store)
        self._payload_modes = payload_modes
        self._host = host
        self._port = port
        self._tls = tls
        self._stack = AsyncExitStack()

    @property
    def base_url(self) -> str:
        """What ``/studies`` is appended to."""
        return f"{self.url}/datastore/{self.datastore}"

    @property
    def requests(self) -> int:
        """How many requests arrived, whatever became of them."""
        return self._front.requests

    @property
    def credentials(self) -> Credentials | None:
        """What requests must be signed with at the moment; None if nobody is asked."""
        return None if self._verifier is None else self._verifier.credentials

    def replace_credentials(self, credentials: Credentials) -> None:
        """Ask for others from now on; those until now have expired.

        Raises:
            ValueError: Nobody is asked for credentials here.
        """
        if self._verifier is None:
            raise ValueError("this emulator asks nobody for credentials")
        self._verifier.replace(credentials)

    def ready_line(self) -> dict[str, str | None]:
        """What a caller in another process must know, for one line of JSON: the keys, too."""
        known = self.credentials
        return {
            "url": self.url,
            "datastore": self.datastore,
            "region": self.region,
            "access_key": None if known is None else known.access_key,
            "secret_key": None if known is None else known.secret_key,
            "session_token": None if known is None else known.session_token,
            "ca": self.ca,
        }

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._store)
            self.datastore = await store.datastore(self.datastore or None)
            context = self._server_context(stack) if self._tls else None
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
            await web.TCPSite(runner, self._host, self._port, ssl_context=context).start()
            host, port = runner.addresses[0][:2]
            scheme = "http" if context is None else "https"
            self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _server_context(self, stack: AsyncExitStack) -> ssl.SSLContext:
        from ingester.emulator.certificates import make_server_context  # noqa: PLC0415 - for TLS

        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ingester-emulator-"))
        context, self.ca = make_server_context(directory, self._host)
        return context

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._front.answer])
        base = f"/datastore/{self.datastore}"
        study = "/studies/{StudyInstanceUID}"
        series = study + "/series/{SeriesInstanceUID}"
        instance = series + "/instances/{SOPInstanceUID}"
        stow = StowService(self._store, self._payload_modes)
        qido = QidoService(self._store)
        wado = WadoService(self._store, self._wado_throttle)
        metadata = MetadataService(self._store, self._wado_throttle)
        control = SearchImageSetsService(self._store)
        routes: list[tuple[str, str, Handler]] = [
            ("POST", "/studies", stow.store_instances),
            ("POST", study, stow.store_instances),
            ("POST", "/searchImageSets", control.search),
            ("GET", "/studies", qido.search("study")),
            ("GET", "/series", qido.search("series")),
            ("GET", "/instances", qido.search("instance")),
            ("GET", study + "/series", qido.search("series")),
            ("GET", study + "/instances", qido.search("instance")),
            ("GET", series + "/instances", qido.search("instance")),
            ("GET", instance, wado.retrieve_instance),
            ("GET", instance + "/metadata", metadata.retrieve),
            ("GET", series + "/metadata", metadata.retrieve),
        ]
        for method, path, handler in routes:
            application.router.add_route(
                method, base + path, handler, expect_handler=continue_later
            )
        return application

"""A real Orthanc with the DICOMweb plugin: a subprocess with a directory of its own."""

import base64
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypedDict

_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)
_START_TIMEOUT_S = 60.0
_ATTEMPTS = 5


class Answer(NamedTuple):
    """What Orthanc answered; the names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class StoredInstance(NamedTuple):
    """One instance; Orthanc's identity is Patient, Study, Series and SOP together."""

    id: str  # Orthanc's own: several can share one SOP Instance UID
    study: str
    series: str
    sop: str


class _Resource(TypedDict):
    """A study, series or instance as the REST API lists it; only its own parent is there."""

    ID: str
    MainDicomTags: dict[str, str]
    ParentStudy: str
    ParentSeries: str


def find_orthanc() -> Path | None:
    """Gives the program, or None when it or its DICOMweb plugin is not installed."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return Path(program) if program and _plugin() else None


def _plugin() -> Path | None:
    return next((path for path in _PLUGINS if path.exists()), None)


class Orthanc:
    """Runs from entering to leaving the `with` block, and is killed by its own pid.

    Args:
        directory: for configuration, storage, index and log; made if it is not there.
        users: basic authentication is asked for when given: passwords by name.
    """

    def __init__(self, directory: Path, users: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.users = dict(users or {})
        self.port = 0
        self._held_port: socket.socket | None = None
        self._name = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The root of the REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb_url(self) -> str:
        """Where the DICOMweb services begin: STOW-RS is at `dicomweb_url` + `/studies`."""
        return f"{self.url}/dicom-web"

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("Orthanc is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Says whether the process is alive; a SIGSEGV ends it, too."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            self.port = free_port()
            try:
                self._start()
            except OSError:
                self.kill()
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return self
        raise AssertionError("not reached")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._let_go_of_port()

    def kill(self) -> None:
        """Kills it with SIGKILL and waits for its end. Nobody else can get its port meanwhile."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._let_go_of_port()
            self._held_port = held = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # it was somebody else's: then it did not start
                held.bind(("127.0.0.1", self.port))

    def restart(self) -> None:
        """Kills it if it runs, and starts it again on the same port with what it has stored."""
        self.kill()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self._start()
            except OSError:
                self.kill()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request on a new connection, with the first user's password."""
        sent = dict(headers or {})
        for name, password in list(self.users.items())[:1]:
            token = base64.b64encode(f"{name}:{password}".encode()).decode()
            sent.setdefault("Authorization", f"Basic {token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def instances(self) -> list[StoredInstance]:
        """Lists everything it has, by its REST API; also while it is storing."""
        # Children first: those of what is stored meanwhile have no parent in an older list.
        all_instances = self._list("/instances?expand")
        all_series = self._list("/series?expand")
        studies = {
            item["ID"]: item["MainDicomTags"]["StudyInstanceUID"]
            for item in self._list("/studies?expand")
        }
        series = {
            item["ID"]: (
                studies[item["ParentStudy"]],
                item["MainDicomTags"]["SeriesInstanceUID"],
            )
            for item in all_series
        }
        return [
            StoredInstance(
                item["ID"], *series[item["ParentSeries"]], item["MainDicomTags"]["SOPInstanceUID"]
            )
            for item in all_instances
        ]

    def sop_instance_uids(self) -> set[str]:
        """The SOP Instance UIDs of everything it has."""
        return {item["MainDicomTags"]["SOPInstanceUID"] for item in self._list("/instances?expand")}

    def instance_files(self, sop: str) -> list[bytes]:
        """The files it has under a SOP Instance UID; none, one or several."""
        answer = self.request("POST", "/tools/lookup", sop.encode())
        ids = [item["ID"] for item in json.loads(answer.body) if item["Type"] == "Instance"]
        return [self.request("GET", f"/instances/{id_}/file").body for id_ in ids]

    def instance_bytes(self, sop: str) -> bytes:
        """The one file it has under a SOP Instance UID.

        Raises:
            LookupError: it has none, or several.
        """
        files = self.instance_files(sop)
        if len(files) != 1:
            raise LookupError(f"{len(files)} instances, not one: {sop}")
        return files[0]

    def log(self) -> str:
        """What it has written to stdout and stderr since its last start."""
        return (self.directory / "orthanc.log").read_text(errors="replace")

    def _list(self, path: str) -> list[_Resource]:
        answer = self.request("GET", path)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"GET {path}: {answer.status}")
        resources: list[_Resource] = json.loads(answer.body)
        return resources

    def _start(self) -> None:
        """Starts the process and waits until it answers.

        Raises:
            OSError: it ended, somebody else has the port, or it did not answer in time.
        """
        program = find_orthanc()
        if program is None:
            raise RuntimeError("Orthanc with its DICOMweb plugin is not installed")
        config = self.directory / "orthanc.json"
        config.write_text(json.dumps(self._configuration(), indent=2))
        self._let_go_of_port()
        with (self.directory / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, config],
                cwd=self.directory,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise OSError(f"Orthanc does not start: {self.log()[-2000:]}")
            time.sleep(0.01)

    def _let_go_of_port(self) -> None:
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None

    def _answers(self) -> bool:
        """Connects, and makes sure that it is this Orthanc that answers on the port."""
        try:
            answer = self.request("GET", "/system")
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == http.HTTPStatus.OK and self._name in answer.body.decode()

    def _configuration(self) -> dict[str, object]:
        return {
            "Name": self._name,
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "index"),
            "Plugins": [str(_plugin())],
            "HttpPort": self.port,
            "HttpThreadsCount": 20,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(self.users),
            "RegisteredUsers": self.users,
            "DicomServerEnabled": False,
            "SyncStorageArea": False,
            "SaveJobs": False,
            "StableAge": 1,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }


def free_port() -> int:
    """One that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

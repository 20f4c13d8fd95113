"""Who ingester is measured against: curl as the wire's ceiling, dicomweb-client, a bare sender.

curl reads no headers, groups nothing, signs nothing and records nothing: it streams ready-made
bodies from the disk (`--upload-file`; `--data-binary` would load them first). dicomweb-client runs
in a Python of its own, by `dicomweb_client_rival.py`. `bare_sender.py` is what the project's own
libraries reach at most.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.bodies import CONTENT_TYPE, make_bodies
from benchmarks.environment import ROOT
from benchmarks.subjects import Place
from ingester.bench.corpora import Corpus
from ingester.bench.environment import environment
from ingester.bench.measure import Job
from ingester.bench.processes import PYTHON, same_package

BODY_BYTES: Final = 32 * 1024 * 1024
DICOMWEB_CLIENT: Final = "0.61"
_PARALLEL: Final = 8


def curl_version() -> str:
    """The version of the installed curl.

    Raises:
        ValueError: there is none.
    """
    try:
        done = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError("the rows against curl need curl: install it") from error
    return done.stdout.split()[1]


def dicomweb_client_version(python: str | None) -> str:
    """The version of dicomweb-client that a Python has.

    Raises:
        ValueError: there is none, or another one than the rows are about.
    """
    hint = (
        "the rows against dicomweb-client need --dicomweb-client-python PATH, the Python of a "
        f"virtual environment of its own with dicomweb-client=={DICOMWEB_CLIENT}.* installed; "
        "or choose other rows with --row"
    )
    if python is None:
        raise ValueError(hint)
    code = "import importlib.metadata as m; print(m.version('dicomweb-client'))"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True, env=environment()
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{hint}: none at {python}") from error
    version = done.stdout.strip()
    if not version.startswith(f"{DICOMWEB_CLIENT}."):
        raise ValueError(f"{hint}: found {version}")
    return version


@dataclass(frozen=True, slots=True)
class Curl:
    """curl with eight transfers at a time, each a body of one study."""

    name: str
    tls: bool
    max_bytes: int = BODY_BYTES  # of files in a body
    max_instances: int = 1_000_000
    rounds: int = 1  # how often all bodies are sent

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The bodies."""
        return make_bodies(
            corpus, files, max_bytes=self.max_bytes, max_instances=self.max_instances
        )

    def job(self, place: Place) -> Job:
        """The command, with a configuration file that names each transfer."""
        bodies = [*self.reads(place.corpus, place.files)] * self.rounds
        # --request because --upload-file alone is a PUT; without Expect, as ingester sends it
        lines = [
            *("silent", "show-error", "parallel", f"parallel-max = {_PARALLEL}"),
            *('request = "POST"', 'header = "Expect:"'),
            "header = " + _quoted(f"Content-Type: {CONTENT_TYPE}"),
            r'write-out = "%{http_code}\n"',
        ]
        if place.ca is not None:
            lines.append(f"cacert = {_quoted(place.ca)}")
        for body in bodies:
            lines.append(f'url = "{place.url}/studies"')
            lines += [f"upload-file = {_quoted(body)}", f'output = "{os.devnull}"']
        config = os.path.join(place.directory, "curl.config")
        with open(config, "w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
        corpus = place.corpus
        return Job(
            command=("curl", "-q", "--config", config),
            files=corpus.files * self.rounds,
            distinct=corpus.files,
            content_bytes=corpus.bytes * self.rounds,
            claims={"answers": {"200": len(bodies)}},
            summary=_answers,
        )


def _quoted(text: str) -> str:
    """A value in curl's configuration."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _answers(stdout: bytes) -> dict[str, Any] | None:
    """How often curl had each status."""
    statuses = stdout.decode("ascii", "replace").split()
    return {"answers": {status: statuses.count(status) for status in sorted(set(statuses))}}


@dataclass(frozen=True, slots=True)
class DicomwebClient:
    """dicomweb-client in eight processes, one study a request."""

    name: str
    tls: bool
    python: str

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself."""
        return corpus.paths(files)

    def job(self, place: Place) -> Job:
        """The command."""
        script = os.path.join(ROOT, "benchmarks", "dicomweb_client_rival.py")
        corpus = place.corpus
        return Job(
            command=(self.python, script, place.files, place.url, place.ca or "", str(_PARALLEL)),
            files=corpus.files,
            distinct=corpus.files,
            content_bytes=corpus.bytes,
            claims={"files": corpus.files, "outcomes": {"stored": corpus.files}},
        )


@dataclass(frozen=True, slots=True)
class Bare:
    """The least that sends with aiohttp, uvloop and OpenSSL, see `bare_sender`."""

    name: str
    tls: bool
    digest: bool = True

    def reads(self, corpus: Corpus, files: str) -> Iterable[str]:
        """The corpus itself."""
        return corpus.paths(files)

    def job(self, place: Place) -> Job:
        """The command."""
        corpus, digest = place.corpus, "sha256" if self.digest else "none"
        return Job(
            command=(
                *(*PYTHON, "benchmarks.bare_sender"),
                *(place.files, place.url, place.ca or "", digest),
            ),
            environment={**environment(), **same_package()},
            files=corpus.files,
            distinct=corpus.files,
            content_bytes=corpus.bytes,
            claims={"files": corpus.files, "outcomes": {"stored": corpus.files}},
        )


BARE: Final = Bare("bare-tls", tls=True)
BARE_NONE: Final = Bare("bare-tls-none", tls=True, digest=False)
BARE_PLAIN: Final = Bare("bare", tls=False)

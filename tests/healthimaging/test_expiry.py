"""A request refused for its keys costs no file, whatever else succeeds meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from ingester.config import load_config
from ingester.pipeline import ingest
from ingester.report.summary import RunSummary
from ingester.sources import Source
from tests.healthimaging.emulated import REGION
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.scripted import Answer, Choose, Request, ScriptedServer, Step, StoreAll, Wait
from tests.support.stow import files_of, read_instance


class Keys(NamedTuple):
    """Keys as botocore gives them."""

    access_key: str
    secret_key: str = "secret"
    token: str | None = "token"

    def get_frozen_credentials(self) -> Keys:
        """These."""
        return self


@dataclass
class Rotating:
    """A source that has other keys each time it is gone through anew."""

    asked: int = 0

    def __call__(self) -> Keys:
        """The next ones."""
        self.asked += 1
        return Keys(f"KEY{self.asked}")


@dataclass
class ByFile:
    """What the server does with each file, which are sent alone, in the order of its requests."""

    steps: dict[str, list[Step]]
    seen: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Step:
        """The next step of the file of this request."""
        (file,) = files_of(request.headers["content-type"], request.body)
        sop = read_instance(file).sop
        self.seen.append(sop)
        steps = self.steps.get(sop, [])
        return steps.pop(0) if steps else StoreAll()


@dataclass(frozen=True, slots=True)
class Then:
    """Says that a request is here, then goes on with a step."""

    here: threading.Event
    step: Step

    def play(self, exchange: object) -> None:
        """Says so."""
        self.here.set()
        self.step.play(exchange)  # type: ignore[arg-type]  # handed on as it is


async def load(
    archive: Corpus,
    server: ScriptedServer,
    directory: Path,
    source: Callable[[], Keys],
    **more: object,
) -> RunSummary:
    """A request a file, two at a time."""
    flags = {
        "url": server.url, "server": "healthimaging", "auth": "sigv4", "region": REGION,
        "journal": str(directory / "journal.db"), "max_concurrency": 2, "readers": 1,
        "backoff_base_s": 0.01, "max_batch_instances": 1, **more,
    }  # fmt: skip
    sources = [Source(os.fsencode(archive.root))]
    return await ingest(load_config(flags, {}), sources, resolve=source)


@pytest.fixture
def two(tmp_path: Path) -> Corpus:
    """Two studies of one file."""
    return write_corpus(tmp_path / "two", 2, 1, seed=11)


class TestKeysThatExpireDuringARun:
    async def test_reject_no_file_though_one_let_in_before_succeeds(
        self, two: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        """A large body may be let in by keys that have expired when it is answered."""
        refused, let_in = sorted(two.sop_instance_uids)
        again, answered = threading.Event(), threading.Event()
        both = threading.Event()
        late = Then(again, Wait(answered, Answer(403)))
        by_file = ByFile(
            {
                refused: [Wait(both, Answer(403)), late],
                let_in: [Then(both, Wait(again)), Answer(403)],  # when it is sent to see
            }
        )
        server.default = Choose(by_file)
        server.after_answer(lambda n: answered.set() if n == 2 else None)
        summary = await load(two, server, directory, lambda: Keys("KEY"))
        found = {name: count for name, count in summary.outcomes.items() if count}
        assert by_file.seen.count(refused) >= 2
        assert (summary.exit_code, found) == (1, {"stored": 1, "pending": 1})

    async def test_heal_however_often_they_do(
        self, two: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        """Twice while one request is tried: a retry of another kind lies between."""
        refused, other = sorted(two.sop_instance_uids)
        answered = threading.Event()
        last = Wait(answered, Answer(403))
        server.default = Choose(
            ByFile({refused: [Answer(403), Answer(500), last], other: [Wait(0.1)]})
        )
        server.after_answer(lambda n: answered.set() if n >= 3 else None)
        source = Rotating()
        summary = await load(two, server, directory, source)
        assert source.asked == 3
        assert (summary.exit_code, summary.outcomes["stored"]) == (0, 2)

    async def test_are_asked_for_once_more_where_a_stored_file_is_refused_too(
        self, two: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        """Permission is gone. A role gives other keys each time: no sign that it comes back."""
        server.push(StoreAll())
        server.default = Answer(403)
        began = time.monotonic()
        summary = await load(two, server, directory, Rotating(), max_outage_s=20.0)
        assert (summary.exit_code, summary.outcomes["pending"]) == (1, 1)
        assert time.monotonic() - began < 10

"""A server, an archive and options that are anything at random, by one seed.

The same seed gives the same archive, options and kinds of faults. Which request meets which fault
depends on the order in which they come, so a seed that fails may have to be tried a few times.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.pipeline.job import Job, age
from tests.support.scripted import (
    Answer,
    Choose,
    CloseAfter,
    FindStored,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
)

NAMES_NOTHING = b'{"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}'
PROCESSING_FAILURE = 0x0110
FAILURES = (PROCESSING_FAILURE, 0xA700, 0xC122, 0xC000)


@dataclass(slots=True)
class World:
    """``unrest``: 0 is a server without faults, 1 one that never does what it should."""

    seed: int
    server: ScriptedServer
    directory: Path
    unrest: float = 0.0
    edits: bool = False
    until_stopped: int | None = None  # requests until one ends the run
    random: Random = field(init=False)
    kind: str = field(init=False)  # the option --server
    refuses_second: bool = field(init=False)
    job: Job = field(init=False)
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.random = random = Random(f"chance {self.seed}")
        self.kind = random.choice(["generic", "orthanc", "healthimaging"])
        self.refuses_second = self.kind == "generic" and random.random() < 0.6
        self.job = Job(self.directory, self.server)
        self.names = [self._write(number) for number in range(random.randint(3, 25))]
        self.server.default = Choose(self._post)
        self.server.default_get = Choose(self._get)
        self.server.before_answer(self._edit)

    def _write(self, number: int) -> str:
        """One file in two may have the UIDs of another, and the same bytes or others."""
        random = self.random
        study = random.randrange(3)
        sop = random.randrange(8) if random.random() < 0.5 else f"own {number}"
        name = f"{random.choice('abcdefgh')}/{number:03d}.dcm"
        self.job.write(
            name,
            study=study,
            sop=(study, sop),
            seed=random.randrange(2),
            payload_bytes=random.choice([100, 300, 200_000]),
        )
        return name

    def options(self) -> dict[str, object]:
        """Of one run, before which directories look as if they had not been changed for long."""
        random = self.random
        for directory in self.job.archive.iterdir():
            if time.time() - directory.stat().st_mtime < 3600:  # else it must not look changed
                age(directory)
        stopped = self.unrest and random.random() < 0.5
        self.until_stopped = random.randint(1, 8) if stopped else None
        return {
            "server": self.kind,
            "max_outage_s": 0.3,
            "backoff_base_s": 0.005,
            "backoff_cap_s": 0.02,
            "max_resend": "100%",
            "max_concurrency": random.choice([1, 3, 8]),
            "readers": random.choice([1, 3]),
            "batch_age_s": random.choice([0.01, 60]),
            "max_batch_instances": random.choice([1, 3, 100]),
            "max_attempts": random.choice([1, 2, 6]),
            "inline_limit": random.choice(["1", "1000000"]),
            "checksums": random.choice(["sha256", "sha256", "none"]),
            "scan_processes": random.choice([0, 0, 1]),
            "memory_budget": random.choice(["20000", "300000", "96MiB"]),
        }

    def _post(self, _request: Request) -> Step:
        random = self.random
        if self.until_stopped is not None:
            self.until_stopped -= 1
            if self.until_stopped <= 0:
                return Answer(302, {"Location": "http://127.0.0.1:9/"})
        if random.random() >= self.unrest:
            return StoreAll(failures=self._refusal)
        faults: list[Callable[[], Step]] = [
            lambda: Answer(random.choice([400, 409, 413, 422]), {}, b"no"),
            lambda: Answer(random.choice([429, 500, 502, 503, 504])),
            lambda: Answer(200, {}, NAMES_NOTHING),
            lambda: Reset(None),
            lambda: CloseAfter(random.randrange(3000)),
            lambda: StoreThenDrop(store=StoreAll(failures=self._failure)),
            lambda: StoreThenDrop(store=StoreAll(failures=self._failure, only=self._some)),
            lambda: StoreAll(failures=self._failure, named=self._some),
            lambda: StoreAll(failures=self._failure, only=self._some),
            lambda: StoreAll(failures=self._failure, status=random.choice([200, 202, 400, 500])),
        ]
        return random.choice(faults)()

    def _some(self, _uid: str) -> bool:
        return self.random.random() < 0.5

    def _refusal(self, uid: str) -> int | None:
        """What this kind of server refuses at all times."""
        return PROCESSING_FAILURE if self.refuses_second and uid in self.server.stored else None

    def _failure(self, uid: str) -> int | None:
        if self.random.random() < 0.15 * self.unrest:
            return self.random.choice(FAILURES)
        return self._refusal(uid)

    def _get(self, _request: Request) -> Step:
        # Never an empty list: of a store that denies what it has nobody can tell the truth.
        if self.random.random() < self.unrest / 2:
            return Answer(self.random.choice([404, 503]))
        return FindStored()

    def _edit(self, _number: int) -> None:
        """While a request waits for its answer a file may vanish, be renamed, or change."""
        random = self.random
        if not self.edits or random.random() >= 0.15:
            return
        path = self.job.archive / random.choice(self.names)
        what = random.randrange(3)
        if not path.exists():
            return
        if what == 0:
            path.unlink(missing_ok=True)
        elif what == 1:
            path.replace(path.with_name(f"moved {path.name}"))
        else:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            age(path, random.randrange(1, 1000))

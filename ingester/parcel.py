"""What an upload worker carries: some instances of a study, and what became of them so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingester.dicomweb.multipart import multipart_framing, new_boundary, single_framing
from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.dicomweb.profiles import ServerProfile
from ingester.items import Instance, Result
from ingester.readers import Readers
from ingester.transport.actions import GiveUp, Split
from ingester.transport.body import Body
from ingester.transport.reply import Answer

WORDS_CHARACTERS = 500

Verdict = Split | GiveUp
"""What a refusal leads to, once it may be taken at its word."""


@dataclass(slots=True, eq=False)
class Parcel:
    """The instances of one request. A retry keeps the body as it is, a split makes new parcels."""

    study_instance_uid: str
    instances: tuple[Instance, ...]
    body: Body
    batch_id: int  # of the batch that it is or was split from
    attempts: int = 0
    doubts: int = 0  # attempts after which it may have been stored
    failed_probes: int = 0  # times it was the probe of a server that was away, and not taken
    after_known_good: bool = False  # a stored file was taken right before its last attempt
    deaths: int = 0  # of these, times the server was well right before
    auth_refusals: int = 0
    earlier_attempts: int = 0  # of the parcels it was split from
    ever_in_doubt: bool = False  # it, or one it was split from, may have been stored
    unconfirmed: bool = False  # an earlier 2xx did not name it: it may be there
    given_for_lost: bool = False  # a 503 that names no time: whoever said so may have lost a server
    unasked: bool = False  # the store did not say what it has of it since it was last in doubt
    asked_again: bool = False  # the server did not confirm it once before
    successes_before: int = 0  # of all requests, when its first attempt began
    successes_at_outage: int | None = None  # when it last was why the server is said to be away
    successes_when_sent: int = 0  # when its last one began
    sent: int = 0  # the number of its last attempt among all
    refused_at: int = 0  # the number of the last attempt of any when its keys were first refused
    verdict: Verdict | None = None  # of a refusal that waits for another request's success
    last_answer: Answer | None = None
    refusal: Answer | None = None  # of its last attempt, where that named none of its files
    started: float = field(default_factory=time.monotonic)

    @property
    def single(self) -> bool:
        """Whether it is one file."""
        return len(self.instances) == 1

    @property
    def may_be_stored(self) -> bool:
        """Whether an attempt of this run may have stored some of it without a word."""
        return self.ever_in_doubt or self.unconfirmed

    @property
    def ends_in_doubt(self) -> bool:
        """The same, or that a 503 leaves it open: what nobody decides about it is in doubt."""
        return self.may_be_stored or self.given_for_lost

    @property
    def is_hardly_doubted(self) -> bool:
        """Whether nothing but a 503 says so: a refusal that comes later ends that doubt."""
        return self.given_for_lost and not (self.may_be_stored or self._was_left_in_doubt(0))

    def start_over(self) -> None:
        """What it was refused for is over: its attempts are counted anew."""
        self.earlier_attempts += self.attempts
        self.attempts = 0

    def with_instances(
        self, instances: Sequence[Instance], profile: ServerProfile, *, asked_again: bool = False
    ) -> Parcel:
        """A new parcel of some of these instances, with a body of its own."""
        file_ids = [instance.file.file_id for instance in self.instances]
        known = dict(zip(file_ids, self.body.sha256, strict=True))
        body = make_body(
            instances,
            profile,
            self.body.readers,
            checksums=self.body.checksums,
            sha256=[known[instance.file.file_id] for instance in instances],
        )
        return Parcel(
            self.study_instance_uid,
            tuple(instances),
            body,
            self.batch_id,
            successes_at_outage=self.successes_at_outage,
            deaths=min(self.deaths, 1),  # one of its parts may be to blame: sooner seen
            earlier_attempts=self.earlier_attempts + self.attempts,
            ever_in_doubt=self.ever_in_doubt,
            unconfirmed=self.unconfirmed,
            given_for_lost=self.given_for_lost,
            unasked=self.unasked,
            asked_again=asked_again,
            started=self.started,
        )

    def result(
        self,
        position: int,
        outcome: Outcome,
        reason_code: str = "",
        *,
        evidence: Evidence | None = None,
    ) -> Result:
        """The end of one of its instances, with what the last answer said of the request."""
        instance, answer = self.instances[position], self.last_answer
        return Result(  # at once: one for each file that is sent
            instance.file,
            outcome,
            reason_code,
            "" if answer is None or not reason_code else words_of(answer),
            evidence,
            size=instance.identity.size,
            mtime_ns=instance.identity.mtime_ns,
            mtime_trusted=instance.mtime_trusted,
            header=instance.header,
            sha256=self.body.sha256[position],
            findings=instance.findings,
            http_status=None if answer is None else answer.status,
            attempts=self.earlier_attempts + self.attempts,
            request_id="" if answer is None else answer.request_id,
            elapsed_s=round(time.monotonic() - self.started, 3),
            known_as=instance.known_as,
            over_another=instance.earlier is not None,
        )

    def all_stored(self) -> list[Result]:
        """What ``result`` says of each where the last answer names all as stored, but at once."""
        answer = self.last_answer
        status, request_id = (None, "") if answer is None else (answer.status, answer.request_id)
        attempts = self.earlier_attempts + self.attempts
        elapsed_s = round(time.monotonic() - self.started, 3)
        return [
            Result(
                file, Outcome.STORED, "", "", Evidence.MANIFEST, identity.size, identity.mtime_ns,
                trusted, header, sha256, None, None, findings, None, None, status, attempts,
                request_id, elapsed_s, False, known_as, earlier is not None,
            )
            for (file, identity, header, _, _, trusted, findings, earlier, known_as), sha256 in zip(
                self.instances, self.body.sha256, strict=True
            )
        ]  # fmt: skip

    def replaces_another(self, position: int) -> bool:
        """Whether an earlier run sent other bytes under an instance's UIDs."""
        instance = self.instances[position]
        earlier, sha256 = instance.earlier, self.body.sha256[position]
        if earlier is None:
            return False
        if sha256 is None or earlier.sha256 is None:
            identity = instance.identity
            return (earlier.size, earlier.mtime_ns) != (identity.size, identity.mtime_ns)
        return sha256 != earlier.sha256

    def is_shown_by_a_hit(self, position: int) -> bool:
        """Whether nothing but an instance's own bytes can be under its UIDs."""
        earlier = self.instances[position].earlier
        if earlier is None:
            return True
        if self.replaces_another(position):
            return False
        itself = earlier.is_of(self.instances[position].file) and not earlier.frozen
        return earlier.is_there or itself  # in doubt, and no other bytes with it

    def is_doubted(self, position: int) -> bool:
        """Whether an earlier attempt, of this run or one before, may have stored an instance."""
        return self.ends_in_doubt or self._was_left_in_doubt(position)

    def _was_left_in_doubt(self, position: int) -> bool:
        file, earlier = self.instances[position].file, self.instances[position].earlier
        return file.in_doubt or (
            earlier is not None
            and earlier.is_of(file)
            and (earlier.outcome is Outcome.IN_DOUBT or earlier.overtaken)
        )

    def give_back_buffers(self) -> None:
        """Nothing of it will be sent any more."""
        for instance in self.instances:
            if instance.buffer is not None:
                instance.buffer.give_back()


def make_body(
    instances: Sequence[Instance],
    profile: ServerProfile,
    readers: Readers,
    *,
    checksums: bool,
    sha256: Sequence[bytes | None] = (),
) -> Body:
    """A body as the server wants it: a file alone, or multipart with a boundary of its own."""
    sizes = [instance.size for instance in instances]
    if profile.single_part and len(sizes) == 1:
        framing = single_framing(sizes[0])
    else:
        framing = multipart_framing(sizes, new_boundary(), quoted=profile.quoted_boundary)
    return Body(instances, framing, readers, checksums=checksums, sha256=sha256)


def words_of(answer: Answer) -> str:
    """The server's words: the beginning of its answer as one printable line."""
    text = without_rest(answer).body.decode("utf-8", "replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:WORDS_CHARACTERS]


def without_rest(answer: Answer) -> Answer:
    """It with no more of its body than its words need."""
    return answer._replace(body=answer.body[: 4 * WORDS_CHARACTERS])

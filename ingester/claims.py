"""Who may send an instance: a file claims Study and SOP Instance UID before it is batched.

A second file that meets an undecided claim waits, without its bytes. When the claim is decided the
two are compared: the same data set is a duplicate, another one a conflict. A claim whose holder
ends rejected, invalid, too large, unreadable or failed passes to the first that waits, so that a
refused copy never blocks a good one. What was decided in earlier runs is in the journal.

Event loop only, no waiting. A decided claim is kept until its commit: from then on the journal
answers. Bounded by the cap on open instances and by the rows not yet committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingester.dicomweb.outcome import HOLDS_ITS_CLAIM, IN_THE_STORE, Outcome
from ingester.items import Holder, Instance, InstanceKey, Result

NOBODY: deque[Instance] = deque(maxlen=0)
"""Waits for nearly all claims: an empty deque for each would have 600 bytes."""


@dataclass(slots=True)
class Claim:
    """One instance's UIDs, held by a file, with those that wait for its end."""

    key: InstanceKey
    holder_file_id: int
    decided: Result | Holder | None = None  # in the holder's favour: by this run, or one before
    absent: bool = False  # an earlier run left the holder in doubt; it was not met yet in this one
    committed: bool = False
    earlier: Holder | None = None  # what the store may have of an earlier run
    waiting: deque[Instance] = field(default_factory=lambda: NOBODY)  # see wait()

    @property
    def holder(self) -> Holder | None:
        """Who has what was claimed; None while it is not decided. Made when somebody asks."""
        return _holder_of(self.decided) if isinstance(self.decided, Result) else self.decided


class Claims:
    """All claims of this run that the journal cannot answer yet.

    ``wake(claim)`` is called when a claim with waiting instances is decided.
    """

    def __init__(self, wake: Callable[[Claim], None]) -> None:
        self._wake = wake
        self._claims: dict[tuple[str, str], Claim] = {}
        self.waiting = 0

    def claim(self, instance: Instance) -> Claim | None:
        """Make the claim; None if it is new or was kept for this very file, else who has it."""
        key = instance.key
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = Claim(key, instance.file.file_id)
            return None
        if claim.absent and claim.earlier is not None and claim.earlier.is_of(instance.file):
            claim.holder_file_id = instance.file.file_id
            claim.absent = False
            return None
        return claim

    def wait(self, claim: Claim, instance: Instance) -> None:
        """Wait for the claim's end, without the cached bytes."""
        if instance.buffer is not None:
            instance.buffer.give_back()
        if claim.waiting is NOBODY:
            claim.waiting = deque()
        claim.waiting.append(instance._replace(buffer=None))
        self.waiting += 1

    def is_waited_for(self, key: InstanceKey) -> bool:
        """Whether any file waits for the claim on these UIDs."""
        return bool(self._claims[key].waiting)

    def sent_before(self, instance: Instance, holder: Holder) -> Instance:
        """An earlier run sent ``holder`` under the UIDs that ``instance`` goes with now."""
        self._claims[instance.key].earlier = holder
        return instance.sent_before(holder)

    def held_in_journal(self, instance: Instance, holder: Holder) -> Claim:
        """The journal says an earlier file has what ``instance`` has just claimed."""
        claim = self._claims[instance.key]
        claim.holder_file_id = holder.file_id
        claim.committed = True
        claim.decided = holder
        return claim

    def reopen(self, claim: Claim, holder: Holder) -> Instance | None:
        """The holder's own file, if it waits for its claim: it has changed, and is sent."""
        own = self._take_holder(claim, holder)
        if own is not None:
            claim.decided = None
            claim.committed = False
            claim.earlier = holder
        return own

    def expect_absent_holder(self, instance: Instance, holder: Holder) -> Instance | None:
        """The journal's holder is in doubt: wait until this run meets it, or has met everything.

        Returns the holder's instance if it was met already and waits itself: it goes first.
        """
        claim = self._claims[instance.key]
        claim.holder_file_id = holder.file_id
        claim.earlier = holder
        self.wait(claim, instance)
        own = self._take_holder(claim, holder)
        claim.absent = own is None
        return own

    def _take_holder(self, claim: Claim, holder: Holder) -> Instance | None:
        for waiting in claim.waiting:
            if holder.is_of(waiting.file):
                claim.waiting.remove(waiting)
                claim.holder_file_id = waiting.file.file_id
                self.waiting -= 1
                return waiting.sent_before(holder)
        return None

    def absent_holders(self) -> list[Claim]:
        """Claims kept for files of an earlier run that this one did not meet."""
        return [claim for claim in self._claims.values() if claim.absent]

    def take_waiting(self, claim: Claim) -> list[Instance]:
        """All that wait for a decided claim, to be compared with its holder."""
        waiting = list(claim.waiting)
        claim.waiting = NOBODY
        self.waiting -= len(waiting)
        return waiting

    def pass_on(self, claim: Claim) -> Instance | None:
        """The first that waits becomes the holder; None, and the claim is gone, if nobody does."""
        if not claim.waiting:
            self._claims.pop(claim.key, None)
            return None
        instance = claim.waiting.popleft()
        self.waiting -= 1
        claim.holder_file_id = instance.file.file_id
        claim.absent = False
        claim.decided = None
        claim.committed = False
        return instance._replace(earlier=claim.earlier)

    def forget(self, claim: Claim) -> None:
        """Drop a claim that the journal can answer for from now on."""
        if claim.decided is not None and claim.committed and not claim.waiting:
            self._claims.pop(claim.key, None)

    def decided(self, results: Sequence[Result]) -> None:
        """A listener of the ledger: claims whose holders have ended pass on or are decided."""
        for result in results:
            claim = self._claim_of(result)
            if claim is None or claim.absent or claim.decided is not None:
                continue
            if result.outcome in HOLDS_ITS_CLAIM:
                claim.decided = _kept(claim.earlier, result) or result
                if claim.waiting:
                    self._wake(claim)
            elif claim.waiting:
                self._wake(claim)
            else:
                self._claims.pop(claim.key, None)

    def committed(self, results: Sequence[Result]) -> None:
        """The journal has these: what nobody waits for need not be kept here."""
        for result in results:
            claim = self._claim_of(result)
            if claim is not None and claim.decided is not None:
                claim.committed = True
                self.forget(claim)

    def _claim_of(self, result: Result) -> Claim | None:
        header = result.header
        if header is None:
            return None
        # As InstanceKey, which takes longer to make: this is asked twice for each file.
        claim = self._claims.get((header.study_instance_uid, header.sop_instance_uid))
        if claim is None or claim.holder_file_id != result.file.file_id:
            return None
        return claim

    def __len__(self) -> int:
        return len(self._claims)


def _kept(earlier: Holder | None, result: Result) -> Holder | None:
    """What the store has of an earlier run, where it keeps that and not what it was sent now."""
    if result.outcome is not Outcome.ALREADY_STORED:
        return None
    if earlier is None or earlier.outcome not in IN_THE_STORE:
        return None
    now = _holder_of(result)
    if (now.size, now.sha256) == (earlier.size, earlier.sha256):
        return None
    return now._replace(
        outcome=earlier.outcome, size=earlier.size, sha256=earlier.sha256,
        current=False, decided_now=True, row=(now.size, now.mtime_ns),
    )  # fmt: skip


def _holder_of(result: Result) -> Holder:
    return Holder(
        file_id=result.row_id,
        path=result.file.path,
        outcome=result.outcome,
        size=result.file.size if result.size is None else result.size,
        mtime_ns=result.file.mtime_ns if result.mtime_ns is None else result.mtime_ns,
        sha256=result.sha256,
        current=True,
    )

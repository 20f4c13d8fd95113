"""The third stage: claims each instance's UIDs, settles duplicates, and makes batches of studies.

Takes Scanned; gives StudyBatch. Bounds: ``max_open`` instances in open batches and waiting for a
claim, and those of one look-up in hand. When open batches crowd the memory, what is left of a study
that is through goes out; as many of these are remembered as instances may be open. An instance that
meets a decided claim is compared in reader threads, of the root of either file, and decided here.
Ends when the scan has ended, all batches are closed and nobody waits for a claim.

Decisions about claims come back from the upload through the channel's urgent lane.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice

from ingester.batches import Batches, BatchLimits
from ingester.channel import Channel, ChannelClosed, Sink
from ingester.claims import Claim, Claims
from ingester.compare import Sameness
from ingester.comparing import Comparer, FindCopies
from ingester.dicomweb.outcome import NEVER_SENT, Outcome
from ingester.items import (
    Holder,
    InputEnded,
    Instance,
    InstanceKey,
    Scanned,
    StudyBatch,
    ToUpload,
    ended,
)
from ingester.ledger import Ledger
from ingester.readers import Readers

TICK_S = 0.1
LOOKED_UP_AT_ONCE = 512
"""Instances; the last list may be more."""


class Tick:
    """Time has passed: look for batches that are old enough."""


ToGroup = Scanned | Claim | Tick
FindHolders = Callable[[Sequence[InstanceKey]], Sequence[Holder | None]]


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """``max_open``: instances in open batches or waiting, each about 1.5 KiB.

    ``idle_slot_s``: so long a request could have been under way before the largest batch is sent.
    """

    max_open: int = 50_000
    conflict_words: str = "another data set has these UIDs"
    idle_slot_s: float = 0.2


class Group:
    """The stage; ``run`` is its coroutine."""

    def __init__(
        self,
        options: GroupOptions,
        limits: BatchLimits,
        inbox: Channel[ToGroup],
        out: Sink[ToUpload],
        ledger: Ledger,
        find_holders: FindHolders,
        find_copies: FindCopies,
        lookups: Executor,
        readers: Readers,
        idle_s: Callable[[], float],
        is_crowded: Callable[[], bool],
    ) -> None:
        self._options = options
        self._is_crowded = is_crowded
        self._idle_s = idle_s
        self._inbox = inbox
        self._out = out
        self._ledger = ledger
        self._comparer = Comparer(readers, ledger, options.conflict_words, lookups, find_copies)
        self._find_holders = find_holders
        self._lookups = lookups
        self._batches = Batches(limits, options.max_open)
        self._tick_waits = False
        self.claims = Claims(wake=inbox.put_now)
        ledger.listen(self.claims.decided)

    async def run(self) -> None:
        """Group everything that comes. Raises what the journal raises."""
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        try:
            await self._while_input_comes()
            await self._send(self._batches.flush())
            for claim in self.claims.absent_holders():
                await self._pass_on(claim)
            await self._send(self._batches.flush())
            await self._out.put(InputEnded())
            while self.claims.waiting:
                await self._take(await self._inbox.get_urgent())
                await self._send(self._batches.flush())
        finally:
            self._ticker.cancel()
            self._out.close()

    def _tick(self) -> None:
        if not self._tick_waits:
            self._tick_waits = True
            self._inbox.put_now(Tick())
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def _while_input_comes(self) -> None:
        while True:
            try:
                item = await self._inbox.get()
            except ChannelClosed:
                return
            await self._take(item)

    async def _take(self, item: ToGroup) -> None:
        if isinstance(item, Scanned):
            await self._claim(self._with_those_that_wait(item))
        elif isinstance(item, Claim):
            await self._decided(item)
        else:
            self._tick_waits = False
            await self._send(self._batches.due(time.monotonic()))
            if self._idle_s() >= self._options.idle_slot_s:
                await self._send(self._batches.largest())

    def _with_those_that_wait(self, scanned: Scanned) -> list[Scanned]:
        """One look-up for all lists that are there: it takes 7 ms under load (``small``)."""
        together = [scanned]
        instances = len(scanned.instances)
        while instances < LOOKED_UP_AT_ONCE:
            more = self._inbox.get_now(lambda item: isinstance(item, Scanned))
            if not isinstance(more, Scanned):
                break
            together.append(more)
            instances += len(more.instances)
        return together

    async def _claim(self, lists: Sequence[Scanned]) -> None:
        new = [await self._unclaimed(scanned.instances) for scanned in lists]
        keys = [instance.key for some in new for instance in some]
        holders = iter(await self._holders(keys))
        for scanned, some in zip(lists, new, strict=True):
            self._batches.reading(scanned.root_id, scanned.list_number)
            fresh: list[Instance] = []
            for instance, holder in zip(some, islice(holders, len(some)), strict=True):
                if holder is None:
                    fresh.append(instance)
                    continue
                await self._add_all(fresh)
                fresh.clear()
                await self._against_the_journal(instance, holder)
            await self._add_all(fresh)
            if scanned.whole:
                self._batches.read(scanned.root_id, scanned.list_number)
            await self._send_stale(scanned.root_id)

    async def _send_stale(self, root_id: int) -> None:
        """What is through goes out where memory is scarce, before anybody is refused some."""
        while self._is_crowded() and (stale := self._batches.stale(root_id)):
            await self._send(stale)

    async def _unclaimed(self, instances: Sequence[Instance]) -> list[Instance]:
        """Claim these; returns those whose UIDs nobody in this run had."""
        new: list[Instance] = []
        for instance in instances:
            claim = self.claims.claim(instance)
            if claim is None:
                new.append(instance)
            elif claim.holder is not None:
                await self._comparer.decide([instance], claim.holder)
            elif self._full:
                self._too_many_waiting(instance)
            else:
                self.claims.wait(claim, instance)
        return new

    async def _holders(self, keys: Sequence[InstanceKey]) -> Sequence[Holder | None]:
        """Who has these UIDs in the journal."""
        if not keys:
            return []
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lookups, self._find_holders, keys)

    async def _against_the_journal(self, instance: Instance, holder: Holder) -> None:
        if holder.is_of(instance.file):
            await self._again(self.claims.sent_before(instance, holder), holder)
        elif not holder.is_there and not holder.decided_now:
            if self._full and not self.claims.is_waited_for(instance.key):
                self._too_many_waiting(instance)
                return
            first = self.claims.expect_absent_holder(instance, holder)
            if first is not None:
                await self._send(self._add(first))
        else:
            claim = self.claims.held_in_journal(instance, holder)
            await self._comparer.decide([instance], holder)
            changed = self.claims.reopen(claim, holder)
            if changed is None:
                await self._decided(claim)
            else:
                await self._again(changed, holder)

    async def _again(self, instance: Instance, holder: Holder) -> None:
        """An earlier run sent what this file was: it goes again, unless the store has its bytes.

        That may be where nothing was sent of it since: it could not be asked for its size once, or
        was something else for a while, or is known below another root.
        """
        previous = instance.file.previous
        unsent = previous is not None and previous.outcome in NEVER_SENT
        if holder.is_there and (unsent or instance.known_as is not None):
            sameness = await self._comparer.sameness(instance, holder)
            if sameness not in {Sameness.DIFFERENT, Sameness.CHANGED, Sameness.UNKNOWN}:
                claim = self.claims.held_in_journal(instance, holder)
                self._comparer.end([instance], holder, [sameness])
                await self._decided(claim)
                return
        await self._send(self._add(instance))

    @property
    def _full(self) -> bool:
        """Whether as many wait for a claim as may."""
        return self.claims.waiting >= self._options.max_open

    def _too_many_waiting(self, instance: Instance) -> None:
        """Never stop the input for one that would wait: what it waits for may be its end."""
        reason = "too many files wait for others with their UIDs; the next run takes it up"
        if instance.buffer is not None:
            instance.buffer.give_back()
        self._ledger.decide([ended(instance, Outcome.FAILED, "too_many_waiting", reason)])

    async def _decided(self, claim: Claim) -> None:
        """A claim that instances wait for has an end: compare them, or let the first take over."""
        holder = claim.holder
        if holder is None:
            await self._pass_on(claim)
            return
        await self._comparer.decide(self.claims.take_waiting(claim), holder)
        self.claims.forget(claim)

    async def _pass_on(self, claim: Claim) -> None:
        instance = self.claims.pass_on(claim)
        if instance is not None:
            await self._send(self._add(instance))

    async def _add_all(self, instances: Sequence[Instance]) -> None:
        """Put these, of one root, into their batches; sends each that is complete at once."""
        while instances:
            added, complete = self._batches.add_all(instances, time.monotonic())
            if buffers := [one.buffer for one in instances[:added] if one.buffer is not None]:
                buffers[0].budget.stay(buffers)
            await self._send(complete)
            instances = instances[added:]

    def _add(self, instance: Instance) -> list[StudyBatch]:
        """Put it into its batch; returns those that are complete."""
        if instance.buffer is not None:
            instance.buffer.stay()
        return self._batches.add(instance, time.monotonic())

    async def _send(self, batches: Sequence[StudyBatch]) -> None:
        for batch in batches:
            for instance in batch.instances:
                if instance.buffer is not None:
                    instance.buffer.leave()
            ticket = self._ledger.announce(batch.instances)
            await self._out.put(batch._replace(ticket=ticket))

"""A small file that the store has, sent again to tell a wrong setting or an outage from bad files.

When a server refuses one batch after the other, or loses one again and again, the files may be to
blame, or the setting (a payload mode, a proxy, a full disk behind a 200), or the server. One file
that it has taken before, byte for byte the same, decides: if that is taken, it is the files.

Event loop only. It costs a second copy of that file in a store that keeps versions.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter

from ingester.control import StopControl
from ingester.dicomweb.outcome import WAS_TAKEN
from ingester.dicomweb.profiles import ServerProfile
from ingester.items import Instance
from ingester.parcel import Parcel, make_body
from ingester.readers import Readers
from ingester.reconciliation import Reconciled, manifest_of, reconcile_parcel
from ingester.transport.admission import Admission
from ingester.transport.breaker import Breaker
from ingester.transport.reply import Answer, NoAnswer, Reply, SourceFailed
from ingester.transport.signs import CONFLICT, NO_TRUST, shows_an_outage
from ingester.transport.trial import Trial

FindKnownGood = Callable[[], Awaitable[Instance | None]]
"""A file that the store has by the journal, and that is still as it was sent."""


class KnownGood:
    """Keeps such a file of this run, or finds one of an earlier run, and sends it.

    ``send`` is one attempt. ``release`` gets refused batches that waited for a success.
    """

    def __init__(
        self,
        find: FindKnownGood,
        send: Callable[[Parcel], Awaitable[Reply]],
        profile: ServerProfile,
        readers: Readers,
        admission: Admission,
        trial: Trial[Parcel],
        release: Callable[[Sequence[Parcel]], None],
        stop: StopControl,
        max_outage_s: float,
    ) -> None:
        self._find = find
        self._send = send
        self._profile = profile
        self._readers = readers
        self._admission = admission
        self._trial = trial
        self._release = release
        self._stop = stop
        self._max_outage_s = max_outage_s
        self.at_hand = False  # there was one when it was last to be sent
        self._file: Instance | None = None
        self._unwell = False  # what was sent last says nothing of the file
        self._other_keys = False  # the next time it is sent with: a source may have some each time
        self._no_trust = False  # nor is there a connection to send it by, and there will be none
        self._checking = asyncio.Lock()
        self._not_checking = asyncio.Event()
        self._not_checking.set()

    def keep(self, parcel: Parcel, reconciled: Reconciled) -> None:
        """Remember the smallest file that was stored."""
        least = sys.maxsize if self._file is None else self._file.size
        smaller = [instance for instance in parcel.instances if instance.identity.size < least]
        if smaller:
            stored = {r.file.file_id for r in reconciled.results if r.outcome in WAS_TAKEN}
            taken = [instance for instance in smaller if instance.file.file_id in stored]
            if taken:
                self._file = min(taken, key=attrgetter("size"))._replace(buffer=None)

    async def undisturbed(self) -> None:
        """Return when no check is under way: nobody else begins to send during one."""
        await self._not_checking.wait()

    async def is_taken(self, *, anew: bool) -> bool | None:
        """Whether the server takes it now; None where there is none to be sent.

        A refusal that names it will do: some stores want no instance twice, and this one has read
        it. One that does not (409 alone) says nothing: None. If it is taken, refused batches that
        waited for a success are let go: to be acted upon, or, where the server was not well when it
        refused them (``anew``), to be sent once more.
        """
        sent = await self._send_one()
        if sent is None:
            return None
        parcel, reply = sent
        response = manifest_of(reply) if isinstance(reply, Answer) else None
        if response is None:
            conflict = isinstance(reply, Answer) and reply.status == CONFLICT
            return None if conflict else False
        reconciled = reconcile_parcel(parcel, response, self._profile)
        if reconciled.unnamed or reconciled.later:
            return False
        self._admission.is_back()
        released = self._trial.succeeded()
        for each in released if anew else ():
            each.verdict = None
        self._release(released)
        return True

    async def is_taken_at_last(self) -> bool:
        """The same for a refusal that ends the run: a server that is not well is asked again."""
        return await self._until_taken(while_refused=False)

    async def _send_one(self) -> tuple[Parcel, Reply] | None:
        """Send it, or another where it is not what it was; None where there is none."""
        for kept in (self._file, None):
            file = self._file = kept or await self._find()
            self.at_hand = file is not None
            if file is None:
                return None
            body = make_body([file], self._profile, self._readers, checksums=False)
            parcel = Parcel(file.key.study_instance_uid, (file,), body, 0)
            reply = await self._send(parcel)
            self._unwell = isinstance(reply, Answer | NoAnswer) and shows_an_outage(reply)
            self._other_keys = isinstance(reply, Answer) and reply.mended
            self._no_trust = isinstance(reply, NoAnswer) and reply.kind in NO_TRUST
            if not isinstance(reply, SourceFailed):
                return parcel, reply
            self._file = None
        self.at_hand = False
        return None

    async def check_setting(self) -> bool:
        """Whether the setting is right, for a server that refuses one batch after the other.

        Waits for as long as an outage may last; False: the file is not taken, or there is none.
        """
        successes = self._trial.successes
        async with self._checking:
            if self._trial.successes > successes:
                return True  # somebody else has seen it meanwhile
            self._not_checking.clear()
            try:
                return await self._until_taken(while_refused=True)
            finally:
                self._not_checking.set()

    async def _until_taken(self, *, while_refused: bool) -> bool:
        pause = Breaker()
        pause.trip(time.monotonic())
        waited = with_other_keys = False
        while (taken := await self.is_taken(anew=waited)) is False:
            other_keys = self._other_keys and not with_other_keys
            if self._no_trust or not (while_refused or self._unwell or other_keys):
                return False
            waited, with_other_keys = True, with_other_keys or other_keys
            if while_refused:
                self._admission.is_away("it refuses a file that it has taken before")
            now = time.monotonic()
            if pause.away_s(now) >= self._max_outage_s:
                return False
            pause.failed(now)
            await self._stop.sleep(pause.probe_in_s(now))
            if self._stop.requested:
                return False
        return taken is True
